"""`import vrag` stays cheap, and every public name is where it is said to be."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

import vrag

HEAVY = {"PIL", "av", "boto3", "botocore", "cattrs", "click", "cv2", "numpy", "opensearchpy", "rich", "tokenizers"}


def loaded_after(statement):
    code = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import vrag",
        "from vrag import Brief, CameraMove, Look, NoSuitableImageError, Plan, VRAGError; Brief(object_prompt='a')",
        "import vrag.interfaces, vrag.errors, vrag.testing",
    ],
)
def test_importing_loads_no_cloud_sdk_codec_array_or_picture_library(statement):
    assert loaded_after(statement) & HEAVY == set()


def test_the_public_names_exist_and_are_sorted():
    assert sorted(vrag.__all__) == vrag.__all__
    for name in vrag.__all__:
        assert getattr(vrag, name) is not None
    assert set(vrag.__all__) <= set(dir(vrag))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vrag.nothing


def modules():
    return [
        importlib.import_module(info.name)
        for info in pkgutil.walk_packages(vrag.__path__, "vrag.")
        if not info.name.startswith("vrag.cli") and "._" not in info.name
    ]


def test_each_module_declares_what_it_exports():
    for module in modules():
        names = getattr(module, "__all__", [])
        assert len(set(names)) == len(names), module.__name__
        for name in names:
            assert getattr(module, name) is not None, f"{module.__name__}.{name}"


def test_public_values_are_frozen_keyword_only_and_documented():
    for module in modules():
        for name in getattr(module, "__all__", []):
            kind = getattr(module, name)
            if isinstance(kind, type) and kind.__module__ == module.__name__:
                assert kind.__doc__, f"{module.__name__}.{name} has no docstring"
                if module.__name__.startswith("vrag.values") and attrs.has(kind):
                    fields = attrs.fields(kind)
                    assert len(fields) == 1 or all(field.kw_only for field in fields), name
                    assert kind.__setattr__ is not object.__setattr__, f"{name} is not frozen"


def test_every_public_function_has_a_docstring():
    missing = []
    for module in modules():
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                overriding = {
                    item.name
                    for item in node.body
                    if isinstance(item, ast.FunctionDef)
                    and any(getattr(mark, "id", "") == "override" for mark in item.decorator_list)
                }
                missing += [
                    f"{module.__name__}.{node.name}.{item.name}"
                    for item in node.body
                    if isinstance(item, ast.FunctionDef)
                    and not item.name.startswith("_")
                    and item.name not in overriding
                    and ast.get_docstring(item) is None
                ]
    assert missing == []
