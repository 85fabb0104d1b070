"""The word-vector embedder: its contract, and that it gives what the package itself gives."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vrag.backends.local import text_embedder
from vrag.backends.local.text_embedder import MAX_CHARS, MAX_TOKENS, WordLlamaEmbedder
from vrag.errors import BackendError, MissingExtraError, UnsupportedRequestError, UsageError
from vrag.testing.contracts import EmbedderContract
from vrag.values.vectors import Item

pytest.importorskip("wordllama")

TEXTS = ["red shoes", "A dog on the beach.", "ñandú ж 鳥 🦦", " ", "x", "Two\nlines\tand tabs", "\x00", "a" * 300]


class TestWordLlamaEmbedder(EmbedderContract):
    def make(self, tmp_path):
        return WordLlamaEmbedder()

    def sent(self, backend):
        return 0


@pytest.fixture(scope="module")
def embedder():
    return WordLlamaEmbedder()


def embed(embedder, *texts):
    return embedder.embed([Item(kind="text", text=text) for text in texts], "index")


def test_it_gives_what_the_package_gives(embedder):
    level = logging.getLogger().level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from wordllama import WordLlama

        [folder] = importlib.util.find_spec("wordllama").submodule_search_locations
        package = WordLlama.load(cache_dir=folder, disable_download=True)
    logging.getLogger().setLevel(level)
    assert np.allclose(embed(embedder, *TEXTS), package.embed([text.lower() for text in TEXTS], norm=True), atol=1e-6)


def test_near_meanings_are_near(embedder):
    query, *others = embed(embedder, "a puppy", "a dog", "a red sports car", "stock market report")
    cosines = [float(query @ other) for other in others]
    assert cosines[0] > 0.4
    assert max(cosines[1:]) < 0.2


@pytest.mark.parametrize("text", ["", " ", "\ud800", "\x00", "🦄", "word " * 50_000, "鳥" * 100_000, "\u200b"])
def test_odd_texts_have_a_unit_vector(embedder, text):
    [row] = embed(embedder, text)
    assert row.dtype == np.float32
    assert np.isfinite(row).all()
    assert np.linalg.norm(row.astype(np.float64)) == pytest.approx(1, abs=1e-6)


def test_the_empty_text_is_the_unknown_token(embedder):
    table = embedder._model().table[0].astype(np.float64)
    assert np.allclose(embed(embedder, "")[0], table / np.linalg.norm(table), atol=1e-6)


def test_long_texts_are_cut_where_it_says(embedder):
    head = "dog " * (MAX_TOKENS + 10)
    assert (embed(embedder, head) == embed(embedder, head + "car " * 1000)).all()
    blank = "w" * MAX_CHARS
    assert (embed(embedder, blank) == embed(embedder, blank + " car")).all()


def test_a_row_does_not_depend_on_its_neighbours(embedder):
    together = embed(embedder, *TEXTS)
    alone = np.concatenate([embed(embedder, text) for text in TEXTS])
    assert (together == alone).all()
    with ThreadPoolExecutor(8) as threads:
        assert all((rows == together).all() for rows in threads.map(lambda _: embed(embedder, *TEXTS), range(16)))


def test_only_text_is_taken(embedder):
    with pytest.raises(UnsupportedRequestError, match="takes text, not 'image'") as caught:
        embedder.embed([Item(kind="text", text="a"), Item(kind="image")], "index")
    [problem] = caught.value.problems
    assert problem.field == "items[1].kind"
    with pytest.raises(UsageError, match="no text"):
        embedder.embed([Item(kind="text")], "query")


def test_without_the_wheel_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(text_embedder, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match="'local'") as caught:
        WordLlamaEmbedder()
    assert caught.value.hint == "pip install 'vrag[local]'"


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, (2).to_bytes(8, "little") + b"{}", (60).to_bytes(8, "little") + b"[" * 60]
)
def test_damaged_weights_are_told(tmp_path, content):
    (tmp_path / "weights").mkdir()
    (tmp_path / text_embedder._WEIGHTS).write_bytes(content)
    broken = WordLlamaEmbedder()
    broken._folder = tmp_path
    with pytest.raises(BackendError, match="cannot be used"):
        broken.embed([], "index")


def test_the_package_itself_is_never_run():
    script = (
        "import sys; from vrag.backends.local.text_embedder import WordLlamaEmbedder as E; from vrag.values.vectors import Item;"
        "E().embed([Item(kind='text', text='dog')], 'query'); print(sorted({'wordllama', 'requests', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_capitals_make_no_difference(embedder):
    assert (embed(embedder, "RED Shoes", "red shoes")[0] == embed(embedder, "red shoes")[0]).all()
