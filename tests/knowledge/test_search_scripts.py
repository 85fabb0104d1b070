"""Queries in any script, by words only and with an embedder that knows English only."""

# ruff: noqa: RUF001  # letters of many scripts, on purpose

import pytest

from vrag.knowledge.retrieval import unknown_script
from vrag.knowledge.sources import SourcePicture
from vrag.knowledge.words import content_words, folded, subject, words_of

CAPTIONS = {
    "ja": "赤い靴を履いた女性が公園を歩いている",
    "ja-dog": "浜辺を走る犬",
    "ja-car": "赤い車",
    "zh": "一双红色的鞋子放在地板上",
    "zh-dog": "一只狗在沙滩上",
    "ko": "빨간 신발을 신은 여자",
    "ko-dog": "개가 자고 있다",
    "th": "ผู้หญิงใส่รองเท้าสีแดง",
    "ru": "Красные туфли на снегу",
    "ar": "حذاء أحمر على الأرض",
    "en": "a brown dog on the beach",
}
ANSWERS = {
    "赤い靴": "ja", "靴": "ja", "犬": "ja-dog", "走る犬": "ja-dog", "赤い車の写真": "ja-car", "红色的鞋子": "zh", "鞋子": "zh", "狗": "zh-dog",
    "빨간 신발": "ko", "개": "ko-dog", "รองเท้าสีแดง": "th", "красные туфли": "ru", "حذاء احمر": "ar", "brown dog": "en",
}  # fmt: skip
REFUSED = ["猫", "青い靴下", "赤い家", "汽车", "고양이", "빨간 자동차", "แมว", "красный автомобиль", "قطة", "red shoes"]


@pytest.fixture(params=["words only", "hybrid"])
def library(request, tmp_path, local_kb, jpeg):
    kb = local_kb(tmp_path, **({"embedder": None} if request.param == "words only" else {}))
    source = [
        SourcePicture.from_bytes(key, jpeg(n), caption=caption) for n, (key, caption) in enumerate(CAPTIONS.items())
    ]
    assert kb.ingest(source, approve_by="ann").new == len(CAPTIONS)
    return kb


def test_each_script_is_answered_by_the_picture_that_says_it(library):
    for query, wanted in ANSWERS.items():
        result = library.search(query)
        assert result.hits, (query, result.refusal.reasons)
        assert result.hits[0].asset.file_name == wanted, query
        assert result.hits[0].matched_words, query


def test_what_no_caption_says_is_refused_in_each_script(library):
    for query in REFUSED:
        result = library.search(query)
        assert result.hits == (), (query, [hit.why for hit in result.hits])


def test_a_script_that_the_embedder_does_not_know_is_searched_by_words_and_says_so(tmp_path, local_kb, jpeg):
    kb = local_kb(tmp_path)
    kb.ingest(
        [
            SourcePicture.from_bytes("a", jpeg(1), caption="赤い靴"),
            SourcePicture.from_bytes("b", jpeg(2), caption="dog"),
        ],
        approve_by="ann",
    )
    result = kb.search("赤い靴")
    assert [hit.cosine for hit in result.hits] == [None]
    assert "does not know CJK letters" in result.settings["meaning"]
    assert "meaning not asked" in result.hits[0].why
    assert "by words" in result.settings["refusal"]
    assert "does not know Hangul letters" in kb.search("고양이 dog").settings["meaning"]
    assert "meaning" not in kb.search("dog").settings
    assert kb.search("DOG").hits[0].cosine == kb.search("dog").hits[0].cosine


def test_unknown_scripts_are_told_by_the_letters():
    assert unknown_script("café, 2 Ångström €5 🦓", "wordllama-x") is None
    assert "Cyrillic" in unknown_script("красный", "wordllama-x")
    assert unknown_script("красный", "some-multilingual-model") is None


def test_words_of_other_languages_are_cut_and_folded():
    assert words_of("赤い靴を履いた女性") == ["赤い", "靴", "履いた", "女性"]
    assert content_words("犬の写真") == ["犬"]
    assert content_words("一只黑色的狗") == ["黑色", "狗"]
    assert subject("浜辺の犬") == "犬"
    assert subject("حذاء أحمر") == "حذاء"
    assert words_of("L’hôtel de l'été") == ["hotel", "de", "ete"]
    assert folded("Ёлка Й ٣ ﾃﾚﾋﾞ Straße") == "елка й 3 テレビ strasse"
    assert folded("a\u200db") == "ab"
