"""Words of any script in the embedded index: what finds what, in which order, and indexes of older releases."""

# ruff: noqa: RUF001  # letters of many scripts, on purpose

import re
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrag.backends.local.vector_store import LocalVectorStore
from vrag.backends.local.word_index import WORDS_FORMAT, indexed_words, match_expressions
from vrag.knowledge.words import content_words, matched_words, runs_of
from vrag.values.vectors import VectorQuery, VectorRecord

CAPTIONS = {
    "shoes-ja": "赤い靴を履いた女性が公園を歩いている",
    "black-ja": "黒い靴と傘",
    "dog-ja": "浜辺を走る犬の写真",
    "puppy-ja": "子犬が芝生で眠っている",
    "apple-ja": "りんごの木",
    "television-ja": "テレビの前のソファ",
    "shoes-zh": "一双红色的鞋子放在地板上",
    "dog-zh": "一只狗在沙滩上奔跑",
    "garden-zh": "一座日本庭園",
    "shoes-ko": "빨간 신발을 신은 여자",
    "dog-ko": "개가 잔디밭에서 자고 있다",
    "fog-ko": "안개 낀 산",
    "shoes-th": "ผู้หญิงใส่รองเท้าสีแดง",
    "dog-hi": "घास पर सोता हुआ कुत्ता",
    "shoes-ru": "Красные ту\u0301фли на снегу",
    "tree-ru": "зелёная ёлка и мой дом",
    "shoes-el": "Κόκκινα παπούτσια στο πάτωμα",
    "shoes-he": "נַעֲלַיִם אדומות על הרצפה",
    "shoes-ar": "حِذَاءٌ أحمر على الأرض",
    "book-fa": "کتاب\u200cهای قدیمی",
    "coffee-fr": "Un café crème à l’hôtel",
    "mixed": "赤いNike の靴 2足",
    "english": "a red shoe beside a dog's bowl",
}
FINDS = {
    "犬": {"dog-ja", "puppy-ja"}, "子犬": {"puppy-ja"}, "靴": {"shoes-ja", "black-ja", "mixed"}, "赤い靴": {"shoes-ja", "mixed"},
    "走る犬": {"dog-ja"}, "赤い靴を履いた": {"shoes-ja"}, "りんご": {"apple-ja"}, "ﾃﾚﾋﾞ": {"television-ja"}, "公園": {"shoes-ja"},
    "狗": {"dog-zh"}, "鞋子": {"shoes-zh"}, "红色的鞋子": {"shoes-zh"}, "日本庭園": {"garden-zh"}, "沙滩上": {"dog-zh"},
    "개": {"dog-ko"}, "신발": {"shoes-ko"}, "빨간 신발": {"shoes-ko"}, "잔디밭": {"dog-ko"}, "안개": {"fog-ko"},
    "รองเท้า": {"shoes-th"}, "สีแดง": {"shoes-th"}, "कुत्ता": {"dog-hi"}, "घास": {"dog-hi"},
    "ТУФЛИ": {"shoes-ru"}, "елка": {"tree-ru"}, "мой": {"tree-ru"}, "παπουτσια": {"shoes-el"}, "ΚΌΚΚΙΝΑ": {"shoes-el"},
    "נעלים": {"shoes-he"}, "حذاء": {"shoes-ar"}, "احمر": {"shoes-ar"}, "كتابهای": {"book-fa"},
    "cafe": {"coffee-fr"}, "hotel": {"coffee-fr"}, "nike": {"mixed"}, "NIKE 靴": {"mixed"}, "\uff12足": {"mixed"},
    "red shoes": {"english"}, "dogs": {"english"},
}  # fmt: skip
"""Query: the captions that say it. The index may find more (any word), but these first, and retrieval accepts these."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = LocalVectorStore(tmp_path_factory.mktemp("scripts"), None)
    store.upsert([VectorRecord(key=key, text=text) for key, text in CAPTIONS.items()])
    yield store
    store.close()


def found(store, words, top_k=20):
    return [match.key for match in store.search(VectorQuery(words=words, top_k=top_k))]


@pytest.mark.parametrize("query", FINDS)
def test_a_word_is_found_inside_text_of_its_script(store, query):
    keys = found(store, query)
    # 안개 has the letter of 개: the index finds it, and retrieval does not call it a match.
    assert FINDS[query] <= set(keys[: len(FINDS[query]) + (query == "개")]), keys


@pytest.mark.parametrize("query", FINDS)
def test_what_the_index_finds_first_is_what_retrieval_calls_a_match(query):
    words = content_words(query)
    assert {key for key, text in CAPTIONS.items() if len(matched_words(words, text)) == len(words)} == FINDS[query]


@pytest.mark.parametrize(
    "query", ["猫", "青い車", "猫犬", "汽车", "고양이", "แมว", "बिल्ली", "ящик", "γάτα", "חתול", "قط"]
)
def test_what_no_caption_says_is_no_match(query):
    words = content_words(query)
    assert [key for key, text in CAPTIONS.items() if len(matched_words(words, text)) == len(words)] == []


def test_more_letters_in_common_rank_higher(store):
    assert found(store, "赤い靴")[:2] == ["mixed", "shoes-ja"] or found(store, "赤い靴")[0] == "shoes-ja"
    assert found(store, "赤い靴").index("shoes-ja") < found(store, "赤い靴").index("black-ja")
    assert found(store, "子犬")[0] == "puppy-ja"
    assert "dog-ja" in found(store, "赤い犬")


@given(st.text(max_size=40))
@settings(max_examples=200)
def test_expressions_hold_nothing_but_quoted_words(text):
    connection = sqlite3.connect(":memory:")
    connection.execute("create virtual table words using fts5(text, letters)")
    for expression in match_expressions(text):
        connection.execute("select rowid from words where words match ?", (expression,)).fetchall()
        for part in re.split(" AND | OR ", expression):
            assert re.fullmatch(r'(text|letters) : "[^"*^:()+\-]+"', part), part
    connection.close()


@given(
    st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=12), st.text(max_size=8), st.text(max_size=8)
)
@settings(max_examples=200, deadline=None)
def test_text_finds_itself_inside_other_text(tmp_path_factory, text, before, after):
    """Whatever the script: as a word of its own, and where no spaces divide words, beside others too."""
    runs = runs_of(text)
    spaced = f"{before} {text} {after}"
    assert set(runs) <= set(runs_of(spaced)) or not runs
    words, letters = indexed_words(spaced)
    connection = sqlite3.connect(":memory:")
    connection.execute(
        "create virtual table words using fts5(text, letters, tokenize=\"unicode61 categories 'L* N* Co M*'\")"
    )
    connection.execute("insert into words values(?, ?)", (words, letters))
    for expression in match_expressions(text)[:1]:
        assert connection.execute("select 1 from words where words match ?", (expression,)).fetchone(), expression
    connection.close()


def test_an_index_of_an_older_release_is_built_anew_when_it_is_opened(tmp_path):
    with_new = LocalVectorStore(tmp_path, None)
    with_new.upsert([VectorRecord(key=key, text=text) for key, text in CAPTIONS.items()])
    with_new.close()
    with sqlite3.connect(tmp_path / "store.sqlite3") as file:
        file.execute("drop table words")
        file.execute("create virtual table words using fts5(text, tokenize='porter unicode61')")
        file.execute("insert into words(rowid, text) select id, text from entry")
        file.execute("update store set words_format = 1")
        assert file.execute("select count(*) from words where words match '\"靴\"'").fetchone() == (0,)
    file.close()
    opened = LocalVectorStore(tmp_path, None)
    assert "shoes-ja" in found(opened, "靴")
    opened.upsert([VectorRecord(key="new", text="白い靴")])
    opened.delete(["black-ja"])
    assert found(opened, "白い靴")[0] == "new"
    assert "black-ja" not in found(opened, "靴")
    opened.close()
    with sqlite3.connect(tmp_path / "store.sqlite3") as file:
        assert file.execute("select words_format from store").fetchone() == (WORDS_FORMAT,)
    file.close()


def test_an_empty_text_and_signs_alone_are_no_words(store):
    for text in ("", " ", "🦓️", "1️⃣"[1:], "´", "。、「」", "\u0301", "\ufe0f", "___"):
        assert indexed_words(text) == ("", ""), ascii(text)
        assert match_expressions(text) == ()
