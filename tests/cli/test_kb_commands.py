"""`vrag kb` and what came with it: check, export, import, reindex, erase, filters, pages, tables."""

import json

import pytest
from PIL import Image

from vrag.cli.app import run


@pytest.fixture
def vrag(tmp_path, capsys):
    def call(*arguments):
        capsys.readouterr()
        code = run([*arguments, "--workspace", str(tmp_path / "studio"), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def filled(vrag, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, (name, size) in enumerate(
        {"red-shoes": (1600, 900), "brown-dog": (900, 1600), "tiny-cat": (200, 100)}.items()
    ):
        Image.effect_mandelbrot(size, (-2 + number / 5, -1.2, 1, 1.2), 80).convert("RGB").save(photos / f"{name}.jpg")
    code, report = vrag("ingest", str(photos), "--kb", "brand", "--approve", "--by", "ann")
    assert (code, report["new"]) == (0, 3)
    return vrag


def test_list_and_check_name_what_to_look_at(filled):
    assert filled("kb", "list")[1] == {"knowledge_bases": [{"name": "brand", "pictures": 3}]}
    code, report = filled("kb", "check", "--kb", "brand")
    assert code == 4
    assert "too_small" in json.dumps(report)
    assert filled("kb", "check", "--kb", "brand", "--size", "wide")[0] == 2


def test_export_and_import_move_it_without_an_embedder(filled, tmp_path):
    archive = tmp_path / "brand.tar"
    code, done = filled("kb", "export", str(archive), "--kb", "brand")
    assert (code, done["pictures"]) == (0, 3)
    assert archive.is_file()
    code, error = filled("kb", "import", str(archive), "--kb", "copy")
    if code:  # an export keeps the name of its knowledge base
        assert "brand" in error["message"]
    else:
        assert error["new"] == 3
        assert filled("search", "red shoes", "--kb", "copy")[1]["hits"]


def test_reindex_keeps_what_is_found(filled):
    before = filled("search", "brown dog", "--kb", "brand")[1]["hits"]
    code, _ = filled("kb", "reindex", "--kb", "brand")
    assert code == 0
    assert filled("search", "brown dog", "--kb", "brand")[1]["hits"] == before


def test_search_by_filter_by_likeness_and_with_a_page(filled, tmp_path):
    page = tmp_path / "found.html"
    code, found = filled(
        "search", "red shoes", "--kb", "brand", "--filter", "orientation=landscape", "--html", str(page)
    )
    assert code == 0
    assert "Content-Security-Policy" in page.read_text(encoding="utf-8")
    asset = found["hits"][0]["asset_id"]
    assert filled("search", "red shoes", "--kb", "brand", "--filter", "orientation=portrait")[0] == 3
    assert filled("search", "red shoes", "--kb", "brand", "--filter", "colour=red")[0] == 2
    assert filled("search", asset, "--like", "--kb", "brand")[0] in {0, 3}


def test_a_table_decides_and_names_bad_lines(filled, tmp_path):
    asset = filled("search", "brown dog", "--kb", "brand")[1]["hits"][0]["asset_id"]
    table = tmp_path / "decisions.csv"
    table.write_text(f"id,state,reason\n{asset},rejected,no release\nbrand/nothing,approved,\n", encoding="utf-8")
    code, report = filled("review", "--kb", "brand", "--csv", str(table), "--by", "ann")
    assert code == 4
    assert report["failed"][0]["line"] == 3
    assert filled("search", "brown dog", "--kb", "brand")[0] == 3


def test_revoking_everywhere_and_erasing(filled):
    asset = filled("search", "red shoes", "--kb", "brand")[1]["hits"][0]["asset_id"]
    assert filled("kb", "erase", asset, "--by", "ann", "--reason", "asked to")[0] in {2, 3}  # not revoked yet
    code, done = filled("revoke", asset.partition("/")[2], "--everywhere", "--by", "ann", "--reason", "court order")
    assert code == 0
    assert done["revoked"][0]["review"]["state"] == "revoked"
    assert filled("kb", "erase", asset, "--by", "ann", "--reason", "asked to")[0] == 0
    assert filled("search", "red shoes", "--kb", "brand")[0] == 3


def test_the_page_needs_a_name(filled):
    assert filled("review", "--kb", "brand", "--web")[0] == 2
