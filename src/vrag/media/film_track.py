"""The picture track of a film, packet by packet: what can be copied, and from where frames can be decoded."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from fractions import Fraction
from typing import Any, BinaryIO, Final

from attrs import field, frozen

from vrag.errors import MediaRejectedError
from vrag.media.h264 import is_idr
from vrag.media.names import shown
from vrag.media.video import _decode, _decoding, _opened  # the one hardened way into a film, shared within `media`

__all__ = ["FilmTrack", "OpenBinary", "scan_track"]

OpenBinary = Callable[[], BinaryIO]
"""Opens a film from its start, each time anew; who calls it closes the stream."""

_MAX_FRAMES: Final = 120 * 3600


@frozen(kw_only=True)
class FilmTrack:
    """What a scan of all packets says; no frame was decoded."""

    container: Any = field(repr=False, eq=False)
    """Open."""
    name: str
    codec: str
    """As `VideoInfo.codec`."""
    width_px: int
    height_px: int
    rate: Fraction
    """Frames a second; the nearest usual rate, if the timestamps allow it."""
    pixel_format: str
    colours: tuple[int, ...]
    """Primaries, transfer, matrix and range, as H.273 counts them; 2 is unsaid (0 for range)."""
    parameters: bytes = field(repr=False)
    """Decoder configuration: the content of the box `avcC` or `av1C`."""
    first_pts: int
    """Of the first frame, as the container counts."""
    order: tuple[int, ...] = field(repr=False)
    """For each packet in order of decoding: the number of its frame in order of showing."""
    cuts: tuple[int, ...] = field(repr=False)
    """Frames at which the film can be cut without decoding: they and all after need nothing that was before."""
    whole: bool
    """Its packets make exactly its frames: the container hides none of them."""
    has_audio: bool

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.order)

    @property
    def delay(self) -> int:
        """Frames by which decoding runs ahead of showing."""
        return max(at - number for at, number in enumerate(self.order))

    @property
    def stream(self) -> Any:
        """The open track, as PyAV takes it to make another like it."""
        return self.container.streams.video[0]

    def decoded(self, start: int = 0) -> Generator[Any]:
        """Frames from `start` on, in order of showing; decoding begins at the last cut before it.

        A track has one reader at a time.

        Raises:
            MediaRejectedError: As `vrag.media.video.check_video`, or `truncated` where frames are missing.
        """
        self._seek(max((cut for cut in self.cuts if cut <= start), default=0))
        expected = start
        for frame in _decode(self.container, self.name):
            number = self._number(frame.pts)
            if number < start:
                continue
            if number != expected:
                break
            yield frame
            expected += 1
        if expected < self.frames:
            raise _rejected(self.name, "truncated", f"lacks its frame {expected} of {self.frames}.", str(expected))

    def packets(self, start: int, stop: int) -> Iterator[Any]:
        """The packets of frames `start` to `stop`, both of them cuts (or the end), in order of decoding.

        Raises:
            MediaRejectedError: They are not the ones that were scanned.
        """
        self._seek(start)
        at = start
        with _decoding(self.name):
            for packet in self.container.demux(self.stream):
                if at >= stop:
                    return
                if packet.size == 0 or self._number(packet.pts) != self.order[at]:
                    break
                yield packet
                at += 1
        if at < stop:
            raise _rejected(self.name, "truncated", f"has another frame {at} than before.", str(at))

    def _number(self, pts: int | None) -> int:
        """Of the frame that is shown at this time; -1 where none is told."""
        return -1 if pts is None else round((pts - self.first_pts) * self.stream.time_base * self.rate)

    def _seek(self, cut: int) -> None:
        with _decoding(self.name):
            self.container.seek(self.first_pts + round(cut / self.rate / self.stream.time_base), stream=self.stream)


def scan_track(open_: OpenBinary, name: str, files: ExitStack) -> FilmTrack:
    """Read all packets of a film once.

    Args:
        open_: Opens the film.
        name: How to call it in errors.
        files: Closes the film, which stays open for the reading that follows: opening decodes frames, and is dear.

    Raises:
        MediaRejectedError: As `vrag.media.video.probe_video`, or `uneven`: frames are shown for different times.
    """
    container = files.enter_context(_opened(files.enter_context(open_()), name))
    track = container.streams.video[0]
    track.thread_type = "AUTO"
    context = track.codec_context
    with _decoding(name):
        parameters = bytes(context.extradata or b"")
        codec = context.codec.canonical_name
        shown_at: list[int] = []
        keys: list[bool] = []
        whole = True
        for packet in container.demux(track):
            if packet.size == 0:
                continue
            if len(shown_at) >= _MAX_FRAMES:
                raise _rejected(name, "too_large", f"has over {_MAX_FRAMES} frames.")
            if packet.pts is None:
                raise _rejected(name, "undecodable", "does not say when its frames are shown.")
            if packet.is_discard:
                whole = False
                continue
            keys.append(packet.is_keyframe and (codec != "h264" or is_idr(bytes(packet), parameters)))
            shown_at.append(packet.pts)
        if not shown_at or (whole and len(shown_at) < track.frames):
            raise _rejected(
                name, "truncated", f"announces {track.frames} frames and holds {len(shown_at)}.", str(len(shown_at))
            )
        in_order = sorted(shown_at)
        number = {pts: at for at, pts in enumerate(in_order)}
        order = tuple(number[pts] for pts in shown_at)
        return FilmTrack(
            container=container,
            name=name,
            codec=codec,
            width_px=context.width,
            height_px=context.height,
            rate=_rate(name, in_order, track.time_base, track.average_rate),
            pixel_format=str(context.pix_fmt),
            colours=(context.color_primaries, context.color_trc, context.colorspace, context.color_range),
            parameters=parameters,
            first_pts=in_order[0],
            order=order,
            cuts=_cuts(order, keys) if whole else (),
            whole=whole,
            has_audio=bool(container.streams.audio),
        )


def _rejected(name: str, code: str, what: str, detail: str = "") -> MediaRejectedError:
    return MediaRejectedError(f"'{shown(name)}' {what}", name=name, code=code, detail=detail)


def _cuts(order: tuple[int, ...], keys: list[bool]) -> tuple[int, ...]:
    """Key frames before which exactly the frames lie that are shown before them."""
    cuts, latest = [], -1
    for at, (number, key) in enumerate(zip(order, keys, strict=True)):
        if key and number == at and latest == at - 1:
            cuts.append(at)
        latest = max(latest, number)
    return tuple(cuts)


def _rate(name: str, shown_at: list[int], tick: Fraction, announced: Fraction | None) -> Fraction:
    """Frames a second, if all of them are shown for the same time."""
    if len(shown_at) == 1:
        if not announced:
            raise _rejected(name, "uneven", "has one frame, and does not say for how long.")
        return Fraction(announced)
    span = (shown_at[-1] - shown_at[0]) * tick
    if span <= 0 or len(set(shown_at)) < len(shown_at):
        raise _rejected(name, "uneven", "shows two frames at once.")
    mean = (len(shown_at) - 1) / span
    usual = [Fraction(round(mean)), Fraction(round(mean * Fraction(1001, 1000))) * Fraction(1000, 1001)]
    # Coarse clocks round: a rate is the usual one if it ends within a tick of the last frame.
    near = (rate for rate in usual if rate > 0 and abs((len(shown_at) - 1) / rate - span) <= tick)
    rate = next(near, mean)
    ticks, of = (tick * rate).as_integer_ratio()
    for number, pts in enumerate(shown_at):
        if 4 * abs((pts - shown_at[0]) * ticks - number * of) > of:
            raise _rejected(
                name,
                "uneven",
                f"shows its frames for different times: frame {number} is off by more than a quarter of one.",
                str(number),
            )
    return rate
