"""Which of the pictures that suit are offered: filters, reuse, cool-down, diversity, reranking, pictures like another."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrag.errors import NotFoundError, UnsupportedRequestError, UsageError
from vrag.knowledge.filters import parse_filters
from vrag.knowledge.selection import Selection
from vrag.knowledge.sources import SourcePicture
from vrag.testing import FakeClock, FakeEmbedder
from vrag.values.vectors import ASSET_FIELDS, Between, Is, IsIn, check_filter


def noise(seed, size=(80, 64)):
    """Pictures that do not look alike."""
    import io

    import numpy as np
    from PIL import Image

    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


DOGS = [
    "brown dog on grass",
    "brown dog on green grass",
    "brown dog on the grass",
    "dog in deep snow",
    "dog on a red sofa",
]


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def kb(tmp_path, local_kb, clock):
    kb = local_kb(tmp_path, clock=clock)
    sizes = [(160, 120), (120, 160), (128, 128), (320, 240), (200, 100)]
    source = [
        SourcePicture.from_bytes(f"{n}.jpg", noise(n, sizes[n]), caption=caption, tags=["animal", f"n{n}"])
        for n, caption in enumerate(DOGS)
    ]
    kb.ingest(source, approve_by="ann")
    return kb


def names(result):
    return [hit.asset.file_name for hit in result.hits]


def test_a_picture_of_this_batch_is_not_offered_twice(kb):
    used, seen = set(), []
    for _ in DOGS:
        hit = kb.search("dog", top_k=1, selection=Selection(exclude=used)).hits[0]
        seen.append(hit.asset.file_name)
        used.add(hit.asset.id)
    assert len(set(seen)) == len(DOGS)
    none_left = kb.search("dog", selection=Selection(exclude=used))
    assert "5 that suit are not used again now" in none_left.refusal.reasons[0]
    assert {candidate.excluded for candidate in none_left.candidates} == {"used already"}
    assert none_left.settings["excluded"] == 5


def test_a_picture_rests_after_its_use_and_comes_back(kb, clock):
    first = kb.search("dog").hits[0].asset.id
    log = {first: clock.now()}
    resting = Selection(last_used=log, cool_down=timedelta(days=7))
    assert first not in {hit.asset.id for hit in kb.search("dog", selection=resting).hits}
    excluded = {c.asset_id: c.excluded for c in kb.search("dog", selection=resting).candidates}
    assert "rests until" in excluded[first]
    clock.advance(timedelta(days=7).total_seconds() - 1)
    assert first not in {hit.asset.id for hit in kb.search("dog", selection=resting).hits}
    clock.advance(1)
    assert kb.search("dog", selection=resting).hits[0].asset.id == first
    # A clock that jumps back, as of another machine: a use in the future is a use.
    ahead = Selection(
        last_used=lambda key: clock.now() + timedelta(hours=1) if key == first else None, cool_down=timedelta(hours=2)
    )
    assert first not in {hit.asset.id for hit in kb.search("dog", selection=ahead).hits}


def test_diversity_brings_others_than_more_of_the_same(kb):
    plain = names(kb.search("brown dog on grass", top_k=3))
    mixed = kb.search("brown dog", top_k=2, selection=Selection(diversity=0.7))
    assert kb.search("brown dog", top_k=2).hits[0] == mixed.hits[0]
    assert set(plain) <= {"0.jpg", "1.jpg", "2.jpg"}
    varied = names(kb.search("dog", top_k=3, selection=Selection(diversity=0.9)))
    assert {"3.jpg", "4.jpg"} & set(varied[1:])
    assert kb.search("violin", selection=Selection(diversity=1)).refusal
    with pytest.raises(ValueError):
        Selection(diversity=1.5)


def test_a_reranker_orders_hits_and_cannot_bring_others(kb):
    result = kb.search(
        "dog", selection=Selection(rerank=lambda _, hits: sorted(hits, key=lambda hit: hit.asset.file_name))
    )
    assert names(result) == sorted(names(result))
    assert "lambda" in result.settings["rerank"]
    assert "reranker" in kb.search("dog", selection=Selection(rerank=lambda *_: [])).refusal.reasons[0]
    foreign = kb.search("dog in snow").hits[0]
    for bad in (lambda _, hits: [*hits, hits[0]], lambda *_: [foreign] * 2):
        with pytest.raises(UsageError, match="reranker"):
            kb.search("dog", selection=Selection(rerank=bad))


def test_filters_of_a_command_line_find_what_they_say(kb):
    for terms, wanted in {
        ("tag=n3",): ["3.jpg"],
        ("tag=n3|n4",): ["3.jpg", "4.jpg"],
        ("width_px>=200",): ["3.jpg", "4.jpg"],
        ("width>200",): ["3.jpg"],
        ("width<=160", "height < 128"): ["0.jpg"],
        ("orientation=portrait",): ["1.jpg"],
        ("orientation!=landscape",): ["1.jpg", "2.jpg"],
        ("review=approved", "tag!=n0", "tag!=n1"): ["2.jpg", "3.jpg", "4.jpg"],
        ("licence!=CC0-1.0",): [f"{n}.jpg" for n in range(5)],
        ("expires_on<2030-01-01",): [],
        ("ingested_at>=1990-01-01",): [f"{n}.jpg" for n in range(5)],
        ("ingested_at<1990-01-01",): [],
    }.items():
        assert sorted(asset.file_name for asset in kb.assets(parse_filters(terms))) == wanted, terms
        found = kb.search("dog", filter=parse_filters(terms))
        assert sorted(names(found)) == wanted, terms


def test_a_term_becomes_the_filter_that_it_says():
    assert parse_filters([]) is None
    assert parse_filters(["tag=a=b"]) == Is(field="tags", value="a=b")
    assert parse_filters(["size_bytes=1_000"]) == Is(field="size_bytes", value=1000)
    assert parse_filters(["width_px=10|20"]) == IsIn(field="width_px", values=(10, 20))
    day = parse_filters(["ingested_at=2026-11-20"])
    assert day == Between(field="ingested_at", low="2026-11-20T00:00:00.000000Z", high="2026-11-20T23:59:59.999999Z")
    zoned = parse_filters(["ingested_at>=2026-11-20T01:00:00+02:00"])
    assert zoned == Between(field="ingested_at", low="2026-11-19T23:00:00.000000Z")


@pytest.mark.parametrize(
    "term",
    ["", "tag", "=x", "tag=", "tag=|", "colour=red", "width_px>=wide", "width_px=nan", "tag>=a", "expires_on>=soon",
     "ingested_at=2026-01-01|2026-01-02", "__class__=x", "key=a", "tags", None, ["tag=a"], "\uff54ag=a", "*=*"],
)  # fmt: skip
def test_what_is_no_filter_is_refused_by_name(term):
    with pytest.raises(UsageError):
        parse_filters([term])


@given(
    st.lists(
        st.text(max_size=20)
        | st.builds(
            "{}{}{}".format,
            st.sampled_from(sorted(ASSET_FIELDS)),
            st.sampled_from(["=", "!=", ">", "<="]),
            st.text(max_size=9),
        ),
        max_size=4,
    )
)
def test_any_text_is_a_filter_that_the_store_takes_or_a_usage_error(terms):
    try:
        condition = parse_filters(terms)
    except UsageError:
        return
    if condition is not None:
        check_filter(condition)


def test_pictures_like_one_of_the_knowledge_base_by_their_captions(kb):
    snow = next(asset for asset in kb.assets() if asset.caption == "brown dog on grass")
    result = kb.search_picture(snow.id, top_k=2)
    assert set(names(result)) == {"1.jpg", "2.jpg"}
    assert result.hits[0].why.startswith("captions alike ")
    assert result.settings["compared"] == "captions"
    assert snow.id not in {candidate.asset_id for candidate in result.candidates}
    with kb.open(snow.original) as stream:
        assert names(kb.search_picture(stream.read(), top_k=2)) == names(result)
    rested = kb.search_picture(snow.id, selection=Selection(exclude={hit.asset.id for hit in result.hits}))
    assert set(names(rested)) == {"3.jpg", "4.jpg"}
    only = kb.search_picture(snow.id, filter=parse_filters(["orientation=portrait"]))
    assert names(only) == ["1.jpg"]


def test_a_text_embedder_cannot_look_at_a_foreign_picture(kb, fake_kb):
    with pytest.raises(UnsupportedRequestError, match="takes text only"):
        kb.search_picture(noise(99))
    with pytest.raises(NotFoundError):
        kb.search_picture("brand/" + "0" * 64)
    words = fake_kb()
    words.ingest([SourcePicture.from_bytes("a.jpg", noise(1), caption="dog")], approve_by="ann")
    with pytest.raises(UnsupportedRequestError, match="words only"):
        words.search_picture(noise(2))
    with pytest.raises(UnsupportedRequestError, match="no vector"):
        words.search_picture(next(words.assets()).id)


def test_an_embedder_for_pictures_compares_pixels(fake_kb):
    seeing = fake_kb(embedder=FakeEmbedder())
    seeing.ingest(
        [SourcePicture.from_bytes(f"{n}.jpg", noise(n, (160, 120 + n)), caption="dog") for n in range(4)],
        approve_by="ann",
    )
    result = seeing.search_picture(noise(7))
    assert result.settings["compared"] == "pixels"
    assert len(result.hits) == 4
    assert "pixels alike" in result.hits[0].why
    assert len(seeing.search_picture(next(seeing.assets()).id).hits) == 3
