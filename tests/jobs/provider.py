"""The far side in a process of its own: a fake Bedrock and an S3, over HTTP on loopback, told what to do line by line."""

import json
import logging
import sys

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

from vrag.testing.bedrock import FakeBedrock, LostReply, Refusal

BUCKET = "films"


def main():
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    s3_url = "http://{}:{}".format(*moto.get_host_and_port())
    s3 = boto3.client(
        "s3",
        endpoint_url=s3_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=40),
    )
    s3.create_bucket(Bucket=BUCKET)
    fake = None
    forgetful = [False]
    for line in sys.stdin:
        asked = json.loads(line)
        match asked["do"]:
            case "account":  # a new account: no jobs, no charges
                if fake is not None:
                    fake.close()
                fake = FakeBedrock(s3=s3, render_s=asked.get("render_s", 0.15))
                forgetful[0] = False
                forgets(fake, forgetful)
                answer = {"bedrock": fake.url, "s3": s3_url, "bucket": BUCKET}
            case "fault":
                spoil(fake, asked["fault"], forgetful)
                answer = {}
            case "told":
                calls = [call.name for call in fake.faults.calls]
                answer = {
                    "charges": [charge.token for charge in fake.charges],
                    "starts": calls.count("StartAsyncInvoke"),
                }
        print(json.dumps(answer), flush=True)
    fake.close()
    moto.stop()


def forgets(fake, forgetful):
    start = fake.jobs.start

    def once(model_id, body, output, token, commission):
        arn = start(model_id, body, output, token, commission)
        if forgetful[0]:
            fake.jobs.forget(token)
        return arn

    jobs = fake.jobs

    class Forgetful:  # `Jobs` has slots: an object in its place passes everything else on
        def __getattr__(self, name):
            return getattr(jobs, name)

        def __setattr__(self, name, value):
            setattr(jobs, name, value)

    Forgetful.start = staticmethod(once)
    fake.jobs = Forgetful()


def spoil(fake, fault, forgetful):
    sorry = Refusal("InternalServerException", "sorry")
    match fault:
        case "none" | "download cut":
            pass
        case "start throttled":
            fake.faults.on("StartAsyncInvoke", times=2)
        case "quota full":
            fake.faults.on("StartAsyncInvoke", error=Refusal("ServiceQuotaExceededException", "too many jobs"), times=3)
        case "500 before the charge":
            fake.faults.on("StartAsyncInvoke", error=sorry, times=2)
        case "500 after the charge":
            fake.faults.on("StartAsyncInvoke", error=sorry, late=True, times=2)
        case "answer lost":
            fake.faults.on("StartAsyncInvoke", error=LostReply(), late=True, times=2)
        case "no answer":
            fake.faults.on("StartAsyncInvoke", error=LostReply(), times=2)
        case "questions throttled":
            fake.faults.on("GetAsyncInvoke", times=3).on("ListAsyncInvokes", times=3)
        case "token forgotten, answer lost":
            forgetful[0] = True
            fake.faults.on("StartAsyncInvoke", error=LostReply(), late=True, times=2)
        case "list lags":
            fake.jobs.list_lag_s = 1.0
        case "one job blocked by moderation":
            fake.jobs.script("moderation")
        case _:
            raise ValueError(fault)


if __name__ == "__main__":
    main()
