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

    A retired model is refused before anything is paid.

    \b
    Examples:
      vrag models
      vrag models --all --json
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    from vrag.clock import SystemClock  # noqa: PLC0415  # the catalogue: only where it is used
    from vrag.generation.catalogue import Catalogue  # noqa: PLC0415  # as above

    today = SystemClock().now().date()
    rows: list[dict[str, JSON]] = [
        {
            "provider": model.provider,
            "id": model.id,
            "kind": model.kind,
            "state": str(model.state_on(today)),
            "regions": list(model.regions),
        }
        for model in Catalogue.load().models
    ]
    shown = [row for row in rows if all_ or row["state"] != "retired"]
    session.output.table(
        ("state", "kind", "model", "regions"),
        [(row["state"], row["kind"], f"{row['provider']}:{row['id']}", ", ".join(row["regions"])) for row in shown],
    )
    session.output.document({"on": today.isoformat(), "models": shown})
    return 0
