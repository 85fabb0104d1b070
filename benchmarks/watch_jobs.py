"""What it costs to watch 1 000 jobs: one list call a page, against one Get a job; calls, and processor time of the client.

The peer is what a program does that follows the examples of the SDK: `get_async_invoke` for each job. Both ask the fake
Bedrock over HTTP, which runs in a process of its own, so that only the client is measured.

    python benchmarks/watch_jobs.py [--jobs 1000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import statistics

import boto3
from botocore.config import Config

from vrag.backends.aws.luma_ray import LumaRayGenerator
from vrag.testing.bedrock import FakeBedrock
from vrag.testing.clock import FakeClock
from vrag.values.jobs import Handle
from vrag.values.requests import Shot, VideoRequest


class Bucket:
    """Takes files and keeps none: nobody fetches here."""

    def put_object(self, **_options):
        pass


def _serve(pipe):
    fake = FakeBedrock(s3=Bucket(), clock=FakeClock(), region="us-west-2")
    pipe.send(fake.url)
    while pipe.recv() == "count":
        pipe.send({name: fake.calls(name) for name in ("ListAsyncInvokes", "GetAsyncInvoke")})
    fake.close()


def _cpu_s():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipe, end = context.Pipe()
    server = context.Process(target=_serve, args=(end,), daemon=True)
    server.start()
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=pipe.recv(),
        region_name="us-west-2",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"mode": "standard"}),
    )
    generator = LumaRayGenerator(bedrock=client, s3=None, output_uri="s3://films/out", clock=FakeClock())
    handles: list[Handle] = []
    for number in range(asked.jobs):
        request = VideoRequest(shots=(Shot(prompt=f"lake {number}", duration_s=5.0),))
        handles.append(generator.start(request, lambda _ref: io.BytesIO(), f"token-{number}"))

    def counted(watch):
        pipe.send("count")
        before, start_s = pipe.recv(), _cpu_s()
        watch()
        used_s = _cpu_s() - start_s
        pipe.send("count")
        after = pipe.recv()
        return used_s, sum(after.values()) - sum(before.values())

    def listed():
        assert len(generator.status(handles)) == asked.jobs

    def asked_one_by_one():
        for handle in handles:
            client.get_async_invoke(invocationArn=handle.id)

    lists = [counted(listed) for _ in range(asked.rounds)]
    gets = [counted(asked_one_by_one) for _ in range(asked.rounds)]
    list_s, get_s = (statistics.median(used_s for used_s, _ in one) for one in (lists, gets))
    print(f"{asked.jobs} jobs, median of {asked.rounds} rounds, processor time of the client")
    print(f"  status() by list   {lists[0][1]:>6} calls  {1000 * list_s:>8.1f} ms")
    print(f"  one Get a job      {gets[0][1]:>6} calls  {1000 * get_s:>8.1f} ms")
    print(f"  ratio {list_s / get_s:.3f} of the time (goal: at most 0.1)")
    pipe.send("stop")
    server.join()


if __name__ == "__main__":
    main()
