"""Lives of a buyer, one process each: it begins, or goes on, and may be told where to kill itself.

One process reads jobs line by line and forks for each, so that a life costs no imports.
"""

import faulthandler
import io
import json
import os
import signal
import sqlite3
import sys
import traceback
from pathlib import Path

import boto3
from botocore.config import Config

import vrag.media.video  # noqa: F401  # before the fork: it is what takes long
from vrag.backends.aws.luma_ray import LumaRayGenerator
from vrag.backends.local.storage import FolderStorage
from vrag.clock import SystemClock
from vrag.errors import JobFailedError, JobUndecidedError, VRAGError
from vrag.generation.runner import Runner
from vrag.provenance.signing import sign_envelope
from vrag.testing import FakeSigner
from vrag.values.briefs import Brief, PlannedVideo
from vrag.values.canonical import canonical_json
from vrag.values.jobs import StepState
from vrag.values.requests import Estimate, Shot, VideoRequest, purchase_id
from vrag.workspace import Workspace
from vrag.workspace.journal import ENDED, Journal
from vrag.workspace.ledger import Draft, Lineage
from vrag.workspace.limits import Patience

JOBS = 3


def clients(at):
    plain = Config(
        retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, read_timeout=20, max_pool_connections=20
    )
    known = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test", "config": plain}
    return (
        boto3.client("bedrock-runtime", endpoint_url=at["bedrock"], **known),
        boto3.client("s3", endpoint_url=at["s3"], **known),
    )


def request(number):
    return VideoRequest(shots=(Shot(prompt=f"lake {number}", duration_s=5.0),), width_px=540, height_px=540)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


# -- ours


class Kill:
    """Kills this process at the nth change to a state: inside its transaction, or when it is written."""

    def __init__(self, state, moment, nth):
        self.state, self.moment, self.left = state, moment, nth

    def reached(self, state, moment):
        if (state, moment) == (self.state, self.moment):
            self.left -= 1
            if self.left == 0:
                die()


def kill_at(spec):
    kill = Kill(*spec)
    event, advance, reserve = Journal._event, Journal.advance, Journal.reserve_and_submit

    def _event(connection, step_id, state, at, detail=None):
        event(connection, step_id, state, at, detail)
        kill.reached(str(state), "in")

    def _advance(self, step_id, expected, state, **learnt):
        moved = advance(self, step_id, expected, state, **learnt)
        if moved:
            kill.reached(str(state), "after")
        return moved

    def _reserve(self, *given, **options):
        reserved = reserve(self, *given, **options)
        if reserved == "reserved":
            kill.reached("submitting", "after")
        return reserved

    Journal._event, Journal.advance, Journal.reserve_and_submit = staticmethod(_event), _advance, _reserve


class CutOnce(LumaRayGenerator):
    """The first download of each process ends early."""

    cut = True

    def fetch(self, handle, output, offset=0):
        stream = super().fetch(handle, output, offset)
        if CutOnce.cut:
            CutOnce.cut = False
            return io.BytesIO(stream.read(1000))
        return stream


