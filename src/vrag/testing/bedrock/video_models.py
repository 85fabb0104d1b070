"""How the fake reads the bodies of Nova Reel and Luma Ray: written from the vendors' pages, apart from our adapters.

Sources: Amazon Nova User Guide "Video generation access and usage"; Amazon Bedrock User Guide "Luma AI models"
(2026-11-20).
"""

from __future__ import annotations

from collections.abc import Mapping

from vrag.testing.bedrock.bodies import Body, Picture, read_picture, word_count
from vrag.testing.bedrock.jobs import Commission
from vrag.testing.bedrock.wire import refuse
from vrag.values.requests import Shot, VideoRequest

__all__ = ["luma_ray", "nova_reel"]

_SHOT_S = 6.0
_LUMA_SIDES_PX: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "540p": {
        "1:1": (540, 540),
        "16:9": (960, 540),
        "9:16": (540, 960),
        "4:3": (720, 540),
        "3:4": (540, 720),
        "21:9": (1260, 540),
        "9:21": (540, 1260),
    },
    "720p": {
        "1:1": (720, 720),
        "16:9": (1280, 720),
        "9:16": (720, 1280),
        "4:3": (960, 720),
        "3:4": (720, 960),
        "21:9": (1680, 720),
        "9:21": (720, 1680),
    },
}


def nova_reel(body: Body) -> Commission:
    """What a body of Nova Reel asks for.

    Raises:
        Refusal: The model would not take it.
    """
    tasks = ["TEXT_VIDEO"] + (["MULTI_SHOT_AUTOMATED", "MULTI_SHOT_MANUAL"] if body.model.id.endswith(":1") else [])
    match body.one_of("taskType", *tasks):
        case "TEXT_VIDEO":
            asked = body.known("taskType", needs=("textToVideoParams", "videoGenerationConfig"))
            shot = asked.within("textToVideoParams").known("images", needs=("text",))
            images = shot.each("images")
            shot.limited("text_video.images", len(images), "images")
            shots = [(shot.text("text", "text_video.prompt_chars"), images[0] if images else None)]
            duration_s = _config(body).number("durationSeconds", "text_video.duration_s")
        case "MULTI_SHOT_AUTOMATED":
            asked = body.known("taskType", needs=("multiShotAutomatedParams", "videoGenerationConfig"))
            shot = asked.within("multiShotAutomatedParams").known(needs=("text",))
            duration_s = _config(body).number("durationSeconds", "automated.duration_s")
            shots = [(shot.text("text", "automated.prompt_chars"), None)] * round(duration_s / _SHOT_S)
        case _:
            asked = body.known("taskType", needs=("multiShotManualParams", "videoGenerationConfig"))
            if "durationSeconds" in asked.within("videoGenerationConfig").data:
                raise refuse("Malformed input request: extraneous key [durationSeconds] is not permitted")
            several = asked.within("multiShotManualParams").known(needs=("shots",)).each("shots")
            asked.limited("manual.shots", len(several), "shots")
            shots = [
                (one.known("image", needs=("text",)).text("text", "manual.prompt_chars"), _inside(one))
                for one in several
            ]
            duration_s = _SHOT_S * len(shots)
    config = _config(body)
    config.number("fps", "fps")
    config.limited("size_px", str(config.data["dimension"]), "dimension")
    if "seed" in config.data:
        config.number("seed", "seed")
    pictures = {index: _reel_picture(image) for index, (_, image) in enumerate(shots) if image is not None}
    film = VideoRequest(
        shots=tuple(Shot(prompt=text, duration_s=duration_s / len(shots)) for text, _ in shots),
        width_px=1280,
        height_px=720,
        fps=24.0,
        seed=config.data.get("seed", 42),
    )
    return Commission(film=film, pictures=pictures, shot_files=body.data["taskType"] != "TEXT_VIDEO")


def _config(body: Body) -> Body:
    return body.within("videoGenerationConfig").known("durationSeconds", "seed", needs=("fps", "dimension"))


def _inside(shot: Body) -> Body | None:
    return shot.within("image") if "image" in shot.data else None


def _reel_picture(image: Body) -> bytes:
    image.known(needs=("format", "source"))
    source = image.within("source")
    if "bytes" not in source.data:
        raise refuse("Malformed input request: required key [bytes] not found; this fake reads no pictures from S3")
    picture = source.known(needs=("bytes",)).picture("bytes")
    if picture.media_type != f"image/{image.one_of('format', 'png', 'jpeg')}":
        raise refuse("The format of the image is not the one that the request says.")
    _limited(image, picture, "image_size_px")
    opaque = picture.image.mode != "RGBA" or picture.image.getchannel("A").getextrema() == (255, 255)
    image.limited("image_mode", "RGB" if picture.image.mode in {"RGB", "RGBA"} and opaque else "not opaque 8-bit RGB")
    return picture.data


def _limited(image: Body, picture: Picture, limit: str) -> None:
    image.limited(limit, f"{picture.image.width}x{picture.image.height}")


def luma_ray(body: Body) -> Commission:
    """What a body of Luma Ray v2 asks for.

    Raises:
        Refusal: The model would not take it.
    """
    asked = body.known("aspect_ratio", "loop", "duration", "resolution", "keyframes", needs=("prompt",))
    prompt = asked.text("prompt", "prompt_chars")
    asked.limited("prompt_tokens", word_count(prompt), "prompt")
    aspect, resolution = asked.data.get("aspect_ratio", "16:9"), asked.data.get("resolution", "720p")
    asked.limited("aspect_ratio", str(aspect), "aspect_ratio")
    asked.limited("resolution", str(resolution), "resolution")
    duration = str(asked.data.get("duration", "5s"))
    if not duration.endswith("s") or not duration[:-1].isdigit():
        raise refuse("Malformed input request: #/duration: not one of 5s, 9s")
    asked.limited("duration_s", int(duration[:-1]), "duration")
    frames = asked.within("keyframes", {}).known("frame0", "frame1")
    pictures = {name: _luma_picture(frames.within(name)) for name in ("frame0", "frame1") if name in frames.data}
    width_px, height_px = _LUMA_SIDES_PX[resolution][aspect]
    film = VideoRequest(
        shots=(Shot(prompt=prompt, duration_s=float(duration[:-1])),), width_px=width_px, height_px=height_px, fps=24.0
    )
    return Commission(film=film, pictures={0: pictures["frame0"]} if "frame0" in pictures else {})


def _luma_picture(frame: Body) -> bytes:
    frame.known(needs=("type", "source")).one_of("type", "image")
    source = frame.within("source").known(needs=("type", "media_type", "data"))
    source.one_of("type", "base64")
    source.limited("image_media_type", str(source.data["media_type"]), "media_type")
    picture = read_picture(source.data["data"], "keyframes")
    if picture.media_type != source.data["media_type"]:
        raise refuse("The media type of the image is not the one that the request says.")
    for side_px in picture.image.size:
        source.limited("image_side_px", side_px, "data")
    return picture.data
