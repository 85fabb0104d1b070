"""What retrieval answers, in which order, why, and how often it rightly says no."""

import json
from pathlib import Path

import pytest

from vrag.errors import UsageError
from vrag.knowledge.calibration import MODELS, Thresholds
from vrag.knowledge.retrieval import RetrievalSettings
from vrag.knowledge.sources import SourcePicture
from vrag.knowledge.words import content_words, matched_words, stem, subject
from vrag.testing import FakeEmbedder, FakeStorage
from vrag.values.assets import ReviewState
from vrag.values.vectors import Is

LABELLED = json.loads((Path(__file__).parent / "data" / "retrieval.json").read_text())["libraries"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("red shoes", "shoes"),
        ("a pair of red running shoes on a white background", "shoes"),
        ("a glass of red wine", "wine"),
        ("dog running on the beach", "dog"),
        ("photo of a dog", "dog"),
        ("running", "running"),
        ("a photo", None),
        ("the dog's bowl", "bowl"),
        ("", None),
    ],
)
def test_the_subject_is_the_word_that_names_the_thing(query, named):
    assert subject(query) == named


@pytest.mark.parametrize(
    "forms",
    [
        ("dog", "dogs"), ("puppy", "puppies"), ("shoe", "shoes"), ("box", "boxes"), ("run", "running", "runs"),
        ("race", "racing", "raced"), ("child", "children"), ("leaf", "leaves"), ("cookie", "cookies"), ("dress", "dresses"),
        ("horse", "horses"), ("sail", "sailing", "sailed"), ("cafe", "café"), ("bus", "bus"), ("lens", "lenses"),
    ],
)  # fmt: skip
def test_forms_of_a_word_match(forms):
    for form in forms:
        assert matched_words(content_words(form), forms[0]) == (content_words(form)[0],)


def test_other_words_do_not_match():
    for one, other in (
        ("red", "reed"),
        ("king", "k"),
        ("ring", "r"),
        ("bed", "b"),
        ("cat", "car"),
        ("speed", "sp"),
        ("glass", "glas"),
    ):
        assert stem(one) != stem(other)
    assert content_words("A photo of the red shoes, red shoe") == ["red", "shoes"]


@pytest.fixture(scope="module")
def measured(wordllama, tmp_path_factory):
    """Each labelled query, asked of the real backends: (library, half, answerable, answered, right)."""
    from vrag.backends.local.storage import FolderStorage
    from vrag.backends.local.vector_store import LocalVectorStore
    from vrag.knowledge.knowledge_base import KnowledgeBase
    from vrag.testing import FakeClock

    outcomes = []
    for number, (library, labels) in enumerate(LABELLED.items()):
        folder = tmp_path_factory.mktemp("labelled")
        store, storage = LocalVectorStore(folder / "index", wordllama.space), FolderStorage(folder / "storage")
        kb = KnowledgeBase(f"library-{number}", store=store, storage=storage, embedder=wordllama, clock=FakeClock())
        source = [_picture(name, caption) for name, caption in labels["captions"].items()]
        assert kb.ingest(source, approve_by="ann").new == len(source)
        for position, (query, wanted) in enumerate(labels["answered"].items()):
            hits = kb.search(query).hits
            outcomes.append((library, position % 2, True, bool(hits), bool(hits) and hits[0].asset.file_name in wanted))
        for position, query in enumerate(labels["refused"]):
            result = kb.search(query)
            assert (result.refusal is None) != (result.hits == ())
            outcomes.append((library, position % 2, False, bool(result.hits), result.refusal is not None))
        kb.close()
    return outcomes


def _picture(name, caption):
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.frombytes("RGB", (64, 64), name.encode().ljust(64 * 64 * 3, b".")).save(out, "PNG")
    return SourcePicture.from_bytes(name, out.getvalue(), caption=caption)