def ours(folder, at, fault, out, jobs):
    bedrock, s3 = clients(at)
    kind = CutOnce if fault == "download cut" else LumaRayGenerator
    film = kind(bedrock=bedrock, s3=s3, output_uri=f"s3://{at['bucket']}/{at['prefix']}")
    workspace, storage, signer = Workspace(folder), FolderStorage(folder / "media"), FakeSigner()
    journal = workspace.journal

    def record(step, _closed):
        payload = canonical_json({"video": step.delivered.sha256, "step": step.id})
        draft = Draft(
            record_id=step.id, payload=payload, lineage=Lineage(subjects={"delivered": step.delivered.sha256})
        )
        envelope = sign_envelope(payload, signer)
        journal.advance(
            step.id,
            StepState.FINISHED,
            StepState.RECORDED,
            record_id=step.id,
            within=lambda connection: workspace.ledger.append(
                connection, draft, envelope, public_key=signer.public_key
            ),
        )

    runner = Runner(
        journal=journal,
        storage=storage,
        generators={"film": film},
        clock=SystemClock(),
        gate=lambda _step: None,
        record=record,
        patience=Patience(first_s=0.02, longest_s=0.2),
    )
    for number in range(jobs):
        asked = request(number % 3)
        journal.plan(
            PlannedVideo(
                step_id=purchase_id(asked, film.model, scope=workspace.scope, take=1 + number // 3),
                brief=Brief(object_prompt="lake", text_only=True),
                generator="film",
                model=film.model,
                request=asked,
                sources=(),
                estimate=Estimate(usd_micros=7_500_000, video_s=5.0),
            )
        )
    code = 0
    for step_id, future in runner.submit(journal.ids(set(StepState) - ENDED - {StepState.UNDECIDED})).items():
        try:
            future.result(60)
            os.write(out, f"done {step_id}\n".encode())
        except (JobFailedError, JobUndecidedError):
            pass
        except VRAGError as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            code = 1
    runner.close()
    workspace.close()
    os._exit(code)


# -- what is written without thinking of it


def naive(folder, at, fault, out, kill):
    """Start, poll, download, note; begin again with what has no file."""
    bedrock, s3 = clients(at)
    kind = CutOnce if fault == "download cut" else LumaRayGenerator
    film = kind(bedrock=bedrock, s3=s3, output_uri=f"s3://{at['bucket']}/{at['prefix']}")
    clock, counter = SystemClock(), Kill(*(kill or ("", "", 0)))
    for number in range(JOBS):
        path = folder / f"{number}.mp4"
        if path.exists():
            continue
        for attempt in range(4):
            try:
                counter.reached("submitting", "in")
                counter.reached("submitting", "after")
                handle = film.start(request(number), lambda _ref: None, clock.token_bytes(16).hex())
                counter.reached("submitted", "in")
                counter.reached("submitted", "after")
                while (status := film.status([handle]).get(handle)) is None or status.state == "running":
                    clock.sleep(0.05)
                counter.reached("done", "in")
                counter.reached("done", "after")
                if status.state == "failed":
                    break
                video = next(one for one in status.outputs if one.role == "video")
                with film.fetch(handle, video) as stream, path.open("wb") as file:
                    counter.reached("fetched", "in")
                    while chunk := stream.read(1 << 14):
                        file.write(chunk)
                counter.reached("fetched", "after")
                counter.reached("finished", "in")
                counter.reached("finished", "after")
                counter.reached("recorded", "in")
                with (folder / "ledger.jsonl").open("a") as ledger:
                    ledger.write(json.dumps({"video": path.name}) + "\n")
                counter.reached("recorded", "after")
                os.write(out, f"done {path.name}\n".encode())
                counter.reached("delivered", "in")
                counter.reached("delivered", "after")
                break
            except VRAGError:
                clock.sleep(0.02 * 2**attempt)
    os._exit(0)


def main():
    for line in sys.stdin:
        asked = json.loads(line)
        Path(asked["folder"]).mkdir(parents=True, exist_ok=True)
        children = [begin(asked) for _ in range(asked.get("count", 1))]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps({"code": codes[0], "codes": codes}), flush=True)


def begin(asked):
    child = os.fork()
    if child:
        return child
    folder = Path(asked["folder"])
    faulthandler.dump_traceback_later(120, exit=True)
    out = os.open(folder / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        if asked["who"] == "ours":
            if asked["kill"]:
                kill_at(asked["kill"])
            ours(folder, asked["at"], asked["fault"], out, asked.get("jobs", JOBS))
        naive(folder, asked["at"], asked["fault"], out, asked["kill"])
    except (VRAGError, OSError, sqlite3.Error) as error:  # a full disk
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    except BaseException:  # noqa: BLE001  # the process ends here in any case
        traceback.print_exc()
    os._exit(3)


if __name__ == "__main__":
    main()
