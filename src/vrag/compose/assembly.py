"""Makes the objects that a configuration names, through the entry points of `vrag.backends`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, get_type_hints

from attrs import evolve, fields

from vrag.backends import SEAMS, Backend, Context
from vrag.clock import Clock, SystemClock
from vrag.compose import evidence
from vrag.compose.configuration import Configuration, Part, Setting, part_of
from vrag.errors import ConfigError, MissingExtraError, NotFoundError, UsageError, VRAGError
from vrag.generation.paid import Account, PaidCaptioner, PaidEmbedder, PaidModerator
from vrag.interfaces import Captioner, Embedder, Inpainter, Signer, Storage, VideoGenerator
from vrag.knowledge.erasure import erasure_of, open_or_erased
from vrag.knowledge.ingest import Progress
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.knowledge.reindex import ReindexReport, reindex
from vrag.knowledge.retrieval import RetrievalSettings
from vrag.knowledge.rights import UsePolicy, time_zone_of
from vrag.media.header import ImageLimits
from vrag.media.ref import MediaRef
from vrag.pipeline import VRAGPipeline
from vrag.provenance.certificates import read_anchors
from vrag.provenance.checkpoints import StateFolder, state_folder
from vrag.values.assets import check_knowledge_base_name
from vrag.values.canonical import canonical_json, from_json
from vrag.values.requests import Estimate
from vrag.values.vectors import Item
from vrag.workspace import Workspace

__all__ = ["Assembly", "installed_backends"]

GROUP = "vrag.backends"
_OURS = tuple(EntryPoint(name=name, value=f"vrag.backends.{name}:backend", group=GROUP) for name in ("local", "aws"))
"""The entry points of `pyproject.toml`, for a source tree that runs without being installed."""
_MAY_BE_NONE = frozenset({"embedder", "inpainter", "captioner", "moderator"})
_PATHS = frozenset({"folder", "file", "ca_bundle", "certificate_file", "key_file", "font"})

_A_PICTURE = MediaRef(sha256="0" * 64, media_type="image/jpeg", size_bytes=1, width_px=1280, height_px=720)
"""Something to ask a price for."""
_logger = logging.getLogger(__name__)
PipelineT = TypeVar("PipelineT", bound=VRAGPipeline)
TableT = TypeVar("TableT", ImageLimits, RetrievalSettings, UsePolicy)


def installed_backends() -> dict[str, EntryPoint]:
    """The entry points of the group `vrag.backends`, by name.

    Raises:
        ConfigError: Two packages claim one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"Two installed packages register the backend '{point.name}': {_owner(other)} and {_owner(point)}.",
                hint=f"pip uninstall {_owner(point)}",
            )
    for point in _OURS:
        found.setdefault(point.name, point)
    return found


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


