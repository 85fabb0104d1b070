"""`vrag fake-bedrock` as people use it: another program with the printed environment, and Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vrag.cli.fake_bedrock import fake_bedrock
from vrag.errors import UsageError

COMMAND = "import sys; from vrag.cli.fake_bedrock import fake_bedrock as c; sys.exit(c.main(sys.argv[1:], 'fake', standalone_mode=False))"
PROGRAM = """
import io, time
from vrag.pipeline import VRAGPipeline
from vrag.values.briefs import Brief
with VRAGPipeline.from_config() as pipeline:
    video = pipeline.generate(Brief(object_prompt="a lake", text_only=True, duration_s=5.0, width_px=960, height_px=540))
    assert video.verify().ok
    try:
        pipeline.generate(Brief(object_prompt="so much dust", text_only=True, duration_s=5.0))
    except Exception as error:
        print("refused:", error)
"""
FILE = "[generators.luma]\nuse = 'aws:luma-ray'\noutput_uri = 's3://fake-films/raw'\n"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    arguments = ["--render-seconds", "0.2", "--blocked-word", "dust", "--workspace", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def test_a_program_with_the_printed_environment_runs_and_the_charges_are_told(
    running: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert running.stdout is not None
    printed = {}
    for line in running.stdout:
        if found := re.fullmatch(r"  export (\w+)=(\S+)\n", line):
            printed[found[1]] = found[2]
        if "a bucket is there" in line:
            break
    assert {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS"} <= printed.keys()
    (tmp_path / "vrag.toml").write_text(FILE)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, **printed},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "blocked by our content filters" in done.stdout
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (0, "")
    assert "1 charges" in out
    assert re.search(r"luma\.ray-v2:0 +1 +not known", out)


def test_a_port_that_is_taken_and_an_s3_that_does_not_answer_are_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(UsageError, match=f"The port {port} cannot"):
            fake_bedrock.main(["--port", port], "fake", standalone_mode=False)
    with pytest.raises(UsageError, match="does not answer as an S3"):
        fake_bedrock.main(["--s3-endpoint", "http://127.0.0.1:9"], "fake", standalone_mode=False)
