"""What travels through an ingest: pictures, in chunks, with what each step found out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import define, evolve, field

from vrag.knowledge.captioning import Spoken
from vrag.knowledge.captions import clean_text
from vrag.knowledge.embedded import EmbeddedText
from vrag.knowledge.report import NearDuplicate
from vrag.knowledge.rows import Vector, asset_of
from vrag.knowledge.sources import NotTaken, SourcePicture
from vrag.values.assets import Asset, CaptionSource, Rights
from vrag.values.vectors import VectorRecord

__all__ = ["Chunk", "Picture", "last_part", "merged"]

_BETTER_FIRST: Final = tuple(CaptionSource)


@define(kw_only=True)
class Picture:
    """One picture of the source, on its way."""

    name: str
    key: str
    source: SourcePicture
    data: bytes | None = field(repr=False)
    """Its bytes, as long as somebody needs them."""
    embedded: EmbeddedText
    found: tuple[str, CaptionSource] | None
    """The best caption that costs nothing."""
    base: Asset | None = None
    """What the knowledge base has, or what it would be as a new one without a word."""
    first: str | None = None
    """Under which name the same bytes came before in this run."""
    fingerprint: str | None = None
    near: NearDuplicate | None = None

    @property
    def start(self) -> Asset:
        """`base`, which every picture has after its draft."""
        assert self.base is not None
        return self.base


@define(kw_only=True)
class Chunk:
    """Pictures that travel together, in the order of the source, with the entries that are not taken."""

    entries: list[Picture | NotTaken | NearDuplicate] = field(factory=list)
    size_bytes: int = 0
    known: Mapping[str, VectorRecord] = field(factory=dict)
    """Rows of the index as the draft saw them."""
    said: Mapping[str, Spoken] = field(factory=dict)
    vectors: Mapping[str, tuple[str | None, Vector]] = field(factory=dict)

    @property
    def pictures(self) -> list[Picture]:
        """Those that are taken."""
        return [entry for entry in self.entries if isinstance(entry, Picture)]

    def leads(self, key: str) -> bool:
        """Whether this asset came first in this chunk: then what it needs is bought here, and only here."""
        return next(picture for picture in self.pictures if picture.key == key).first is None

    def assets(self, before: Mapping[str, Asset] | None = None) -> dict[str, Asset]:
        """Every asset as it should be after this chunk, starting from `before` or from what the draft saw."""
        if before is None:
            before = {key: asset_of(row) for key, row in self.known.items()}
        assets: dict[str, Asset] = {}
        for picture in self.pictures:
            start = assets.get(picture.key) or before.get(picture.key) or picture.start
            assets[picture.key] = merged(start, picture, self.said.get(picture.key))
        return assets


def merged(base: Asset, picture: Picture, said: Spoken | None) -> Asset:
    """The asset as it should be: what the source states replaces, what it does not state stays.

    Beside a duplicate of the same run it only fills what is missing, or gives a better caption.
    """
    if base.erased_at is not None:
        return base  # deleted by decision meanwhile: no word comes back
    if base.erased_at is not None:
        return base  # a tombstone gets no words again
    fill_only = picture.first is not None
    changes: dict[str, Any] = {}
    found, tags = picture.found, picture.source.tags
    if tags is None and not base.tags:
        tags = picture.embedded.keywords or None
    if said is not None and said.text is not None:
        if found is None or found[1] is CaptionSource.FILE_NAME:
            found = (said.text, CaptionSource.CAPTIONER)
        if tags is None and not base.tags:
            tags = said.tags or None
    if found and _may_replace(found[1], base.caption_source, fill_only=fill_only):
        changes["caption"], changes["caption_source"] = found
    stated = {
        "tags": None if tags is None else tuple(dict.fromkeys(tag for one in tags if (tag := clean_text(one)))),
        "rights": _rights(picture.source.rights, picture.embedded.rights, base.rights),
        "metadata": picture.source.metadata,
    }
    empty = {"tags": (), "rights": Rights(), "metadata": {}}
    changes |= {
        name: value
        for name, value in stated.items()
        if value is not None and (not fill_only or getattr(base, name) == empty[name])
    }
    if not fill_only:
        changes["file_name"] = last_part(picture.name)
    return evolve(base, **changes)


def _rights(stated: Rights | None, embedded: Rights, held: Rights) -> Rights | None:
    """What the picture says of its rights counts where neither the source nor the knowledge base says anything."""
    if stated is None:
        return embedded if held == Rights() and embedded != Rights() else None
    gaps = {
        name: value
        for name in ("licence", "holder", "expires_on")
        if getattr(stated, name) is None and (value := getattr(embedded, name)) is not None
    }
    return evolve(stated, **gaps)


def _may_replace(found: CaptionSource, held: CaptionSource | None, *, fill_only: bool) -> bool:
    """A caption gives way to one from as good a source or a better one; beside a duplicate only to a better one."""
    if held is None:
        return True
    found_rank, held_rank = _BETTER_FIRST.index(found), _BETTER_FIRST.index(held)
    return found_rank < held_rank if fill_only else found_rank <= held_rank


def last_part(name: str) -> str:
    """The file name of a path."""
    return name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or name