class Assembly:
    """Makes the objects that a configuration names, each on first use; nothing is imported before."""

    def __init__(
        self, configuration: Configuration, *, clock: Clock | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self.configuration = configuration
        self.folder = configuration.folder
        self._clock = clock or SystemClock()
        self._environ = environ if environ is not None else {}
        self._embedders: dict[bytes, Embedder | None] = {}
        self._shared: dict[str, Any] = {}

    # -- parts

    @cached_property
    def workspace(self) -> Workspace:
        """Journal, budget and ledger; whoever asks for it closes it."""
        return Workspace(self.folder, clock=self._clock, caps=evidence.caps(self.configuration.tables.get("budget")))

    def _account(self, name: str | None = None) -> Account:
        """Who pays for the calls of a knowledge base: each is written down, bought once, and kept within the budget."""
        self.workspace.budget.unknown_price = self.configuration.policy.unknown_price
        return Account(calls=self.workspace.calls, knowledge_base=name)

    @cached_property
    def storage(self) -> Storage:
        """Where fitted pictures and videos lie."""
        made: Storage = self._make("storage", "workspace.storage", "media", self.folder / "media")
        return made

    @cached_property
    def signer(self) -> Signer:
        """What signs the records."""
        made: Signer = self._make("signer", "workspace.signer", "signer", self.folder / "keys")
        return made

    @cached_property
    def inpainter(self) -> Inpainter | None:
        """What edits pictures; None where `none` is configured, or its extra is missing and nobody asked for it."""
        try:
            made: Inpainter | None = self._make("inpainter", "workspace.inpainter", "inpainter", self.folder / "edit")
        except MissingExtraError:
            if not self.configuration.part("workspace.inpainter").is_default:
                raise
            return None
        return made

    @cached_property
    def moderator(self) -> Any:
        """What checks words and pictures before they are sent; None where none is configured."""
        made = self._make("moderator", "workspace.moderator", "moderator", self.folder / "moderation")
        return made if made is None else PaidModerator(made, self._account(), get_type_hints(made.check)["return"])

    def captioner(self, name: str) -> Captioner | None:
        """What describes the pictures of a knowledge base that have no words; None where none is configured."""
        made: Captioner | None = self._make(
            "captioner", f"knowledge_bases.{name}.captioner", name, self.folder / "kb" / name / "captions"
        )
        if made is None or made.estimate([_A_PICTURE]).usd_micros == 0:
            return made
        return PaidCaptioner(made, self._account(name))

    def generator(self, name: str) -> VideoGenerator:
        """The configured generator of this name."""
        made: VideoGenerator = self._make("video_generator", f"generators.{name}", name, self.folder / "render" / name)
        return made

    def generator_names(self) -> list[str]:
        """The configured generators, sorted."""
        return sorted(key.partition(".")[2] for key in self.configuration.parts if key.startswith("generators."))

    def knowledge_base(self, name: str) -> KnowledgeBase:
        """The knowledge base `name`; without `[knowledge_bases]` in the file every name is allowed.

        Raises:
            ConfigError: The file names others only.
        """
        check_knowledge_base_name(name)
        configured = self.configuration.knowledge_bases
        if configured is not None and name not in configured:
            raise ConfigError(
                f"No knowledge base '{name}' in {self.configuration.path}; there are: {', '.join(sorted(configured))}.",
                hint=f"write: [knowledge_bases.{name}]",
            )
        key, folder = f"knowledge_bases.{name}", self.folder / "kb" / name
        embedder = self.embedder(name)
        space = embedder.space if embedder else None
        storage = self._picture_storage(name)
        store = self._make("vector_store", f"{key}.store", name, folder / "index", space=space)
        return KnowledgeBase(
            name,
            store=store,
            storage=storage,
            embedder=embedder,
            clock=self._clock,
            limits=self._table(f"{key}.limits", ImageLimits),
            retrieval=self._table(f"{key}.retrieval", RetrievalSettings),
            policy=self._table(f"{key}.policy", UsePolicy),
            time_zone=self._time_zone(f"{key}.time_zone"),
        )

    def _time_zone(self, key: str) -> str:
        said = self.configuration.tables.get(key)
        if said is None:
            return "UTC"
        try:
            time_zone_of(said.value)
        except UsageError as error:
            raise ConfigError(f"{said.origin}: {error.message}", hint=error.hint) from error
        return str(said.value)

    def _table(self, key: str, kind: type[TableT]) -> TableT | None:
        table = self.configuration.tables.get(key)
        if table is None:
            return None
        try:
            return from_json(kind, table.value)
        except UsageError as error:
            known = ", ".join(field.name for field in fields(kind))
            raise ConfigError(f"{table.origin}: {error.message} It knows: {known}.") from error

    def _picture_storage(self, name: str) -> Storage:
        made: Storage = self._make(
            "storage", f"knowledge_bases.{name}.storage", name, self.folder / "kb" / name / "media"
        )
        return made

    def open_media(self, ref: MediaRef) -> BinaryIO:
        """Bytes by their digest: fitted pictures and videos of the workspace, and originals of its knowledge bases.

        Raises:
            NotFoundError: None of the storages has them.
            ErasedError: They were deleted by decision.
        """
        storages = (self.storage, *map(self._picture_storage, self.knowledge_base_names()))
        for storage in storages:
            if storage.exists(ref):
                return storage.open(ref)
        for storage in storages:
            if erasure_of(storage, ref.sha256) is not None:
                return open_or_erased(storage, ref)  # says who decided it
        raise NotFoundError(f"No storage of the workspace '{self.folder}' has the bytes {ref.sha256}.")

    def reindex(
        self,
        name: str,
        *,
        approve_cost: Callable[[Estimate], bool] | None = None,
        progress: Progress | None = None,
    ) -> ReindexReport:
        """Embed the pictures of a knowledge base again with the embedder that is configured now; see `reindex`.

        Raises:
            ConfigError: Its store cannot be reindexed.
        """
        check_knowledge_base_name(name)
        key = f"knowledge_bases.{name}"
        indexes = self._make("vector_indexes", f"{key}.store", name, self.folder / "kb" / name / "index")
        return reindex(
            name,
            indexes=indexes,
            storage=self._picture_storage(name),
            embedder=self.embedder(name),
            approve_cost=approve_cost,
            progress=progress,
        )

    def knowledge_base_names(self) -> list[str]:
        """Those of the file and those that were made in the workspace, sorted."""
        folder = self.folder / "kb"
        made = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
        return sorted({*made, *(self.configuration.knowledge_bases or ())})

    def embedder(self, name: str) -> Embedder | None:
        """What makes the vectors of a knowledge base; None for words only."""
        made = self._embedder(f"knowledge_bases.{name}.embedder", name)
        if made is None or made.estimate([Item(kind="text", text="a")]).usd_micros == 0:
            return made
        return PaidEmbedder(made, self._account(name))

    def _embedder(self, key: str, name: str) -> Embedder | None:
        part = self.configuration.part(key)
        # One embedder serves every knowledge base that asks for the same: its weights are in memory once.
        identity = canonical_json({"use": part.use, "options": dict(part.options)})
        if identity not in self._embedders:
            try:
                self._embedders[identity] = self._make("embedder", key, name, self.folder / "models")
            except MissingExtraError as error:
                if not part.is_default:
                    raise
                _logger.warning("Searching by words only: %s", error)
                self._embedders[identity] = None
        return self._embedders[identity]

    def close(self) -> None:
        """Let go of the workspace, if a paid part opened it."""
        if "workspace" in vars(self):
            self.workspace.close()

    # -- the whole

    def pipeline(self, kind: type[PipelineT]) -> PipelineT:
        """All of it."""
        generators = {name: self.generator(name) for name in self.generator_names()}
        keys = self.folder / "keys"
        marks = self._table_with_paths("marking")
        is_new = not (self.folder / "vrag.db").exists()
        workspace = self.workspace
        state = StateFolder(state_folder(self._environ), workspace=self.folder)
        if is_new:
            _begin_anew(state, workspace)
        return kind(
            workspace=workspace,
            knowledge_bases=self._knowledge_bases(),
            generators=generators,
            storage=self.storage,
            signer=self.signer,
            inpainter=self.inpainter,
            moderator=self.moderator,
            policy=self.configuration.policy,
            marking=evidence.marking(marks),
            claim_signer=evidence.claims(
                marks,
                keys,
                signer=lambda value, origin: self._made("signer", part_of(value, origin), "claims", keys),
                clock=self._clock,
            ),
            anchors=lambda: read_anchors(keys),
            keepers=evidence.keepers(
                self._table_with_paths("checkpoints"),
                state,
                storage=lambda value, origin: self._made("storage", part_of(value, origin), "checkpoints", self.folder),
            ),
            clock=self._clock,
        )

    def _table_with_paths(self, name: str) -> Setting | None:
        table = self.configuration.tables.get(name)
        return None if table is None else evolve(table, value=self.with_paths(table.value))

    def _knowledge_bases(self) -> Any:
        configured = self.configuration.knowledge_bases
        # Exactly one is the one that a brief without a name means, so it is given as a mapping.
        return (
            self.knowledge_base
            if configured is None or len(configured) != 1
            else {name: self.knowledge_base(name) for name in configured}
        )

    def _make(self, seam: str, key: str, name: str, folder: Path, **context: Any) -> Any:
        part = self.configuration.part(key)
        if part.use == "none":
            if seam in _MAY_BE_NONE:
                return None
            raise ConfigError(f"{part.origin}: '{key}' cannot be none.", hint="vrag config show")
        return self._made(seam, part, name, folder, **context)

    def _made(self, seam: str, part: Part, name: str, folder: Path, **context: Any) -> Any:
        resolved = self._resolved(part)
        try:
            return _factory(seam, part)(resolved.options, self._context(name, folder, part, **context))
        except MissingExtraError:
            raise
        except ConfigError as error:
            where = "" if error.message.startswith(part.origin) else f"{part.origin}: '{part.use}': "
            raise ConfigError(f"{where}{error.message}", hint=error.hint) from error
        except UsageError as error:
            if type(error) is not UsageError:  # such as another embedding space: the kind says more than the place
                raise
            raise ConfigError(f"{part.origin}: '{part.use}': {error.message}", hint=error.hint) from error

    def _context(self, name: str, folder: Path, part: Part, **context: Any) -> Context:
        package = part.use.partition(":")[0]
        table = self.configuration.tables.get(package)
        return Context(
            name=name,
            folder=folder,
            clock=self._clock,
            environ=self._environ,
            settings={} if table is None else self.with_paths(table.value),
            shared=self._shared,
            **context,
        )

    def _resolved(self, part: Part) -> Part:
        return evolve(part, options=self.with_paths(part.options))

    def with_paths(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Paths of a file are relative to that file."""
        base = self.configuration.path.parent if self.configuration.path else Path()
        return {
            key: _path(key, base, value)
            if key in _PATHS and isinstance(value, str)
            else self.with_paths(value)
            if isinstance(value, Mapping)
            else value
            for key, value in options.items()
        }


def _path(key: str, base: Path, value: str) -> str:
    path = Path(base, Path(value).expanduser())
    # A font may be named by its file name alone, and is then one of the system's.
    return value if key == "font" and Path(value).name == value and not path.exists() else str(path)


def _begin_anew(state: StateFolder, workspace: Workspace) -> None:
    """Whoever begins a workspace where another one lay has put that one away; that it was there stays known."""
    try:
        state.newest(workspace.ledger.id)
    except VRAGError as error:
        _logger.warning("A new workspace begins where another one lay: %s", error.message)
    state.accept(workspace.ledger.id)


def _factory(seam: str, part: Part) -> Any:
    package, _, name = part.use.partition(":")
    points = installed_backends()
    if package not in points:
        raise ConfigError(
            f"{part.origin}: no installed package has the backend '{package}' (of '{part.use}'); "
            f"installed: {', '.join(sorted(points))}.",
            hint=f"pip install the package that provides '{package}', such as: pip install --upgrade vrag",
        )
    backend = _load(points[package])
    names = backend.get(seam, {})
    if name not in names:
        elsewhere = [other for other in SEAMS if name in backend.get(other, {})]
        kind = seam.replace("_", " ")
        told = f" There is a '{name}' for another seam: {elsewhere[0]}." if elsewhere else ""
        raise ConfigError(
            f"{part.origin}: the backend '{package}' has no {kind} '{name}'; "
            f"it has: {', '.join(f'{package}:{known}' for known in sorted(names)) or 'none'}.{told}",
            hint=f"write: use = '{package}:{min(names)}'" if names else "vrag config show",
        )
    return names[name]


def _load(point: EntryPoint) -> Backend:
    try:
        loaded = point.load()
    except UsageError:
        raise
    except Exception as error:
        raise ConfigError(
            f"The backend '{point.name}' ({_owner(point)}) cannot be imported: {type(error).__name__}: {error}.",
            hint=f"pip install --upgrade {_owner(point)}",
        ) from error
    if not isinstance(loaded, Mapping) or set(loaded) - set(SEAMS):
        raise ConfigError(
            f"The backend '{point.name}' ({_owner(point)}) is not a mapping of seams ({', '.join(SEAMS)}) to factories.",
            hint=f"pip install --upgrade {_owner(point)}",
        )
    return loaded
