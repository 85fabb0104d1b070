"""Tiny models made here, in the layouts in which exporters leave large ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

try:
    import onnx
    import tokenizers
except ImportError:  # the tests of this folder that need them are left out
    onnx = tokenizers = None

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

    def make(name="tiny-sentences", *, dimension=8, pooled=False, file="onnx/model.onnx", seed=0, **more):
        folder = tmp_path / name
        folder.mkdir()
        size = tokenizer(folder / "tokenizer.json", special=more.pop("special", True))
        table = np.random.default_rng(seed).normal(size=(size, dimension)).astype(np.float32)
        write(folder, "config.json", {"model_type": "bert", "max_position_embeddings": 64})
        write(folder, "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
        nodes = [("Gather", ["table", "input_ids"], "last_hidden_state", {})]
        made = [floats("last_hidden_state", ["batch", "tokens", dimension])]
        if pooled:
            nodes.append(("ReduceMean", ["last_hidden_state"], "sentence_embedding", {"axes": [1], "keepdims": 0}))
            made.append(floats("sentence_embedding", ["batch", dimension]))
        inputs = ids("input_ids", "attention_mask", "token_type_ids")
        save(folder / file, nodes, inputs, made, [constant("table", table)], **more)
        return folder

    return make


COLOURS = {"red": (205, 40, 45), "green": (40, 150, 60), "blue": (40, 70, 200), "yellow": (235, 215, 50)}
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 32},
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


@pytest.fixture
def clip_folder(tmp_path):
    """A model that sees the mean colour and knows the words for four of them; other words lie in other directions."""

    def make(name="tiny-clip", *, kind="clip", together=False, dimension=96, seed=0, **more):
        folder = tmp_path / name
        folder.mkdir()
        size = tokenizer(folder / "tokenizer.json")
        chance = np.random.default_rng(seed)
        # Three directions for colours; the others keep apart what is no colour, as a trained model does.
        table = np.zeros((size, dimension), np.float32)
        table[4:, 3:] = chance.normal(size=(size - 4, dimension - 3)) * 0.2
        table[1, 3:] = chance.normal(size=dimension - 3) * 0.2
        for word, colour in COLOURS.items():
            table[4 + WORDS.split().index(word)] = 0
            table[4 + WORDS.split().index(word), :3] = np.array(colour) / 127.5 - 1
        sees = np.eye(3, dimension, dtype=np.float32)
        outputs = ["pooler_output"] * 2 if kind == "siglip" else ["text_embeds", "image_embeds"]
        words = [
            ("Gather", ["table", "input_ids"], "rows", {}),
            ("ReduceMean", ["rows"], outputs[0], {"axes": [1], "keepdims": 0}),
        ]
        looks = [
            ("ReduceMean", ["pixel_values"], "mean", {"axes": [2, 3], "keepdims": 0}),
            ("MatMul", ["mean", "sees"], outputs[1], {}),
        ]
        ready = [constant("table", table)], [constant("sees", sees)]
        texts, pictures = ids("input_ids"), [floats("pixel_values", ["batch", 3, "height", "width"])]
        made = [[floats(output, ["batch", dimension])] for output in outputs]
        if together:
            inputs = [*ids("input_ids", "attention_mask"), *pictures]
            save(folder / "onnx/model.onnx", words + looks, inputs, made[0] + made[1], ready[0] + ready[1], **more)
        else:
            save(folder / "onnx/text_model.onnx", words, texts, made[0], ready[0], **more)
            save(folder / "onnx/vision_model.onnx", looks, pictures, made[1], ready[1], **more)
        write(folder, "config.json", {"model_type": kind, "text_config": {"max_position_embeddings": 16}})
        write(folder, "tokenizer_config.json", {"pad_token": "[PAD]"})
        squashed = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}}
        write(
            folder,
            "preprocessor_config.json",
            PROCESSOR | (squashed | {"do_center_crop": False} if kind == "siglip" else {}),
        )
        return folder

    return make
