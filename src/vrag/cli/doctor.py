"""`vrag doctor`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from vrag.cli.session import Session, knowledge_base_option, session_options
from vrag.errors import ConfigError, FormatVersionError, UsageError
from vrag.values.canonical import JSON

if TYPE_CHECKING:
    from vrag.compose.doctor import Check, Price
    from vrag.values.requests import Estimate

__all__ = ["doctor"]

_MARKS = {"ok": "ok  ", "FAIL": "FAIL", "-": "-   "}


@click.command()
@click.option("--price", is_flag=True, help="Say what such a video would cost, instead of looking at everything.")
@knowledge_base_option
@click.option("--model", metavar="NAME", help="For --price: a generator. [default: the configured or only one]")
@click.option("--duration", "duration_s", type=float, metavar="SECONDS", help="For --price. [default: as configured]")
@click.option("--size", metavar="WxH", help="For --price: width and height in pixels. [default: as configured]")
@session_options
def doctor(
    session: Session, *, price: bool, kb: str | None, model: str | None, duration_s: float | None, size: str | None
) -> int:
    """Check that everything is there which the configuration names; each line that fails says what to do.

    Nothing is bought. A bucket gets one small object and an OpenSearch endpoint small indexes, all deleted again.
    Exit code 1 where something fails.

    \b
    Examples:
      vrag doctor
      vrag doctor --price --duration 6 --size 1280x720
      vrag doctor --json
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    if price:
        return _prices(session, kb=kb, model=model, duration_s=duration_s, size=size)
    if model or duration_s or size:
        raise UsageError("--model, --duration and --size belong to --price.", hint="vrag doctor --price")
    from vrag.compose.doctor import examine, read_or_explain  # noqa: PLC0415  # the backends: only where they are used

    output = session.output
    checks: list[Check] = []
    try:
        assembly = session.assembly
    except (ConfigError, FormatVersionError) as error:
        checks.append(read_or_explain(error))
        output.say(_line(checks[0]))
    else:
        for check in examine(assembly, environ=os.environ):
            checks.append(check)
            output.say(_line(check))
            if check.next_step and check.state != "ok":
                output.say(f"      next: {check.next_step}")
    failed = [check for check in checks if check.state == "FAIL"]
    output.say(f"{len(failed)} of {len(checks)} failed" if failed else "all is well")
    output.document(
        {
            "ok": not failed,
            "checks": [
                {"name": one.name, "state": one.state, "message": one.message, "next": one.next_step} for one in checks
            ],
        }
    )
    return 1 if failed else 0


def _line(check: Check) -> str:
    return f"{_MARKS[check.state]}  {check.name}: {check.message}"


def _prices(session: Session, *, kb: str | None, model: str | None, duration_s: float | None, size: str | None) -> int:
    from vrag.compose.doctor import price_job  # noqa: PLC0415  # as above

    settings = session.configuration
    defaults: dict[str, JSON] = {
        name: settings.value(f"defaults.{name}") for name in ("width_px", "height_px", "fps", "duration_s", "codec")
    }
    if size is not None:
        width, _, height = size.partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise UsageError(f"A size is WIDTHxHEIGHT in pixels, not '{size[:40]}'.", hint="--size 1280x720")
        defaults |= {"width_px": int(width), "height_px": int(height)}
    if duration_s is not None:
        defaults["duration_s"] = duration_s
    known = session.assembly.knowledge_base_names()
    name = kb or settings.value("defaults.knowledge_base") or (known[0] if len(known) == 1 else None)
    prices = price_job(
        session.assembly, generator=model or settings.value("defaults.model"), knowledge_base=name, **defaults
    )
    output = session.output
    output.table(("what", "price", "by"), [(one.what, _usd(one.estimate), one.estimate.basis or "-") for one in prices])
    output.say("nothing was bought")
    output.document({"prices": [_json(one) for one in prices]})
    return 0


def _json(one: Price) -> JSON:
    return {"what": one.what, "usd_micros": one.estimate.usd_micros, "basis": one.estimate.basis}


def _usd(estimate: Estimate) -> str:
    if estimate.usd_micros is None:
        return "not known"
    return "free" if estimate.usd_micros == 0 else f"{estimate.usd_micros / 1e6:g} USD"
