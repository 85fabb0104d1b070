"""The catalogue: every fact has a source, states follow the day, prices are known or said not to be, and the page agrees.

`python tests/aws/bedrock/test_catalogue.py` writes `docs/reference/models.md` again.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import botocore.session
import pytest

from vrag.errors import ModelRetiredError, UsageError
from vrag.generation.catalogue import Catalogue

CATALOGUE = Catalogue.load()
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "models.md"
KINDS = {
    "video_generator": "Video generators",
    "embedder": "Embedders",
    "captioner": "Captioners",
    "inpainter": "Picture editors",
    "service": "The service itself",
}


def facts():
    for model in CATALOGUE.models:
        yield f"{model.id}", model.source
        yield f"{model.id}/lifecycle", model.lifecycle.source
        for one in (*model.limits.values(), *model.quotas.values()):
            yield f"{model.id}/{one.id}", one.source
        for price in model.prices:
            yield f"{model.id}/{price.unit}", price.source
    for error in CATALOGUE.errors:
        yield error.code, error.source


def rendered():
    lines = [
        "# Models",
        "",
        f"What is known of paid models, as of {CATALOGUE.checked_on}. `vrag models` shows the same. A limit is refused by us",
        "before anything is sent; a price is on demand and in USD, and you can give your own. *Unverified* is believed, but",
        "was found on no page: such a price is never part of an estimate.",
        "",
        "This page is written from `src/vrag/generation/models.toml` by a test.",
    ]
    for kind, title in KINDS.items():
        lines += ["", f"## {title}"]
        for model in CATALOGUE.models:
            if model.kind == kind:
                lines += section(model)
    lines += [
        "",
        "## Errors",
        "",
        "| code | HTTP | operations | try again | means | source |",
        "|---|---|---|---|---|---|",
    ]
    for one in CATALOGUE.errors:
        means = f'{one.means} ("… {one.contains} …")' if one.contains else one.means
        again = "yes" if one.retryable else "no"
        lines.append(
            f"| `{one.code}` | {one.http_status} | {', '.join(one.operations)} | {again} | {means} | {told(one.source)} |"
        )
    return "\n".join(lines) + "\n"


def section(model):
    life = model.lifecycle
    state = model.state_on(CATALOGUE.checked_on)
    days = [
        f"{word} {day}" for word, day in (("legacy since", life.legacy_on), ("end of life", life.retired_on)) if day
    ]
    yield ""
    yield f"### {model.name}"
    yield ""
    yield f"- id: `{model.id}`" + (
        f"; call it by {', '.join(f'`{one}`' for one in model.profiles)}" if model.profiles else ""
    )
    if model.kind != "service":
        yield f"- state: {state}" + (f" ({', '.join(days)})" if days else "") + f" ({told(life.source)})"
    if life.note:
        yield f"- note: {life.note}"
    if model.regions:
        yield f"- Regions: {', '.join(model.regions)} ({told(model.source)})"
    if model.alternatives:
        yield f"- instead: {', '.join(f'`{one}`' for one in model.alternatives)}"
    for price in model.prices:
        many = "" if price.per == 1 else f"{price.per:,} "
        when = "".join(f", {name} {value}" for name, value in price.when.items())
        yield f"- {price.usd_micros / 1_000_000:g} USD a {many}{price.unit.replace('_', ' ')}{when} ({told(price.source)})"
    if model.limits or model.quotas:
        yield from ("", "| limit | of what | allowed | source |", "|---|---|---|---|")
    for one in model.limits.values():
        yield f"| `{one.id}` | {one.what} | {one.allowed} | {told(one.source)} |"
    for one in model.quotas.values():
        yield f"| {one.id} (of an account) | {one.what} | {one.allowed} | {told(one.source)} |"


def told(source):
    return f"{source.page}, {source.checked_on}" if source.verified else "unverified"


@pytest.mark.parametrize(("name", "source"), list(facts()))
def test_every_fact_has_a_page_and_a_day_or_is_marked_unverified(name, source):
    assert bool(source.page) == source.verified, name
    assert date(2026, 1, 1) <= source.checked_on <= CATALOGUE.checked_on


def test_states_follow_the_day():
    model = CATALOGUE.model("aws-bedrock", "amazon.nova-reel-v1:1")
    days = {"2026-03-29": "active", "2026-03-30": "legacy", "2026-09-29": "legacy", "2026-09-30": "retired"}
    assert {day: model.state_on(date.fromisoformat(day)) for day in days} == days


@pytest.mark.parametrize("model_id", ["amazon.nova-reel-v1:0", "amazon.nova-reel-v1:1", "amazon.nova-canvas-v1:0"])
def test_a_retired_model_is_refused_with_alternatives_unless_entitled(model_id):
    model, now = CATALOGUE.model("aws-bedrock", model_id), datetime(2026, 11, 20, tzinfo=UTC)
    with pytest.raises(ModelRetiredError, match="2026-09-30") as caught:
        CATALOGUE.check_usable(model, now)
    assert all(other in caught.value.hint for other in model.alternatives)
    CATALOGUE.check_usable(model, now, allow_retired=True)
    CATALOGUE.check_usable(model, datetime(2026, 9, 29, tzinfo=UTC))


def test_alternatives_are_known_and_not_retired():
    for model in CATALOGUE.models:
        for other in model.alternatives:
            if not other.startswith("local:"):
                assert CATALOGUE.model(model.provider, other).state_on(CATALOGUE.checked_on) == "active"


def test_prices_are_whole_and_an_unknown_one_is_none():
    reel = CATALOGUE.model("aws-bedrock", "amazon.nova-reel-v1:1")
    assert reel.estimate({"video_second": 6}, video_s=6).usd_micros == 480_000
    titan = CATALOGUE.model("aws-bedrock", "amazon.titan-embed-image-v1")
    assert titan.estimate({"input_token": 1}).usd_micros == 1
    assert titan.estimate({"input_image": 1}).usd_micros is None
    luma = CATALOGUE.model("aws-bedrock", "luma.ray-v2:0")
    assert luma.estimate({"video_second": 5}, resolution="720p").usd_micros is None
    mine = CATALOGUE.with_price("aws-bedrock", "luma.ray-v2:0", "video_second", 900_000, resolution="720p")
    estimate = mine.model("aws-bedrock", "luma.ray-v2:0").estimate({"video_second": 5}, resolution="720p")
    assert (estimate.usd_micros, "your own" in estimate.basis) == (4_500_000, True)


def test_profiles_find_their_model_and_unknown_ids_name_the_known_ones():
    assert CATALOGUE.model("aws-bedrock", "eu.amazon.nova-2-lite-v1:0").id == "amazon.nova-2-lite-v1:0"
    with pytest.raises(UsageError, match=r"luma\.ray-v2:0"):
        CATALOGUE.model("aws-bedrock", "luma.ray-v9")


def test_errors_are_those_of_the_service_model():
    service = botocore.session.Session().get_service_model("bedrock-runtime")
    known = {
        name: {
            shape.name: shape.metadata["error"]["httpStatusCode"]
            for shape in service.operation_model(name).error_shapes
        }
        for name in (
            "StartAsyncInvoke",
            "GetAsyncInvoke",
            "ListAsyncInvokes",
            "InvokeModel",
            "Converse",
            "ApplyGuardrail",
        )
    }
    listed = {name: {} for name in known}
    for error in CATALOGUE.errors:
        for name in error.operations:
            listed[name][error.code] = error.http_status
    assert listed == known


@pytest.mark.skipif(not PAGE.parent.is_dir(), reason="the documentation is not here")
def test_the_page_is_what_the_catalogue_says():
    assert PAGE.read_text(encoding="utf-8") == rendered()


if __name__ == "__main__":
    PAGE.write_text(rendered(), encoding="utf-8")
