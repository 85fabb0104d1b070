"""Tiny models made here, in the layouts in which exporters leave large ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
tokenizers = pytest.importorskip("tokenizers")

WORDS = (
    "red blue green orange purple yellow shoes mountain lake dogs dog ball city lights a at two with much longer about"
)


def constant(name, value):
    return onnx.numpy_helper.from_array(np.asarray(value), name)


def ids(*names):
    return [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "tokens"]) for name in names]


def floats(name, shape):
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def save(path, nodes, inputs, outputs, constants, **more):
    """An ONNX file of this graph, each node as (operator, inputs, output, attributes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = [onnx.helper.make_node(kind, given, [output], **options) for kind, given, output, options in nodes]
    graph = onnx.helper.make_graph(made, "tiny", inputs, outputs, constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path, **more)


def tokenizer(path, *, words=WORDS, special=True):
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words.split()])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if special:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    made.enable_padding(length=128)  # as exporters leave it
    made.save(str(path))
    return len(vocabulary)


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def sentence_folder(tmp_path):
    """A table of word vectors as a sentence-transformers folder; hooks change what it is made of."""

    def make(name="tiny-sentences", *, dimension=8, output="last_hidden_state", file="onnx/model.onnx", seed=0, **more):
        folder = tmp_path / name
        folder.mkdir()
        size = tokenizer(folder / "tokenizer.json", special=more.pop("special", True))
        table = np.random.default_rng(seed).normal(size=(size, dimension)).astype(np.float32)
        write(folder, "config.json", {"model_type": "bert", "max_position_embeddings": 64})
        write(folder, "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
        save(
            folder / file,
            [("Gather", ["table", "input_ids"], output, {})],
            ids("input_ids", "attention_mask", "token_type_ids"),
            [floats(output, ["batch", "tokens", dimension])],
            [constant("table", table)],
            **more,
        )
        return folder

    return make