def test_false_answers_and_false_refusals_are_rare_on_queries_that_chose_nothing(measured):
    """Reached when this was written: of 89 answerable ones 93 % answered, 99 % of these right; of 90 others 97 % refused."""
    held_out = [outcome for outcome in measured if outcome[1] == 1]
    inside = [outcome for outcome in held_out if outcome[2]]
    outside = [outcome for outcome in held_out if not outcome[2]]
    answered = sum(outcome[3] for outcome in inside) / len(inside)
    right = sum(outcome[4] for outcome in inside) / sum(outcome[3] for outcome in inside)
    refused = sum(outcome[4] for outcome in outside) / len(outside)
    print(
        f"held out: {len(inside)} + {len(outside)}; answered {answered:.3f}, right {right:.3f}, refused {refused:.3f}"
    )
    assert len(measured) >= 300
    assert answered >= 0.90
    assert right >= 0.95
    assert refused >= 0.93


def test_an_exact_word_of_a_caption_is_always_answered(wordllama, tmp_path, local_kb):
    kb = local_kb(tmp_path)
    captions = LABELLED["file names"]["captions"]
    kb.ingest([_picture(name, caption) for name, caption in captions.items()], approve_by="ann")
    for name, caption in captions.items():
        for word in content_words(caption):
            assert name in {hit.asset.file_name for hit in kb.search(word).hits}, word


def test_red_shoes_in_a_library_of_dogs_and_tulips_is_refused_with_reasons(tmp_path, local_kb):
    kb = local_kb(tmp_path)
    kb.ingest(
        [_picture(f"{n}", c) for n, c in enumerate(("brown dog", "two dogs", "red tulips", "a red tulip field"))],
        approve_by="ann",
    )
    result = kb.search("red shoes")
    assert result.hits == ()
    assert "red tulip" in result.refusal.reasons[0]
    assert "'shoes'" in result.refusal.reasons[0]
    assert result.refusal.candidates[0].asset.caption in {"red tulips", "a red tulip field"}
    assert "(not: shoes)" in result.refusal.candidates[0].why
    assert result.settings["rrf_k"] == 10
    assert result.settings["needed"] == MODELS["wordllama"].thresholds.needed_for(2, known=0.5)
    assert "prior" in result.settings["thresholds"]
    # What goes into a record holds no word of what was asked.
    assert not any("shoes" in (candidate.excluded or "") for candidate in result.candidates)


def test_several_pictures_under_one_word_are_ranked_sensibly_and_say_why(tmp_path, local_kb, jpeg):
    kb = local_kb(tmp_path)
    words = {
        "dog": (200, 150), "dog_2": (400, 300), "brown-dog-on-grass": (100, 80), "dog-with-ball": (100, 80),
        "man-feeding-pigeons-beside-a-sleeping-dog-in-a-crowded-square": (100, 80), "black-cat": (100, 80),
    }  # fmt: skip
    kb.ingest(
        [SourcePicture.from_bytes(f"{n}.jpg", jpeg(i, size)) for i, (n, size) in enumerate(words.items())],
        approve_by="ann",
    )
    hits = kb.search("dog").hits
    names = [hit.asset.file_name for hit in hits]
    assert names[:2] == ["dog_2.jpg", "dog.jpg"]  # the same words: the larger picture first
    assert names[-1].startswith("man-feeding")  # a dog among much else
    assert set(names) == {f"{name}.jpg" for name in words if "dog" in name}
    assert kb.search("dog with a ball").hits[0].asset.file_name == "dog-with-ball.jpg"
    assert kb.search("brown dog").hits[0].asset.file_name == "brown-dog-on-grass.jpg"
    assert hits[0].why == "words: dog; meaning 1.00 (1st)"
    assert hits[0].matched_words == ("dog",)
    assert [hit.fused_score for hit in hits] == sorted((hit.fused_score for hit in hits), reverse=True)
    assert kb.search("dog", top_k=1).hits == hits[:1]


