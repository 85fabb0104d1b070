"""The command `vrag`: its group, its exit codes, and the edge where errors become words."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

import click

from vrag import __version__
from vrag.cli import (
    audit,
    bases,
    batch,
    demo,
    doctor,
    fake_bedrock,
    infrastructure,
    jobs,
    knowledge,
    lineage,
    mask,
    models,
    report,
    settings,
    videos,
)
from vrag.cli.output import Output
from vrag.errors import (
    ContentRejectedError,
    GateError,
    NoSuitableImageError,
    UnsupportedRequestError,
    UsageError,
    VerificationError,
    VRAGError,
)

__all__ = ["EXIT_CODES", "app", "run"]

EXIT_CODES: Final = {
    0: "all was done",
    1: "failed",
    2: "usage: a command, an option, the configuration or an input is not usable",
    3: "refused: no suitable picture, a picture that may not be used, or a request that the model does not take",
    4: "partial: some files or rows were rejected, or something is locked; the others are done",
    5: "verification failed, or the signer is not one that you trust",
    130: "interrupted (Ctrl-C)",
    143: "terminated",
}

_REFUSED = (NoSuitableImageError, GateError, UnsupportedRequestError, ContentRejectedError)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items()),
)
@click.version_option(__version__, prog_name="vrag", message="%(prog)s %(version)s")
def app() -> None:
    """AI video made from your own vetted pictures, with proof.

    \b
    Examples:
      vrag demo
      vrag ingest ./photos --kb brand
      vrag review --kb brand --approve-all --by "$USER"
      vrag generate --kb brand --object "red shoes" --action "camera pans down" -o shoes.mp4
      vrag verify shoes.mp4
    """  # noqa: D301  # \b is click's mark for "do not wrap"


for _command in (
    demo.demo,
    knowledge.ingest,
    knowledge.review,
    knowledge.search,
    bases.kb,
    mask.mask,
    videos.generate,
    batch.plan,
    batch.prepare,
    batch.submit,
    batch.batch,
    videos.verify,
    videos.key,
    jobs.jobs,
    jobs.resume,
    jobs.where_used,
    lineage.lineage,
    jobs.revoke,
    report.report,
    audit.audit,
    models.models,
    doctor.doctor,
    infrastructure.aws,
    fake_bedrock.fake_bedrock,
    settings.config,
    settings.version,
):
    app.add_command(_command)


class _TerminatedError(BaseException):
    """SIGTERM came; `finally` blocks close what is open."""


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _TerminatedError


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; nothing escapes but what `VRAG_DEBUG` lets through."""
    # Decided before parsing, so that a usage error is JSON too.
    output = Output(as_json="--json" in arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    before = None
    with contextlib.suppress(ValueError):  # not the main thread: whoever runs us there handles signals
        before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(arguments, output)
    except (KeyboardInterrupt, click.Abort):
        output.note("Interrupted. What was finished is kept, and nothing was lost; go on with: vrag resume")
        return 130
    except _TerminatedError:
        output.note("Terminated. What was finished is kept, and nothing was lost; go on with: vrag resume")
        return 143
    except BrokenPipeError:
        # The reader went away (`vrag search … | head`); Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _run(arguments: Sequence[str], output: Output) -> int:
    debug = bool(os.environ.get("VRAG_DEBUG"))
    try:
        code = app.main(list(arguments), prog_name="vrag", standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.Abort:
        raise
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "vrag"
        output.error(UsageError(error.format_message(), hint=f"{path} --help"))
        return 2
    except VRAGError as error:
        if debug:
            raise
        output.error(error)
        return exit_code(error)
    except OSError as error:
        if debug or isinstance(error, BrokenPipeError):
            raise
        named = f" '{error.filename}'" if error.filename else ""
        output.error(VRAGError(f"The system refused{named}: {error.strerror or type(error).__name__}."))
        return 1
    except Exception as error:  # the last line of defence: a person sees words, not a traceback
        if debug:
            raise
        output.error(VRAGError(f"Unexpected {type(error).__name__}: {error}", hint="VRAG_DEBUG=1 vrag … shows where"))
        return 1
    return code if isinstance(code, int) else 0


def exit_code(error: VRAGError) -> int:
    """The exit code for an error; `EXIT_CODES` says what it means."""
    if isinstance(error, _REFUSED):
        return 3
    if isinstance(error, VerificationError):
        return 5
    return 2 if isinstance(error, UsageError) else 1
