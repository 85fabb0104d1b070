"""`vrag config show` and `vrag version`."""

from __future__ import annotations

import os
import platform
import sqlite3
from importlib.util import find_spec

import click

from vrag import __version__
from vrag.cli.session import Session, session_options
from vrag.values.canonical import JSON

__all__ = ["config", "version"]

_EXTRAS = {
    "cli": ("click", "rich"),
    "local": ("av", "cv2", "tokenizers", "wordllama"),
    "onnx": ("onnxruntime", "tokenizers"),
    "heic": ("pillow_heif",),
}


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command("show")
@session_options
def show(session: Session) -> int:
    """Show every setting with its value and where it came from.

    \b
    A flag beats a VRAG_* variable, a variable beats vrag.toml, the file beats the default.

    \b
    Examples:
      vrag config show
      VRAG_WORKSPACE_FOLDER=/srv/film vrag config show --json
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    configuration, output = session.configuration, session.output
    rows = configuration.rows()
    output.say(f"file: {configuration.path or 'none'}")
    output.say(f"workspace: {configuration.folder}")
    output.say()
    output.table(("setting", "value", "origin"), [(name, _value(name, value), origin) for name, value, origin in rows])
    from vrag.clock import SystemClock  # noqa: PLC0415  # beside what it needs
    from vrag.compose.models import configured_models  # noqa: PLC0415  # the catalogue

    refused = {one.key: one.problem for one in configured_models(configuration, SystemClock().now()) if one.problem}
    for key, problem in refused.items():
        output.say(f"{key}: {problem}")
    output.document(
        {
            "refused": refused,
            "file": str(configuration.path) if configuration.path else None,
            "workspace": str(configuration.folder),
            "settings": [{"name": name, "value": value, "origin": origin} for name, value, origin in rows],
        }
    )
    return 0


def _value(name: str, value: JSON) -> str:
    if name.endswith("_env"):
        return f"{value} ({'set' if str(value) in os.environ else 'not set'})"
    return "-" if value is None else str(value)


@click.command()
@session_options
def version(session: Session) -> int:
    """Show the version of vrag and of what it stands on.

    \b
    Example:
      vrag version --json
    """  # noqa: D301  # \b is click's mark for "do not wrap"
    extras = {extra: all(find_spec(module) for module in modules) for extra, modules in _EXTRAS.items()}
    session.output.say(f"vrag {__version__}")
    session.output.say(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.system()}")
    for extra, present in extras.items():
        session.output.say(f"extra {extra}: " + ("installed" if present else f"pip install 'vrag[{extra}]'"))
    session.output.document(
        {
            "vrag": __version__,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "system": platform.system(),
            "extras": extras,
        }
    )
    return 0
