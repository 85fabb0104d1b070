"""Sentence models from folders: the contract, what the folder says, and folders that cannot be trusted."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest

from vrag.errors import BackendError, MissingExtraError, UsageError
from vrag.testing.contracts import EmbedderContract
from vrag.values.vectors import Item

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

import onnx
import tokenizers

from vrag.backends.local.sentence_model import SentenceModelEmbedder


def write(folder, name, **values):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(values), encoding="utf-8")


class TestSentenceModelEmbedder(EmbedderContract):
    @pytest.fixture(autouse=True)
    def _folder(self, sentence_folder):
        self.folder = sentence_folder()

    def make(self, tmp_path):
        return SentenceModelEmbedder(self.folder)

    def sent(self, backend):
        return 0


def embed(embedder, *texts):
    return embedder.embed([Item(kind="text", text=text) for text in texts], "index")


def test_a_text_is_the_mean_of_its_tokens(sentence_folder):
    embedder = SentenceModelEmbedder(sentence_folder(special=False))
    whole, red, shoes = embed(embedder, "red shoes", "red", "shoes")
    lengths = [np.linalg.norm(embedder._row(word, 8)) for word in ("red", "shoes")]
    mean = red * lengths[0] + shoes * lengths[1]
    assert np.allclose(whole, mean / np.linalg.norm(mean), atol=1e-6)


def test_cls_takes_the_first_token_alone(sentence_folder):
    folder = sentence_folder()
    write(folder, "1_Pooling/config.json", pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    embedder = SentenceModelEmbedder(folder)
    assert (embed(embedder, "red shoes") == embed(embedder, "a mountain lake")).all()
    assert "cls pooling" in embedder.space.preprocessing
    write(folder, "1_Pooling/config.json", pooling_mode="mean", word_embedding_dimension=8)
    assert "mean pooling" in SentenceModelEmbedder(folder).space.preprocessing


def test_a_graph_that_pools_by_itself_is_asked_for_that(sentence_folder):
    folder = sentence_folder(pooled=True)
    write(folder, "1_Pooling/config.json", pooling_mode_cls_token=True)
    embedder, mean = SentenceModelEmbedder(folder), SentenceModelEmbedder(sentence_folder("mean"))
    assert np.allclose(embed(embedder, "red shoes"), embed(mean, "red shoes"), atol=1e-6)
    assert "own pooling" in embedder.space.preprocessing


def test_weights_beside_the_graph_are_read_and_belong_to_the_revision(sentence_folder):
    apart = {"save_as_external_data": True, "location": "model.onnx_data", "size_threshold": 0}
    embedder, whole = SentenceModelEmbedder(sentence_folder("a", **apart)), SentenceModelEmbedder(sentence_folder("b"))
    assert (embed(embedder, "red shoes") == embed(whole, "red shoes")).all()
    other = sentence_folder("c", seed=1, **apart)
    assert (other / "onnx/model.onnx").read_bytes() == (other.parent / "a/onnx/model.onnx").read_bytes()
    assert SentenceModelEmbedder(other).space.revision != embedder.space.revision


def test_other_weights_words_names_or_settings_are_another_space(sentence_folder):
    folder = sentence_folder("one", file="model.onnx")
    spaces = [SentenceModelEmbedder(folder).space, SentenceModelEmbedder(folder, name="two").space]
    write(folder, "sentence_bert_config.json", max_seq_length=16, do_lower_case=True)
    spaces.append(SentenceModelEmbedder(folder).space)
    spaces.append(SentenceModelEmbedder(sentence_folder("weights", seed=1), name="one").space)
    spaces.append(SentenceModelEmbedder(sentence_folder("tokens", special=False), name="one").space)
    assert len(set(spaces)) == 5
    assert "lower case, mean pooling of the first 16 tokens" in spaces[2].preprocessing
    # Where the files lie makes no difference.
    assert SentenceModelEmbedder(sentence_folder("elsewhere"), name="one").space == spaces[0]


def test_long_texts_are_cut_where_it_says(sentence_folder):
    embedder = SentenceModelEmbedder(sentence_folder(special=False))
    head = "dog " * 32
    assert (embed(embedder, head) == embed(embedder, head + "red " * 1000)).all()


def test_a_text_without_tokens_has_a_direction_of_its_own(sentence_folder):
    embedder = SentenceModelEmbedder(sentence_folder(special=False))
    assert embed(embedder, "").tolist() == [[1.0] + [0.0] * 7]


# -- folders that cannot be used


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pooling_mode_max_tokens": True}, "'pooling_mode_max_tokens', and only"),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "'pooling_mode_cls_token + pooling_mode_mean_tokens', and only",
        ),
        ({"pooling_mode": "lasttoken"}, "pooling_mode is 'lasttoken', and only mean, cls"),
        ({"word_embedding_dimension": 9}, "its rows have 8 numbers, and 1_Pooling/config.json says 9"),
    ],
)
def test_another_pooling_is_refused_by_name(sentence_folder, values, message):
    folder = sentence_folder()
    write(folder, "1_Pooling/config.json", **values)
    with pytest.raises(UsageError, match=re.escape(message)):
        SentenceModelEmbedder(folder)


def test_a_layer_that_the_graph_does_not_have_is_refused(sentence_folder):
    layers = [{"idx": 0, "type": "sentence_transformers.models.Transformer"}]
    layers.append({"idx": 1, "type": "sentence_transformers.models.Dense"})
    folder, pooled = sentence_folder(), sentence_folder("pooled", pooled=True)
    for one in (folder, pooled):
        (one / "modules.json").write_text(json.dumps(layers), encoding="utf-8")
    with pytest.raises(UsageError, match=r"modules.json has the layer 'Dense'"):
        SentenceModelEmbedder(folder)
    assert SentenceModelEmbedder(pooled).space.dimension == 8


def test_weights_of_another_format_say_how_to_export_them(sentence_folder):
    folder = sentence_folder()
    (folder / "onnx/model.onnx").rename(folder / "model.safetensors")
    with pytest.raises(UsageError, match=re.escape("it has no onnx/model.onnx or model.onnx")) as caught:
        SentenceModelEmbedder(folder)
    assert "optimum-cli export onnx --task feature-extraction" in caught.value.hint


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", None, "it has no tokenizer.json"),
        ("tokenizer.json", b"{}", "tokenizer.json cannot be used"),
        ("tokenizer.json", b"\xff", "tokenizer.json cannot be used"),
        ("config.json", b"[" * 100_000, "config.json cannot be read"),
        ("config.json", b"[]", "config.json holds no JSON object"),
        ("config.json", b'{"max_position_embeddings": 1e400}', "max_position_embeddings is inf, not a whole number"),
        ("sentence_bert_config.json", b'{"max_seq_length": 9000000000}', "max_seq_length is 9000000000, not"),
        ("sentence_bert_config.json", b'{"max_seq_length": -1}', "max_seq_length is -1, not"),
        ("onnx/model.onnx", b"", "is no ONNX file"),
        ("onnx/model.onnx", b"\x3a\xff\xff\xff\xff\x0f", "it ends too early"),
        ("onnx/model.onnx", b"\xff" * 20, "more than ten bytes"),
        ("onnx/model.onnx", b"version https://git-lfs.github.com/spec/v1\n", "is no ONNX file"),
        ("onnx/model.onnx", b"\x08\x09", "ONNX Runtime does not load model.onnx"),
    ],
)
def test_missing_and_broken_files_are_told(sentence_folder, file, content, message):
    folder = sentence_folder()
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(message)):
        SentenceModelEmbedder(folder)


@pytest.mark.parametrize(
    ("file", "size", "message"),
    [
        ("tokenizer.json", (64 << 20) + 1, "more than 64 MiB"),
        ("config.json", (4 << 20) + 1, "more than 4 MiB"),
        ("onnx/model.onnx_data", (4 << 30) + 1, "its weights have 4.0 GiB; 4 are allowed"),
    ],
)
def test_huge_files_are_not_read(sentence_folder, file, size, message):
    folder = sentence_folder(save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    with (folder / file).open("r+b") as stream:
        stream.truncate(size)  # a hole: it takes no room
    with pytest.raises(UsageError, match=re.escape(message)):
        SentenceModelEmbedder(folder)


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "sub/secret", "..", "", "link", "nothing", "*/_ORT_MEM_ADDR_/*", "a\0b"]
)
@pytest.mark.parametrize("where", ["weights", "node", "subgraph", "function"])
def test_weights_outside_the_folder_are_refused(sentence_folder, location, where):
    folder = sentence_folder()
    (folder / "secret").write_bytes(bytes(1 << 12))
    (folder / "onnx/link").symlink_to(folder / "secret")
    model = onnx.load(folder / "onnx/model.onnx")
    outside = onnx.TensorProto(name="outside", dims=[2], data_type=onnx.TensorProto.FLOAT)
    outside.data_location = onnx.TensorProto.EXTERNAL
    outside.external_data.add(key="offset", value="0")
    outside.external_data.add(key="location", value=location)
    holder = onnx.helper.make_node("Constant", [], ["more"], value=outside)
    if where == "weights":
        model.graph.initializer.append(outside)
    elif where == "node":
        model.graph.node.append(holder)
    elif where == "subgraph":
        inner = onnx.helper.make_graph([holder], "inner", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["input_ids"], ["x"], then_branch=inner, else_branch=inner))
    else:
        model.functions.append(onnx.FunctionProto(name="f", domain="d", node=[holder]))
    (folder / "onnx/model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        UsageError, match=r"keeps weights in '.*', which is no file of its folder|only a file beside it"
    ):
        SentenceModelEmbedder(folder)


def graph(folder, nodes, output, constants=(), inputs=("input_ids",), kind=onnx.TensorProto.FLOAT):
    """Another graph for the folder: one output of undeclared shape, or of the rank that is declared."""
    given = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["b", "t"]) for name in inputs]
    made = onnx.helper.make_tensor_value_info(output, kind, None)
    built = onnx.helper.make_graph(nodes, "g", given, [made], list(constants))
    model = onnx.helper.make_model(built, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    (folder / "onnx/model.onnx").write_bytes(model.SerializeToString())


def node(kind, given, output, **options):
    return onnx.helper.make_node(kind, given, [output], **options)


FLOATS = node("Cast", ["input_ids"], "floats", to=onnx.TensorProto.FLOAT)
POOLED = [FLOATS, node("ReduceMean", ["floats"], "mean", keepdims=1)]
# Of a rank that nobody can tell before it runs.
FLAT = [
    FLOATS,
    node("Shape", ["input_ids"], "shape"),
    node("ReduceMax", ["input_ids"], "end", axes=[1], keepdims=0),
    node("Slice", ["shape", "start", "end"], "last"),
    node("Reshape", ["floats", "last"], "last_hidden_state"),
]


@pytest.mark.parametrize(
    ("nodes", "output", "message"),
    [
        (
            [*POOLED, node("Neg", ["mean"], "below"), node("Sqrt", ["below"], "sentence_embedding")],
            "sentence_embedding",
            "holds what is not a number",
        ),
        (FLAT, "last_hidden_state", "has the shape (3,), not 1 x 3 x any"),
        (
            [*POOLED, node("Identity", ["mean"], "sentence_embedding")],
            "sentence_embedding",
            "rows have 1 numbers, not 2 to",
        ),
    ],
)
def test_what_a_graph_answers_is_checked(sentence_folder, nodes, output, message):
    folder = sentence_folder()
    graph(folder, nodes, output, [onnx.numpy_helper.from_array(np.array([1]), "start")])
    with pytest.raises(BackendError, match=re.escape(message)):
        SentenceModelEmbedder(folder)


def test_numbers_that_are_none_for_one_text_are_refused_for_that_text(sentence_folder):
    folder = sentence_folder()
    table = np.ones((40, 8), np.float32)
    table[4] = np.nan
    gather = node("Gather", ["table", "input_ids"], "last_hidden_state")
    graph(folder, [gather], "last_hidden_state", [onnx.numpy_helper.from_array(table, "table")])
    embedder = SentenceModelEmbedder(folder)
    assert np.isfinite(embed(embedder, "blue")).all()
    with pytest.raises(BackendError, match="holds what is not a number"):
        embed(embedder, "blue", "red")


def test_a_graph_for_something_else_is_refused_by_what_it_wants_and_makes(sentence_folder):
    folder = sentence_folder()
    graph(folder, [FLOATS, node("Relu", ["floats"], "logits")], "logits")
    with pytest.raises(UsageError, match="makes logits of 2 dimensions; needed is sentence_embedding"):
        SentenceModelEmbedder(folder)
    relu = [FLOATS, node("Relu", ["floats"], "last_hidden_state")]
    graph(folder, relu, "last_hidden_state", inputs=("input_ids", "past"))
    with pytest.raises(UsageError, match=re.escape("wants the input 'past' of type tensor(int64)")):
        SentenceModelEmbedder(folder)
    same = [node("Identity", ["input_ids"], "last_hidden_state")]
    graph(folder, same, "last_hidden_state", kind=onnx.TensorProto.INT64)
    with pytest.raises(UsageError, match="makes no floating-point numbers"):
        SentenceModelEmbedder(folder)


def test_tensors_that_say_more_than_they_hold_are_refused(sentence_folder):
    folder = sentence_folder()
    model = onnx.load(folder / "onnx/model.onnx")
    model.graph.initializer[0].dims[0] = 10**15
    (folder / "onnx/model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match=r"ONNX Runtime does not load model\.onnx"):
        SentenceModelEmbedder(folder)


def test_a_tokenizer_that_panics_is_told(sentence_folder):
    folder = sentence_folder()
    told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    told["post_processor"]["special_tokens"]["[SEP]"]["id"] = "[GONE]"
    del told["post_processor"]["special_tokens"]["[CLS]"]
    write(folder, "tokenizer.json", **told)
    with pytest.raises(UsageError, match=r"tokenizer\.json cannot be used"):
        SentenceModelEmbedder(folder)


def test_what_onnx_runtime_would_print_is_not_printed(sentence_folder, capfd):
    folder = sentence_folder()
    model = (folder / "onnx/model.onnx").read_bytes()
    (folder / "onnx/model.onnx").write_bytes(model.replace(b"attention_mask", b"attention_mas\xff"))
    with pytest.raises(UsageError, match=r"does not load model\.onnx"):
        SentenceModelEmbedder(folder)
    assert capfd.readouterr() == ("", "")


def test_a_tokenizer_without_tokens_is_refused(sentence_folder):
    folder = sentence_folder(special=False)
    empty = tokenizers.Tokenizer(tokenizers.models.WordLevel({}, unk_token="[UNK]"))
    empty.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "removed")
    empty.save(str(folder / "tokenizer.json"))
    with pytest.raises(UsageError, match="its tokenizer makes no token of 'a'"):
        SentenceModelEmbedder(folder)


def test_a_tokenizer_with_more_tokens_than_the_model_fails_by_name(sentence_folder):
    folder = sentence_folder()
    table = onnx.numpy_helper.from_array(np.eye(20, 8, dtype=np.float32), "table")
    graph(folder, [node("Gather", ["table", "input_ids"], "last_hidden_state")], "last_hidden_state", [table])
    embedder = SentenceModelEmbedder(folder, name="tiny")
    with pytest.raises(BackendError, match="'tiny' cannot be used: it does not run"):
        embed(embedder, "longer")


def test_without_the_runtime_the_extra_is_named(sentence_folder, monkeypatch):
    folder = sentence_folder()
    for name in ("tokenizers", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtraError, match="'onnx'") as caught:
            SentenceModelEmbedder(folder)
        assert caught.value.hint == "pip install 'vrag[onnx]'"
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 101])
def test_names_that_cannot_be_shown_are_refused(sentence_folder, name):
    with pytest.raises(UsageError, match="is no name of a model"):
        SentenceModelEmbedder(sentence_folder(), name=name)
