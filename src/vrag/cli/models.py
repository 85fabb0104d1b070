"""`vrag models`."""

from __future__ import annotations

import click

from vrag.cli.session import Session, session_options
from vrag.values.canonical import JSON

__all__ = ["models"]


@click.command()
@click.option("--all", "all_", is_flag=True, help="Retired ones too.")
@session_options
def models(session: Session, *, all_: bool) -> int:
    """List the hosted models that the library knows, with their state today and where to call them.

    A model of the configuration is marked with the parts that use it. A retired model is refused before anything is
    paid; one that is configured is listed with what to use instead.

    \b
    Examples:
      vrag models
      vrag models --all --json
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.clock import SystemClock  # noqa: PLC0415  # the catalogue: only where it is used
    from vrag.compose.models import configured_models  # noqa: PLC0415  # as above
    from vrag.generation.catalogue import Catalogue  # noqa: PLC0415  # as above

    now = SystemClock().now()
    used: dict[str, list[str]] = {}
    problems: dict[str, str] = {}
    for one in configured_models(session.configuration, now):
        used.setdefault(one.known.id if one.known else one.id, []).append(one.key)
        if one.problem is not None:
            problems[one.key] = one.problem
    rows: list[dict[str, JSON]] = [
        {
            "provider": model.provider,
            "id": model.id,
            "kind": model.kind,
            "state": str(model.state_on(now.date())),
            "regions": list(model.regions),
            "configured": used.get(model.id, []),
        }
        for model in Catalogue.load().models
        if model.kind != "service"
    ]
    shown = [row for row in rows if all_ or row["configured"] or row["state"] != "retired"]
    session.output.table(
        ("state", "kind", "model", "regions", "configured"),
        [
            (
                row["state"],
                row["kind"],
                f"{row['provider']}:{row['id']}",
                ", ".join(row["regions"]),
                ", ".join(row["configured"]),
            )
            for row in shown
        ],
    )
    for key, problem in problems.items():
        session.output.say(f"{key}: {problem}")
    session.output.document({"on": now.date().isoformat(), "models": shown, "refused": problems})
    return 0
