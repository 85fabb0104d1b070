"""What every command shares: the options `--workspace`, `--config` and `--json`, and what they open."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vrag.cli.output import Output
from vrag.compose.configuration import Configuration, find_file, read_configuration
from vrag.errors import NotFoundError, UsageError
from vrag.values.assets import check_knowledge_base_name

if TYPE_CHECKING:
    from vrag.compose.assembly import Assembly
    from vrag.knowledge.knowledge_base import KnowledgeBase
    from vrag.pipeline import VRAGPipeline

__all__ = ["Session", "knowledge_base_option", "session_options"]


class Session:
    """One run of a command: its output, and its workspace on first use."""

    def __init__(self, output: Output, workspace: str | None, config: str | None) -> None:
        self.output = output
        self._flags = {} if workspace is None else {"workspace.folder": (workspace, "--workspace")}
        self._file = config

    def next_step(self, *words: str) -> None:
        """Tell the next command, for the same workspace and configuration as this one."""
        places = (("--workspace", self._flags.get("workspace.folder", (None,))[0]), ("--config", self._file))
        given = [word for flag, value in places if value for word in (flag, value)]
        # "$USER" stays as it is: the shell fills it in.
        self.output.note("next: " + " ".join(w if w == '"$USER"' else shlex.quote(w) for w in ("vrag", *words, *given)))

    @functools.cached_property
    def configuration(self) -> Configuration:
        """`vrag.toml`, variables and flags."""
        file = Path(self._file) if self._file else find_file(os.environ)
        return read_configuration(file, environ=os.environ, flags=self._flags)

    @functools.cached_property
    def assembly(self) -> Assembly:
        """What makes the backends."""
        from vrag.compose.assembly import Assembly  # noqa: PLC0415  # numpy and the rest: only where they are used

        return Assembly(self.configuration, environ=os.environ)

    @contextmanager
    def pipeline(self) -> Iterator[VRAGPipeline]:
        """The whole pipeline."""
        from vrag.pipeline import VRAGPipeline  # noqa: PLC0415  # as above

        with self.assembly.pipeline(VRAGPipeline) as pipeline:
            yield pipeline

    def close(self) -> None:
        """Let go of what was opened."""
        if "assembly" in vars(self):
            self.assembly.close()

    def knowledge_base_name(self, given: str | None) -> str:
        """The one that `--kb` names, else the configured default, else the only one there is.

        Raises:
            UsageError: There is a choice.
        """
        name = given or self.configuration.value("defaults.knowledge_base")
        if name is None:
            known = self.assembly.knowledge_base_names()
            if len(known) != 1:
                listed = f"there are: {', '.join(known)}" if known else "there is none yet"
                raise UsageError(f"Name a knowledge base; {listed}.", hint=f"--kb {known[0] if known else 'NAME'}")
            name = known[0]
        return check_knowledge_base_name(name)

    @contextmanager
    def knowledge_base(self, given: str | None, *, filled: bool = True) -> Iterator[KnowledgeBase]:
        """A knowledge base alone: no generator is made for it, so no codec is needed.

        Raises:
            NotFoundError: `filled`, and nothing was ever ingested into it.
        """
        name = self.knowledge_base_name(given)
        if filled:
            self.require_made(name)
        knowledge_base = self.assembly.knowledge_base(name)
        try:
            if filled:
                self.require_filled(knowledge_base)
            yield knowledge_base
        finally:
            knowledge_base.close()

    def require_made(self, name: str) -> None:
        """Refuse a name that was never used; nothing is made on disk by asking.

        Raises:
            NotFoundError: With the ingest command.
        """
        if name not in self.assembly.knowledge_base_names():
            raise self._nothing_in(name)

    def require_filled(self, knowledge_base: KnowledgeBase) -> None:
        """Refuse a knowledge base without pictures.

        Raises:
            NotFoundError: With the ingest command.
        """
        if knowledge_base.count() == 0:
            raise self._nothing_in(knowledge_base.name)

    def _nothing_in(self, name: str) -> NotFoundError:
        others = [other for other in self.assembly.knowledge_base_names() if other != name]
        listed = f" There are: {', '.join(others)}." if others else ""
        return NotFoundError(
            f"Nothing was ever ingested into the knowledge base '{name}' of the workspace "
            f"'{self.configuration.folder}'.{listed}",
            hint=f"vrag ingest FOLDER --kb {name}",
        )


def session_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--workspace`, `--config` and `--json`; it gets a `Session` as its first argument."""

    @click.option(
        "--workspace",
        metavar="DIR",
        help="Folder of everything that vrag keeps. [default: studio, beside vrag.toml or here]",
    )
    @click.option("--config", metavar="FILE", help="Configuration. [default: vrag.toml here or in a folder above]")
    @click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else.")
    @functools.wraps(command)
    def wrapped(workspace: str | None, config: str | None, as_json: bool, **given: Any) -> Any:
        session = Session(Output(as_json=as_json), workspace, config)
        try:
            return command(session, **given)
        finally:
            session.close()

    return wrapped


def knowledge_base_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--kb`."""
    return click.option("--kb", metavar="NAME", help="The knowledge base. [default: the only one, or as configured]")(
        command
    )
