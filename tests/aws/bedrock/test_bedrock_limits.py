"""Every limit of the catalogue: at it a request is taken by us and by the fake, past it we refuse before anything is sent.

Each limit needs a case here that makes a request from a value; a limit without one fails.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from attrs import evolve

from vrag.backends.aws.async_invoke import PROVIDER
from vrag.backends.aws.captioner import BedrockCaptioner
from vrag.backends.aws.cohere_embed import CohereEmbedder
from vrag.backends.aws.invoke import Invoker
from vrag.backends.aws.luma_ray import LumaRayGenerator
from vrag.backends.aws.marengo import MarengoEmbedder
from vrag.backends.aws.nova_canvas import NovaCanvasInpainter
from vrag.backends.aws.nova_embeddings import NovaEmbedder
from vrag.backends.aws.nova_reel import NovaReelGenerator
from vrag.backends.aws.nova_video_embeddings import NovaVideoEmbedder
from vrag.backends.aws.stability import SERVICES, StabilityInpainter
from vrag.backends.aws.text import cut_to_tokens, tokens_at_most
from vrag.backends.aws.titan_embeddings import TitanEmbedder
from vrag.errors import BackendError, UnsupportedRequestError, UsageError
from vrag.generation.catalogue import Catalogue
from vrag.testing import SampleMedia, sample_edit
from vrag.values.requests import Input, Shot, VideoRequest
from vrag.values.vectors import Item

CATALOGUE = Catalogue.load()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TYPES = ("image/png", "image/jpeg", "image/webp")


def edges(limit):
    """Values at the limit, and values past it."""
    if limit.one_of:
        numbers = [value for value in limit.one_of if not isinstance(value, str)]
        texts = [value for value in limit.one_of if isinstance(value, str)]
        return list(limit.one_of), [max(numbers) + 1] if numbers else [OTHER.get(limit.id, f"{texts[0]}x")]
    unit = limit.step or (
        0.1 if limit.max is not None and limit.max < 5 and limit.unit == "" and limit.id in REAL else 1
    )
    at = [value for value in (limit.min, limit.max) if value is not None]
    past = [
        value
        for value in (None if limit.min is None else limit.min - unit, None if limit.max is None else limit.max + unit)
        if value is not None
    ]
    if limit.step is not None:
        past.append(limit.min + limit.step / 2)
    return at, past


REAL = {"image_aspect"}
OTHER = {
    "image_media_type": "image/webp",
    "size_px": "960x540",
    "image_size_px": "1280x718",
    "aspect_ratio": "2:1",
    "resolution": "1080p",
    "image_mode": "L",
}
FITTED = {
    "text_tokens",
    "text_chars",
    "batch",
    "image_bytes",
    "image_side_px",
    "image_media_type",
    "image_base64_bytes",
}


# -- videos


def reel(limit, value, media):
    task, _, name = limit.rpartition(".")
    one = Input(role="start_frame", media=media.picture(1, width_px=1280, height_px=720))
    shot = Shot(prompt="a lake", duration_s=12.0 if task == "automated" else 6.0)
    count = 2 if task == "manual" else 1
    request = VideoRequest(shots=(shot,) * count)

    def shots(**changes):
        return evolve(request, shots=(evolve(shot, **changes),) * count)

    if name == "shots":
        return evolve(request, shots=(shot,) * int(value)) if value else None
    if name == "prompt_chars":
        return shots(prompt="a" * int(value))
    if name == "images":
        return shots(inputs=(one,) * int(value)) if value >= 0 else None
    if name == "duration_s":
        if task == "automated" and value == 6:  # a film of another task, which has this length
            return None
        return shots(duration_s=float(value))
    if name in {"fps", "seed"}:
        return evolve(request, **{name: value})
    if name == "size_px":
        width, height = map(int, value.split("x"))
        return evolve(request, width_px=width, height_px=height)
    if name == "image_size_px":
        width, height = map(int, value.split("x"))
        return shots(inputs=(evolve(one, media=media.picture(1, width_px=width, height_px=height)),))
    if name == "image_media_type":
        return shots(inputs=(evolve(one, media=media.picture(1, width_px=1280, height_px=720, media_type=value)),))
    if name == "image_mode":
        return shots(inputs=(evolve(one, media=grey(media, value)),))
    raise AssertionError(f"The limit '{limit}' has no case.")


def grey(media, mode):
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new(mode, (1280, 720)).save(out, "PNG")
    return media.add(out.getvalue(), "image/png", 1280, 720)


def luma(limit, value, media):
    shot = Shot(prompt="a lake", duration_s=5.0)
    request = VideoRequest(shots=(shot,), width_px=960, height_px=540)
    one = media.picture(1, width_px=600, height_px=600)
    match limit:
        case "prompt_chars":
            return evolve(
                request, shots=(evolve(shot, prompt=" " * max(0, int(value) - 1) + "a" * min(int(value), 1)),)
            )
        case "prompt_tokens":
            return evolve(request, shots=(evolve(shot, prompt="lake " * int(value)),))
        case "shots":
            return evolve(request, shots=(shot,) * int(value)) if value else None
        case "duration_s":
            return evolve(request, shots=(evolve(shot, duration_s=float(value)),))
        case "aspect_ratio":
            width, height = map(int, value.split(":"))
            scale = 540 / min(width, height)
            return evolve(request, width_px=round(width * scale), height_px=round(height * scale))
        case "resolution":
            short = int(value[:-1])
            return evolve(request, width_px=short * 16 // 9, height_px=short)
        case "start_frames" | "end_frames":
            role = limit.removesuffix("s")
            return evolve(request, shots=(evolve(shot, inputs=(Input(role=role, media=one),) * int(value)),))
        case "image_side_px":
            picture = media.picture(1, width_px=int(value), height_px=600)
        case "image_media_type":
            picture = media.picture(1, width_px=600, height_px=600, media_type=value)
        case _:
            raise AssertionError(f"The limit '{limit}' has no case.")
    return evolve(request, shots=(evolve(shot, inputs=(Input(role="end_frame", media=picture),)),))


VIDEOS = {
    "amazon.nova-reel-v1:0": (NovaReelGenerator, reel),
    "amazon.nova-reel-v1:1": (NovaReelGenerator, reel),
    "luma.ray-v2:0": (LumaRayGenerator, luma),
}


def limits(kind):
    return [
        pytest.param(model, limit, id=f"{model.id}/{limit.id}")
        for model in CATALOGUE.models
        if model.kind == kind
        for limit in model.limits.values()
    ]


@pytest.mark.parametrize(("model", "limit"), limits("video_generator"))
def test_a_limit_of_a_video_model(world, model, limit):
    kind, make = VIDEOS[model.id]
    generator = kind(
        bedrock=world.bedrock, s3=world.s3, output_uri=world.output_uri, model_id=model.id, clock=world.clock
    )
    media = SampleMedia()
    at, past = edges(limit)
    for number, value in enumerate(at):
        request = make(limit.id, value, media)
        assert not [one for one in generator.validate(request) if one.kind == "refused"]
        generator.start(request, media, f"at-{number}")
    assert world.fake.jobs.count == len(at)
    sent, refused = len(world.fake.faults.calls), 0
    for value in past:
        request = make(limit.id, value, media)
        if request is None:  # the values refuse to be made at all
            refused += 1
            continue
        with pytest.raises(UnsupportedRequestError, match=limit.id.rpartition(".")[2]):
            generator.start(request, media, "past")
        refused += 1
    assert refused
    assert len(world.fake.faults.calls) == sent


# -- embedders


EMBEDDERS = {
    "amazon.titan-embed-image-v1": TitanEmbedder,
    "amazon.nova-2-multimodal-embeddings-v1:0": NovaEmbedder,
    "cohere.embed-v4:0": CohereEmbedder,
    "twelvelabs.marengo-embed-3-0-v1:0": MarengoEmbedder,
}


@pytest.mark.parametrize(("model", "limit"), limits("embedder"))
def test_a_limit_of_an_embedder(world, model, limit):
    """Vectors of other lengths are refused; texts and pictures that are too long or large are fitted, and then taken."""
    kind = EMBEDDERS[model.id]
    at, past = edges(limit)
    if limit.id == "dimension":
        for value in at:
            rows = kind(world.bedrock, dimension=value, clock=world.clock).embed([Item(kind="text", text="a")], "index")
            assert rows.shape == (1, value)
        for value in past:
            with pytest.raises(UsageError, match="dimension"):
                kind(world.bedrock, dimension=value)
        return
    if limit.id == "segment_s":  # of whole videos
        given = {"bedrock": world.bedrock, "s3": world.s3, "output_uri": world.output_uri}
        for value in at:
            assert NovaVideoEmbedder(**given, segment_s=int(value))
        for value in past:
            with pytest.raises(UsageError, match="segment_s"):
                NovaVideoEmbedder(**given, segment_s=int(value))
        return
    assert limit.id in FITTED, f"The limit '{limit.id}' has no case."
    embedder, media = kind(world.bedrock, clock=world.clock), SampleMedia()
    for value in (*at, *past):
        items = contents(limit.id, value, media)
        assert len(embedder.embed(items, "index", media)) == len(items)


def contents(limit, value, media):
    if limit == "text_tokens":
        return [Item(kind="text", text="lake " * int(min(value, 5000)))]
    if limit == "text_chars":
        return [Item(kind="text", text="a" * int(value))]
    if limit == "batch":
        return [Item(kind="text", text=f"lake {number}") for number in range(int(value))]
    if limit == "image_side_px":
        return [Item(kind="image", media=media.picture(1, width_px=int(value), height_px=128))]
    if limit == "image_media_type":
        return [Item(kind="image", media=media.picture(1, media_type=value if value in TYPES else "image/png"))]
    size = int(value if limit == "image_bytes" else value // 4 * 3 + (3 if value % 4 else 0))
    plain = media(media.picture(1)).read()
    # Bytes after the end of a PNG belong to no chunk: every reader passes over them.
    return [Item(kind="image", media=media.add(plain + bytes(size - len(plain)), "image/png", 256, 192))]


# -- captions


@pytest.mark.parametrize(("model", "limit"), limits("captioner"))
def test_a_limit_of_a_captioner(world, model, limit):
    """Pictures that are too large are made smaller, and then taken."""
    captioner, media = BedrockCaptioner(world.bedrock, model_id=model.profiles[0], clock=world.clock), SampleMedia()
    for value in [one for several in edges(limit) for one in several]:
        [item] = contents(limit.id, value, media)
        assert captioner.caption(item.media, media).text.startswith("A ")


# -- edits


def edit(limit, value, media, base):
    def sized(width, height):
        picture = media.picture(1, width_px=int(width), height_px=int(height))
        mask = media.mask(int(width), int(height), white=(0, 0, 8, 8)) if base.mask else None
        return evolve(base, image=picture, mask=mask)

    match limit:
        case "prompt_chars":
            return evolve(base, prompt="a" * int(value)) if value else evolve(base, prompt="")
        case "negative_prompt_chars":
            return evolve(base, negative_prompt="a" * int(value))
        case "images":
            return evolve(base, count=int(value)) if value else None
        case "seed":
            return evolve(base, seed=int(value))
        case "extend_px":
            return evolve(base, extend_px=(int(value), 8, 0, 0))
        case "image_side_px":
            height = max(min(value, 600), value // 2 if value > 600 else 0)
            return sized(value, height) if value * height < 4_194_304 else None
        case "image_pixels":
            side = next(n for n in range(int(value**0.5), 0, -1) if value % n == 0 and value / n / n < 2.5)
            return evolve(base, image=evolve(base.image, width_px=int(value // side), height_px=side))
        case "image_aspect":
            return sized(round(400 * value), 400) if value > 1 else sized(400, round(400 / value))
        case "image_media_type":  # whatever it is, it is sent as PNG
            kind = value if value in TYPES else "image/png"
            return evolve(sized(512, 384), image=media.picture(1, width_px=512, height_px=384, media_type=kind))
        case "grow_mask" | "creativity":  # sent as a constant, or not at all
            return base
    raise AssertionError(f"The limit '{limit}' has no case.")


OURS = {"image_media_type", "grow_mask", "creativity"}


@pytest.mark.parametrize(("model", "limit"), limits("inpainter"))
def test_a_limit_of_an_editor(world, model, limit):
    media = SampleMedia()
    operation = next((name for name, id_ in SERVICES.items() if id_ == model.id), "replace")
    editor = (NovaCanvasInpainter if "canvas" in model.id else StabilityInpainter)(world.bedrock, clock=world.clock)
    base = evolve(sample_edit(editor.capabilities, media, operation=operation))
    at, past = edges(limit)
    if limit.id in {"variation_images", "similarity"}:
        with media(base.image) as stream:
            picture = stream.read()

        def vary(value):
            given = {"similarity": value} if limit.id == "similarity" else {}
            return editor.vary([picture] * (1 if given else int(value)), **given)

        assert all(vary(value).images for value in at)
        for value in past:
            with pytest.raises(UnsupportedRequestError, match=limit.id):
                vary(value)
        return
    if limit.id == "image_pixels":  # a number of pixels that is the area of some rectangle
        past = [value + value % 2 for value in past]
    for value in at:
        request = edit(limit.id, value, media, base)
        if limit.id == "image_pixels":  # by its numbers alone: nine million pixels take their time
            assert not editor.validate(request)
        elif request is not None:  # None: another limit makes this one unreachable
            assert editor.edit(request, media).images
    sent = len(world.fake.faults.calls)
    for value in past:
        request = edit(limit.id, value, media, base)
        if request is None or limit.id in OURS:
            continue
        with pytest.raises(UnsupportedRequestError):
            editor.edit(request, media)
    assert len(world.fake.faults.calls) == sent


# -- the service


def test_the_limits_of_the_service(world):
    service = CATALOGUE.model(PROVIDER, "bedrock-runtime")
    cases = {"token_chars", "output_uri_chars", "list_page", "invoke_body_bytes"}
    assert {*service.limits} == cases
    media = SampleMedia()

    def generator(uri):
        return LumaRayGenerator(bedrock=world.bedrock, s3=world.s3, output_uri=uri, clock=world.clock)

    at, past = edges(service.limit("token_chars"))
    request = luma("shots", 1, media)
    for value in at:
        generator(world.output_uri).start(request, media, "t" * int(value))
    for value in past:
        with pytest.raises(UsageError, match="token"):
            generator(world.output_uri).start(request, media, "t" * int(value))
    for token in ("with space", "ünder", "tab\t"):
        with pytest.raises(UsageError, match="token"):
            generator(world.output_uri).start(request, media, token)
    [at], [past] = edges(service.limit("output_uri_chars"))
    generator("s3://films/".ljust(int(at), "a"))
    with pytest.raises(UsageError, match="1024"):
        generator("s3://films/".ljust(int(past), "a"))
    with pytest.raises(UsageError, match="bytes"):
        Invoker(world.bedrock, "amazon.titan-embed-image-v1").one({"inputText": "a" * 25_000_000})
    for size in (0, 1001):
        with pytest.raises(Exception, match="maxResults"):
            world.bedrock.list_async_invokes(maxResults=size)
    world.bedrock.list_async_invokes(maxResults=1000)


# -- errors


@pytest.mark.parametrize("error", CATALOGUE.errors, ids=lambda one: f"{one.code}-{one.contains[:12]}")
def test_an_error_of_the_service_is_typed(world, error):
    """Each documented error, answered over HTTP with its status, becomes an error of ours that says whether to try again."""
    from vrag.errors import AccessDeniedError, ContentRejectedError, ModelRetiredError, NotFoundError, ThrottledError
    from vrag.testing.bedrock import Refusal
    from vrag.testing.bedrock.wire import http_status

    kinds = {
        "ThrottlingException": ThrottledError,
        "ModelNotReadyException": ThrottledError,
        "ServiceQuotaExceededException": ThrottledError,
        "AccessDeniedException": AccessDeniedError,
        "ResourceNotFoundException": ModelRetiredError if error.contains else NotFoundError,
        "ValidationException": ContentRejectedError if "content filters" in error.contains else BackendError,
    }
    assert http_status(error.code) == error.http_status
    operation = "InvokeModel" if "InvokeModel" in error.operations else error.operations[0]
    world.fake.faults.on(operation, error=Refusal(error.code, f"It is {error.contains or error.means}."))
    media, generator = (
        SampleMedia(),
        LumaRayGenerator(bedrock=world.bedrock, s3=world.s3, output_uri=world.output_uri, clock=world.clock),
    )
    calls = {
        "InvokeModel": lambda: Invoker(world.bedrock, "amazon.titan-embed-image-v1").one({"inputText": "a"}),
        "StartAsyncInvoke": lambda: generator.start(luma("shots", 1, media), media, "token"),
    }
    with pytest.raises(kinds.get(error.code, BackendError)) as caught:
        calls[operation]()
    assert getattr(caught.value, "retryable", False) == error.retryable


@pytest.mark.parametrize("text", ["", "a lake at dawn", "x" * 1000, "ñandú ж 鳥 🦦", "one, two; three", "a\u0300" * 40])
def test_a_text_is_cut_to_its_tokens_and_no_shorter_than_needed(text):
    for most in (1, 7, 60):
        cut = cut_to_tokens(text, most)
        assert text.startswith(cut)
        assert tokens_at_most(cut) <= most or len(cut) <= most
        assert (cut == text) == (tokens_at_most(text) <= most or len(text) <= most)
