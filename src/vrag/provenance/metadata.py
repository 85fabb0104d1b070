"""Marks in the container of an MP4: the implicit label `AIGC`, and IPTC properties as XMP.

Sources (checked 2026-11-20): GB 45438-2025 (metadata key `AIGC`, a JSON object); IPTC Photo Metadata 2025.1 (AI System
Used, AI System Version Used) and Digital Source Type; XMP Specification Part 3 (the UUID box of MPEG-4). IPTC notes that
metadata added after signing make a manifest invalid, so these come before it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import struct
from typing import Any, BinaryIO, Final
from xml.sax.saxutils import escape

from attrs import field, frozen, validators

from vrag.errors import MediaRejectedError, MissingExtraError, ProvenanceError
from vrag.media.video import probe_video
from vrag.provenance.repaint import container_options
from vrag.values.canonical import JSON
from vrag.values.requests import ModelRef

__all__ = ["Aigc", "append_xmp", "read_aigc", "read_xmp", "write_aigc"]

_KEY: Final = "AIGC"
_XMP: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""Names the UUID box that holds XMP in MPEG-4 files."""
_MAX_XMP_BYTES: Final = 1 << 20
_GENERATED: Final = "1"
"""`Label`: 1 is known to be generated, 2 is perhaps, 3 is suspected."""


@frozen(kw_only=True)
class Aigc:
    """The implicit label of GB 45438-2025. What it holds is stated by whoever offers the film."""

    producer: str = field(validator=[validators.min_len(1), validators.max_len(200)])
    """`ContentProducer`: name or code of the provider of the generation service."""
    propagator: str = field(default="", validator=validators.max_len(200))
    """`ContentPropagator`: name or code of the platform that spreads it."""

    def to_mark(self, record_id: str) -> dict[str, JSON]:
        """The JSON object; the id of our record names the content."""
        return {
            "Label": _GENERATED,
            "ContentProducer": self.producer,
            "ProduceID": record_id,
            "ReservedCode1": "",
            "ContentPropagator": self.propagator,
            "PropagateID": record_id if self.propagator else "",
            "ReservedCode2": "",
        }


def write_aigc(film: BinaryIO, out: BinaryIO, mark: dict[str, JSON]) -> None:
    """Write an MP4 with the metadata key `AIGC`: pictures and sound are copied as they are, other keys are kept.

    Raises:
        MediaRejectedError: The film cannot be read.
        ProvenanceError: It cannot be written.
    """
    try:
        import av  # noqa: PLC0415  # an extra
        from av.error import FFmpegError  # noqa: PLC0415  # as above
    except ImportError:
        raise MissingExtraError("Film metadata need the extra 'local'.", hint="pip install 'vrag[local]'") from None
    info = probe_video(film)
    options = container_options(film, info)
    try:
        with (
            av.open(film, "r", format="mp4") as source,
            av.open(out, "w", format="mp4", options=options) as made,
        ):
            _copy(source, made, json.dumps(mark, ensure_ascii=False, separators=(",", ":")))
    except FFmpegError as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ProvenanceError("The disk is full: the metadata could not be written. Free some space.") from error
        raise ProvenanceError(f"The metadata could not be written: {type(error).__name__}.") from error
    if probe_video(out).frames != info.frames:
        raise ProvenanceError("The film lost frames while its metadata were written: it was not used.")


def read_aigc(film: BinaryIO) -> dict[str, JSON] | None:
    """The implicit label of an MP4; None where it has none that can be read."""
    import av  # noqa: PLC0415  # an extra
    from av.error import FFmpegError  # noqa: PLC0415  # as above

    film.seek(0)
    try:
        with av.open(film, "r", format="mp4") as container:
            found = json.loads(container.metadata.get(_KEY, "null"))
    except (FFmpegError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def append_xmp(film: BinaryIO, *, digital_source_type: str, model: ModelRef, record_id: str, by_model: bool) -> None:
    """Append IPTC properties as XMP to an MP4 that is open for writing; nothing else of it changes.

    Args:
        film: The file.
        digital_source_type: The term, as a URI.
        model: What made it.
        record_id: `dc:identifier`.
        by_model: Whether a trained model made or changed it: only then is there an AI system to name.
    """
    said = {
        "Iptc4xmpExt:DigitalSourceType": digital_source_type,
        "dc:identifier": record_id,
        "xmp:CreatorTool": "vrag",
    }
    if by_model:
        name, _, version = model.id.partition("/")
        said["Iptc4xmpExt:AISystemUsed"] = f"{model.provider} {name}"
        if version:
            said["Iptc4xmpExt:AISystemVersionUsed"] = version
    properties = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in said.items())
    packet = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        f' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">{properties}</rdf:Description></rdf:RDF>'
        '</x:xmpmeta><?xpacket end="w"?>'
    ).encode()
    _last_box_is_whole(film)
    film.seek(0, os.SEEK_END)
    film.write(struct.pack(">I4s", 24 + len(packet), b"uuid") + _XMP + packet)
    film.flush()


def read_xmp(film: BinaryIO) -> dict[str, str]:
    """The simple properties of the last XMP packet of an MP4, by name with the prefixes that `append_xmp` uses."""
    packet = b""
    for kind, start, end in _boxes(film):
        film.seek(start)
        if kind == b"uuid" and end - start <= _MAX_XMP_BYTES and film.read(16) == _XMP:
            packet = film.read(end - start - 16)
    # Not an XML parser: a packet of a stranger may be a bomb, and ours holds nothing nested.
    found = re.findall(r"<((?:Iptc4xmpExt|dc|xmp):\w+)>([^<]*)</\1>", packet.decode("utf-8", "replace"))
    return {name: value.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") for name, value in found}


def _boxes(film: BinaryIO) -> list[tuple[bytes, int, int]]:
    """Kind, start of the content and end of each box at the top of the file."""
    size, at, found = film.seek(0, os.SEEK_END), 0, list[tuple[bytes, int, int]]()
    while at + 8 <= size and len(found) < 100_000:
        film.seek(at)
        length, kind = struct.unpack(">I4s", film.read(8))
        start = at + 8
        if length == 1:
            (length,) = struct.unpack(">Q", film.read(8).ljust(8, b"\0"))
            start = at + 16
        end = size if length == 0 else at + length
        if end < start or end > size:
            break
        found.append((kind, start, end))
        at = end
    return found


def _last_box_is_whole(film: BinaryIO) -> None:
    boxes = _boxes(film)
    size = film.seek(0, os.SEEK_END)
    film.seek(boxes[-1][1] - 8 if boxes else 0)
    runs_to_the_end = film.read(4) == b"\0\0\0\0"
    if not boxes or boxes[-1][2] != size or runs_to_the_end:
        raise MediaRejectedError(
            "The film does not end with a whole box: nothing can be added.", name="video", code="undecodable"
        )


# -- av has no types that strict checking accepts; its objects stay below this line


def _copy(source: Any, made: Any, mark: str) -> None:
    for key, value in source.metadata.items():
        made.metadata[key] = value
    made.metadata[_KEY] = mark
    kept = [*source.streams.video[:1], *source.streams.audio]
    into = {one.index: made.add_stream_from_template(one, opaque=True) for one in kept}
    for packet in source.demux(*kept):
        if packet.dts is not None:
            packet.stream = into[packet.stream.index]
            made.mux(packet)
