"""Shots become one film: joined by copying packets where that can be, with or without crossfades."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from io import BytesIO
from itertools import islice
from typing import Any, BinaryIO, Final, Literal

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from vrag.errors import UsageError
from vrag.media.film_track import FilmTrack, OpenBinary, scan_track
from vrag.media.film_write import ENCODERS, copy_packets, encode_frames
from vrag.media.h264 import merged_configuration
from vrag.media.names import shown

__all__ = ["AssembleReport", "OpenBinary", "assemble"]

_SPS_ID: Final = 31
"""Number of the parameter sets of what we encode; encoders begin at 0."""
_MAX_FILMS: Final = 256
_OPENED_AT_ONCE: Final = 4
_BT709: Final = (1, 1, 1, 1)
_UNSAID: Final = 2
_HD_HEIGHT_PX: Final = 720
"""From here on a film that does not say its matrix means BT.709, as players take it."""
_FORMAT: Final = "yuv420p"

Piece = tuple[FilmTrack, int, int]


@frozen(kw_only=True)
class AssembleReport:
    """What was done; plain numbers and words, for the record."""

    method: Literal["copied", "joints encoded", "encoded"]
    """`copied`: no frame was decoded. `joints encoded`: frames around crossfades were, the rest was copied.
    `encoded`: all were."""
    reason: str
    """Why frames had to be encoded; empty for `copied`."""
    films: int
    frames: int
    copied_frames: int
    width_px: int
    height_px: int
    fps: float
    duration_s: float
    codec: str
    crossfade_s: float
    """Rounded to whole frames."""
    audio_dropped: tuple[str, ...] = ()
    """Names of films that had sound, which is not taken over."""


def assemble(
    films: Sequence[OpenBinary],
    out: BinaryIO,
    *,
    crossfade_s: float = 0.0,
    names: Sequence[str] | None = None,
) -> AssembleReport:
    """Join films of the same size and rate into one MP4, in this order. The same films give the same bytes.

    Hard cuts copy packets where codec, decoder configuration and key frames allow it. A crossfade is a linear blend of
    n frames that both films share, so that it shortens the whole by its length; each step of it is 1/(n+1) of what
    lies between the shots, and their own motion. Only the frames from the last key frame before a crossfade to the
    next one after it are encoded. Where that cannot be, everything is encoded, and the report says why. Frames lie on
    an even grid: none is repeated, none is lost, none is black. Sound is dropped.

    Args:
        films: Open each film from its start, as often as asked, in threads of ours; MP4 with H.264 or AV1, others are
                encoded anew.
        out: A seekable file, empty.
        crossfade_s: Length of each crossfade, rounded to whole frames; 0 is a hard cut.
        names: How to call the films in errors.

    Raises:
        UsageError: There is no film, or more than 256; sizes or rates differ; a film is too short for its crossfades.
        MediaRejectedError: A film cannot be read, or shows its frames for different times (`uneven`).
        BackendError: The film cannot be encoded or written.
        MissingExtraError: PyAV is not installed.
    """
    if not films:
        raise UsageError("There is no film to join; at least one is needed.")
    if not (math.isfinite(crossfade_s) and crossfade_s >= 0):
        raise UsageError(f"A crossfade of {crossfade_s:g} s is no length; it is 0 or more.")
    if len(films) > _MAX_FILMS:
        raise UsageError(f"{len(films)} films are too many; up to {_MAX_FILMS} are joined at once.")
    called = names or [f"film {number}" for number in range(1, len(films) + 1)]
    with ExitStack() as files:
        # Opening a film decodes frames, mostly without Python's lock: it is what takes time where packets are copied.
        with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
            opened = [pool.submit(scan_track, film, name, files) for film, name in zip(films, called, strict=True)]
            tracks = [one.result() for one in opened]
        return _Assembly(tracks, _check(tracks, crossfade_s), files).write(out)


def _check(tracks: Sequence[FilmTrack], crossfade_s: float) -> int:
    """Frames of a crossfade, if the films can be joined at all."""
    first = tracks[0]
    for track in tracks[1:]:
        if (track.width_px, track.height_px) != (first.width_px, first.height_px):
            raise UsageError(
                f"'{shown(first.name)}' has {first.width_px} x {first.height_px} pixels and '{shown(track.name)}'"
                f" {track.width_px} x {track.height_px}; films that are joined have the same size."
            )
        if track.rate != first.rate:
            raise UsageError(
                f"'{shown(first.name)}' has {float(first.rate):g} frames a second and '{shown(track.name)}'"
                f" {float(track.rate):g}; films that are joined have the same rate."
            )
    fade = max(1, round(crossfade_s * first.rate)) if crossfade_s and len(tracks) > 1 else 0
    for at, track in enumerate(tracks):
        needed = fade * ((at > 0) + (at < len(tracks) - 1))
        if track.frames < needed:
            raise UsageError(
                f"'{shown(track.name)}' lasts {float(track.frames / first.rate):g} s, and its crossfades of"
                f" {crossfade_s:g} s need {float(needed / first.rate):g} s."
            )
    return fade


def _differs(tracks: Sequence[FilmTrack]) -> str:
    """Why packets cannot be copied, or nothing."""
    first = tracks[0]
    if first.codec not in ENCODERS:
        return f"'{shown(first.name)}' is {first.codec}"
    for track in tracks:
        name = shown(track.name)
        if track.codec != first.codec:
            return f"'{name}' is {track.codec}, and '{shown(first.name)}' {first.codec}"
        if (track.parameters, track.pixel_format) != (first.parameters, first.pixel_format):
            return f"'{name}' was encoded with other settings than '{shown(first.name)}'"
        if not track.whole:
            return f"'{name}' hides frames by an edit list"
        if 0 not in track.cuts:
            return f"'{name}' does not begin with a key frame"
    return ""


# -- crossfades


@frozen
class _Assembly:
    tracks: Sequence[FilmTrack]
    fade: int
    """Frames of a crossfade."""
    files: ExitStack

    def write(self, out: BinaryIO) -> AssembleReport:
        """Copy if possible, else encode the joints, else everything."""
        tracks, first = self.tracks, self.tracks[0]
        frames = _length(tracks, self.fade)
        codec = first.codec if first.codec in ENCODERS else "h264"
        pieces, parameters, reason = self._pieces()
        if pieces:
            copy_packets(pieces, out, parameters=parameters)
        else:
            target = _target(tracks)
            with closing(_blended(tracks, self.fade, target)) as blended:
                encode_frames(blended, out, like=target, codec=codec, count=frames)
        return AssembleReport(
            method="encoded" if not pieces else "joints encoded" if reason else "copied",
            reason=reason,
            films=len(tracks),
            frames=frames,
            copied_frames=sum(stop - start for track, start, stop in pieces if any(track is one for one in tracks)),
            width_px=first.width_px,
            height_px=first.height_px,
            fps=float(first.rate),
            duration_s=float(frames / first.rate),
            codec=codec,
            crossfade_s=float(self.fade / first.rate),
            audio_dropped=tuple(track.name for track in tracks if track.has_audio),
        )

    def _pieces(self) -> tuple[list[Piece], bytes, str]:
        """What to copy one after the other, and its decoder configuration; or nothing, and why."""
        tracks, first = self.tracks, self.tracks[0]
        parameters = first.parameters
        if reason := _differs(tracks):
            return [], b"", reason
        if not self.fade:
            return [(track, 0, track.frames) for track in tracks], parameters, ""
        if first.pixel_format != _FORMAT:
            return [], b"", f"its pixels are {first.pixel_format}, and crossfades are encoded as {_FORMAT}"
        kept = self._kept()
        if not kept:
            return [], b"", "no key frame lies outside the crossfades"
        # Between two kept ranges lies a run of frames that are encoded: from a film and frame of it to another.
        begins = [(0, 0), *((at, stop) for at, (_, stop) in kept.items())]
        ends = [*((at, start) for at, (start, _) in kept.items()), (len(tracks) - 1, tracks[-1].frames)]
        copies: list[Piece | None] = [*((tracks[at], *part) for at, part in kept.items()), None]
        pieces: list[Piece] = []
        for begin, end, copy in zip(begins, ends, copies, strict=True):
            if begin != end:
                made = self._made(begin, end)
                joined = merged_configuration(first.parameters, made.parameters) if first.codec == "h264" else None
                if joined is None and made.parameters != first.parameters:
                    return [], b"", "its encoder settings cannot be met for the joints alone"
                parameters = joined or parameters
                pieces.append((made, 0, made.frames))
            if copy:
                pieces.append(copy)
        return pieces, parameters, "crossfades"

    def _kept(self) -> dict[int, tuple[int, int]]:
        """For each film that has some: the frames that no crossfade touches, from cut to cut."""
        kept = {}
        for at, track in enumerate(self.tracks):
            first = self.fade if at else 0
            last = track.frames - (self.fade if at < len(self.tracks) - 1 else 0)
            cuts = [cut for cut in (*track.cuts, track.frames) if first <= cut <= last]
            if len(cuts) > 1:
                kept[at] = (cuts[0], cuts[-1])
        return kept

    def _made(self, begin: tuple[int, int], end: tuple[int, int]) -> FilmTrack:
        """A film in memory: from film and frame `begin` to film and frame `end`, with the crossfades between them."""
        first, part = self.tracks[0], self.tracks[begin[0] : end[0] + 1]
        count = _length(part, self.fade) - begin[1] - (part[-1].frames - end[1])
        out = BytesIO()
        with closing(_blended(part, self.fade, first, begin[1])) as frames:
            encode_frames(
                islice(frames, count),
                out,
                like=first,
                codec=first.codec,
                count=count,
                sps_id=_SPS_ID if first.codec == "h264" else None,
            )
        data = out.getvalue()
        return scan_track(lambda: BytesIO(data), "crossfade", self.files)


def _length(tracks: Sequence[FilmTrack], fade: int) -> int:
    return sum(track.frames for track in tracks) - fade * (len(tracks) - 1)


def _blended(tracks: Sequence[FilmTrack], fade: int, target: FilmTrack, start: int = 0) -> Generator[Any]:
    """All frames in the colours of `target`, the first film from its frame `start`."""
    with ExitStack() as readers:

        def read(track: FilmTrack, start: int = 0) -> Iterator[Any]:
            frames = readers.enter_context(closing(track.decoded(start)))
            return (_converted(frame, track, target) for frame in frames)

        current, left = read(tracks[0], start), tracks[0].frames - start
        for track in tracks[1:]:
            yield from islice(current, left - fade)
            following = read(track)
            for at, (old, new) in enumerate(zip(islice(current, fade), following, strict=False), 1):
                yield _mixed(old, new, at, fade + 1)
            current, left = following, track.frames - fade
        yield from islice(current, left)


def _target(tracks: Sequence[FilmTrack]) -> FilmTrack:
    """What all frames become: as the first film is, if all are alike; else BT.709."""
    first = tracks[0]
    alike = all((track.pixel_format, track.colours) == (_FORMAT, first.colours) for track in tracks)
    return first if alike else evolve(first, pixel_format=_FORMAT, colours=_BT709)


def _converted(frame: Any, track: FilmTrack, target: FilmTrack) -> Any:
    if (track.pixel_format, track.colours) == (target.pixel_format, target.colours):
        return frame
    unsaid = track.colours[2] == _UNSAID and track.height_px >= _HD_HEIGHT_PX
    return frame.reformat(
        format=_FORMAT,
        src_colorspace="ITU709" if unsaid else None,
        dst_colorspace="ITU709",
        dst_color_range="MPEG",
    )


def _mixed(old: Any, new: Any, share: int, of: int) -> Any:
    """`share` / `of` of the new frame and the rest of the old one, rounded to the nearest."""
    from av import VideoFrame  # noqa: PLC0415  # an optional extra

    frame = VideoFrame(old.width, old.height, _FORMAT)
    kind = np.uint16 if of < 257 else np.uint32  # 255 times `of` must fit
    for into, before, after in zip(frame.planes, old.planes, new.planes, strict=True):
        sum_ = np.multiply(_rows(before), of - share, dtype=kind) + np.multiply(_rows(after), share, dtype=kind)
        _rows(into)[:] = (sum_ + of // 2) // of
    return frame


def _rows(plane: Any) -> NDArray[np.uint8]:
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]
