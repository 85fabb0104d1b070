"""What a page shows of a video, and the few words that several parts of it share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from attrs import field, frozen

from vrag.media.ref import MediaRef
from vrag.provenance.lineage import LineageGraph
from vrag.provenance.report.markup import Markup, element
from vrag.provenance.staleness import Staleness
from vrag.provenance.verify import Verification
from vrag.values.briefs import PlannedVideo
from vrag.values.canonical import JSON
from vrag.values.vectors import Refusal

__all__ = [
    "TIMES",
    "Picture",
    "Place",
    "ShownEdit",
    "Thumbnail",
    "VideoPage",
    "facts_of",
    "is_erased",
    "plural",
    "state_of",
    "title_of",
]

TIMES: Final = "\N{MULTIPLICATION SIGN}"

Thumbnail = Callable[[MediaRef], bytes | None]
"""A small JPEG or PNG of a picture in the storage; None where its bytes are gone."""


@frozen(kw_only=True)
class Picture:
    """A picture of the knowledge base as the page shows it."""

    image: bytes | None = field(repr=False)
    """JPEG or PNG, already small enough for a page; None where there are no bytes to show."""
    caption: str
    credit: str = ""
    """Whom to thank, such as '"Lake Sherburne" by Jacob W. Frank'."""
    licence: str = ""
    licence_url: str | None = None
    """Shown as a link only if it begins with `https://`."""
    review: str = ""
    """Such as "approved by demo on 2026-11-20"."""


@frozen(kw_only=True)
class ShownEdit:
    """One edit of a picture; bytes are small JPEG or PNG, None where they cannot be shown."""

    asset_id: str
    operation: str
    model: str = ""
    prompt: str | None = None
    """What it was asked; None where there were no words."""
    record_id: str = ""
    before: bytes | None = field(default=None, repr=False)
    mask: bytes | None = field(default=None, repr=False)
    """White was repainted."""
    after: bytes | None = field(default=None, repr=False)


@frozen(kw_only=True)
class VideoPage:
    """Everything that a page shows of one video."""

    planned: PlannedVideo
    media: MediaRef | None
    """The delivered film; None for a video that was withheld."""
    video_url: str | None
    """`relative_url(name)` of the film beside the page, or `data_url(bytes, "video/mp4")`; None where none is shown."""
    pictures: Mapping[str, Picture]
    """By asset id: the sources, and every candidate that shall be seen."""
    verification: Verification
    record: JSON
    """The statement."""
    made_at: str
    """RFC 3339 UTC; when the page was made and the video verified."""
    check_command: str
    """What to type to verify the film again."""
    refusals: Sequence[Refusal] = ()
    """Queries that were answered "no suitable picture", to show beside the one that was not."""
    poster: bytes | None = field(default=None, repr=False)
    """A still of the film, JPEG or PNG."""
    withheld: str | None = None
    """Why nothing was delivered."""
    edits: Sequence[ShownEdit] = ()
    lineage: LineageGraph | None = None
    stale: Sequence[Staleness] | None = None
    """What has changed since it was made; None: nobody looked."""
    evidence: bytes | None = field(default=None, repr=False)
    """The sidecar: the signed record as a file."""
    file_name: str = "video.mp4"
    """What the film, and the evidence for it, are called when saved."""


@frozen(kw_only=True)
class Place:
    """Where sections stand: `key` makes their ids unique in a page, `level` is that of their headings."""

    key: str = ""
    level: int = 2

    def section(self, name: str, heading: str, *children: object) -> Markup:
        """A section with its heading."""
        mark = f"{name}{self.key}"
        title = element(f"h{self.level}", heading, id=mark)
        return element("section", title, *children, aria_labelledby=mark)


def title_of(planned: PlannedVideo) -> str:
    """The prompts; "Words erased" where they were."""
    prompts = [shot.prompt for shot in planned.request.shots if shot.prompt]
    return " / ".join(dict.fromkeys(prompts)) or "Words erased"


def is_erased(planned: PlannedVideo) -> bool:
    """Whether its words were deleted."""
    return not any(shot.prompt for shot in planned.request.shots)  # a prompt is never empty otherwise


def state_of(page: VideoPage) -> tuple[str, str, str]:
    """Tone (`good`, `bad`, `unsure`), mark and one word for the verification state."""
    found = page.verification
    if not found.ok:
        return "bad", "✗", "not verified"
    return ("good", "✓", "verified") if found.trusted else ("unsure", "?", "signer not known")


def facts_of(page: VideoPage) -> list[str]:
    """Length, size, rate, model and day of the video, each in a few words."""
    media, request = page.media, page.planned.request
    length_s = (media.duration_s if media else None) or request.duration_s
    width_px = (media.width_px if media else None) or request.width_px
    height_px = (media.height_px if media else None) or request.height_px
    return [
        f"{length_s:.1f} s",
        f"{width_px} {TIMES} {height_px}",
        f"{request.fps:g} frames a second",
        f"made by {page.planned.model}",
    ]


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 edit`, `2 edits`."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"