def test_an_approved_picture_is_found_behind_many_that_are_not(jpeg, fake_kb):
    storage = FakeStorage()
    kb = fake_kb(retrieval=RetrievalSettings(pool=3), storage=storage)
    kb.ingest([SourcePicture.from_bytes(f"{n:02d}.jpg", jpeg(n), caption="dog") for n in range(12)])
    last = max(asset.id for asset in kb.assets())
    result = kb.search("dog", top_k=2)
    assert result.hits == ()
    assert "3 proposed" in result.refusal.reasons[0]
    assert "vrag review --kb brand --approve brand/" in result.refusal.reasons[1]
    kb.review(last, ReviewState.APPROVED, by="ann")
    result = kb.search("dog", top_k=2)
    assert [hit.asset.id for hit in result.hits] == [last]
    assert sum(candidate.excluded == "review state proposed" for candidate in result.candidates) == 3
    # Who asks for proposed ones gets them, and their state with them.
    proposed = kb.search(
        "dog", states=frozenset({ReviewState.PROPOSED}), filter=Is(field="media_type", value="image/jpeg")
    )
    assert {hit.review for hit in proposed.hits} == {ReviewState.PROPOSED}


def test_an_empty_knowledge_base_and_an_empty_query(fake_kb):
    result = fake_kb().search("dog")
    assert "vrag ingest" in result.refusal.reasons[0]
    for query in ("", "  ", None, 3):
        with pytest.raises(UsageError):
            fake_kb().search(query)
    with pytest.raises(UsageError):
        fake_kb().search("dog", top_k=0)
    assert fake_kb().search("!?* \" ' OR NEAR(").refusal is not None


def test_a_model_without_a_prior_decides_by_words_until_it_is_given_thresholds(jpeg, fake_kb):
    source = [SourcePicture.from_bytes("a.jpg", jpeg(1), caption="brown dog on grass")]
    without = fake_kb(embedder=FakeEmbedder())
    without.ingest(source, approve_by="ann")
    assert without.search("brown grass hill").refusal is not None
    assert without.search("dog").hits
    assert "by words" in without.search("dog").settings["refusal"]
    given = Thresholds(meaning=1, subject_meaning=1, subject_named=1, needed=-2)
    generous = fake_kb(embedder=FakeEmbedder(), retrieval=RetrievalSettings(thresholds=given))
    generous.ingest(source, approve_by="ann")
    assert generous.search("brown grass hill").hits
    assert generous.search("dog").settings["thresholds"] == "given"
    never = fake_kb(embedder=FakeEmbedder(), retrieval=RetrievalSettings(refuse=False))
    never.ingest(source, approve_by="ann")
    assert never.search("violin").hits


def test_words_pass_the_nearest_in_meaning_only_with_all_words_of_the_query(tmp_path, local_kb, jpeg):
    captions = [
        "An old greyhound asleep on a leather sofa",
        "A baby sleeps in a cot below a mobile of clouds",
        "A brown dog leaps to catch a tennis ball",
        "A dark red lipstick without its cap",
        "Straw hats stacked on a stand at the market",
        "A climber hangs by one hand from an overhang",
    ]
    kb = local_kb(tmp_path, retrieval=RetrievalSettings(refuse=False))
    source = [SourcePicture.from_bytes(f"{n}.jpg", jpeg(n), caption=one) for n, one in enumerate(captions)]
    kb.ingest(source, approve_by="ann")
    some, every = kb.search("a sleeping dog"), kb.search("hat")
    assert some.hits[0].asset.caption == captions[0]
    best = every.hits[0]
    assert best.asset.caption == captions[4]
    assert best.cosine < max(hit.cosine for hit in every.hits)
    for found in (some, every):
        scores = [hit.fused_score for hit in found.hits]
        assert scores == sorted(scores, reverse=True)
    by_words = local_kb(tmp_path, "words", retrieval=RetrievalSettings(refuse=False, dense_weight=0))
    by_words.ingest(source, approve_by="ann")
    assert by_words.search("a sleeping dog").hits[0].asset.caption != captions[0]
