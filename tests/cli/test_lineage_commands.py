"""`vrag lineage` and `vrag where-used`: every way to name a thing, the tree, the picture, and what changed since."""

import base64
import json
import os
import shutil
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest

pytest.importorskip("cv2", reason="films are made by the extra 'local'")

from vrag import Brief, VRAGPipeline
from vrag.cli import main
from vrag.cli.demo import demo_photos
from vrag.cli.lineage import through
from vrag.provenance.lineage import Edge, LineageGraph, Node
from vrag.workspace.db import Database
from vrag.workspace.ledger import Draft, Ledger, Lineage


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace with one film, saved beside it."""
    folder = tmp_path_factory.mktemp("lineage")
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("VRAG_")}
    with VRAGPipeline.local(folder / "studio") as pipeline, demo_photos() as photos:
        brand = pipeline.knowledge_base("brand")
        brand.ingest(photos / "captions.jsonl", approve_by="ann")
        size = {"width_px": 320, "height_px": 180, "duration_s": 1.0, "fps": 12.0}
        brief = Brief(object_prompt="snowy mountain lake", action_prompt="pans left", knowledge_base="brand", **size)
        film = pipeline.generate(brief)
        video = film.save(folder / "lake.mp4")
        photo = folder / "lake.jpg"
        photo.write_bytes((photos / "snowy-mountain-lake.jpg").read_bytes())
        unused = next(asset.id for asset in brand.assets() if asset.id != film.sources[0].asset_id)
    os.environ.update(kept)
    return SimpleNamespace(
        studio=folder / "studio", video=video, photo=photo, id=film.id, sha256=film.media.sha256,
        asset=film.sources[0].asset_id, unused=unused,
    )  # fmt: skip


@pytest.fixture
def run(made, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments, studio=made.studio):
        capsys.readouterr()
        code = main([*arguments, "--workspace", str(studio)])
        said = capsys.readouterr()
        return code, json.loads(said.out) if "--json" in arguments else said.out, said.err

    return invoke


def test_a_film_is_named_by_its_step_its_digits_its_digest_or_its_file(made, run):
    shown = {run("lineage", name) for name in (made.id, made.id[:8], made.sha256, str(made.video))}
    ((code, out, err),) = shown
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "made from:"
    assert lines[1].startswith(f'  video  {made.id[:12]}  "snowy mountain lake, pans left"  [camera-moves/1]')
    assert lines[2].startswith("  └─ start frame: fitted picture")
    assert lines[3].startswith(f"     └─ fit: picture  brand/{made.asset.partition('/')[2][:12]}")


def test_a_picture_is_named_by_its_id_its_digits_its_digest_or_its_file(made, run):
    digest = made.asset.partition("/")[2]
    names = (made.asset, f"brand/{digest[:10]}", digest, str(made.photo))
    ((code, out, err),) = {run("lineage", name) for name in names}
    assert (code, err) == (0, "")
    assert out.startswith("used in:\n  picture  brand/")
    assert "start frame: video" in out


def test_lineage_as_json_and_as_a_picture(made, run, tmp_path):
    code, said, err = run("lineage", made.id, "--json", "-o", "film.svg")
    assert (code, err) == (0, "")
    assert [node["kind"] for node in said["nodes"]] == ["video", "fitted", "asset"]
    assert said["nodes"][2]["asset_id"] == made.asset
    assert {edge["role"] for edge in said["edges"]} == {"fit", "start_frame"}
    assert said["picture"] == "film.svg"
    assert len(list(ET.parse(tmp_path / "film.svg").iter("{http://www.w3.org/2000/svg}rect"))) == 3
    assert run("lineage", made.id, "-o", "film.svg")[0] == 1, "nothing is written over unasked"
    assert run("lineage", made.id, "-o", "film.svg", "--overwrite")[0] == 0
    assert run("lineage", made.id, "-o", "film.png")[0] == 2


def test_what_is_nowhere_is_said(made, run, tmp_path):
    for name, expected in (
        ("nothing", 2),
        ("f" * 64, 1),
        ("f" * 12, 1),
        (made.unused, 1),
        ("brand/", 2),
        ("none/abcdef12", 1),
    ):
        code, _, err = run("lineage", name)
        assert code == expected, (name, err)
        assert "next:" in err
    assert run("lineage", made.id, studio=tmp_path / "none")[0] == 1
    assert not (tmp_path / "none").exists(), "looking makes no workspace"


def test_where_used_takes_the_same_names_and_says_through_what(made, run):
    names = (made.asset, f"brand/{made.asset.partition('/')[2][:10]}", str(made.photo))
    for name in names:
        code, said, err = run("where-used", name, "--json")
        assert (code, err) == (0, "")
        if name is not names[2]:
            assert said["asset_id"] == made.asset
        (use,) = said["uses"]
        assert (use["step_id"], use["state"], use["video_sha256"], use["through"]) == (
            made.id,
            "delivered",
            made.sha256,
            None,
        )
    code, said, _ = run("where-used", made.unused, "--json")
    assert (code, said["uses"]) == (0, [])
    code, out, err = run("where-used", made.asset)
    assert made.sha256 in out
    assert "next: vrag lineage" in err


def test_through_names_what_lies_between():
    kinds = {"a": "asset", "e": "edited", "f": "fitted", "p": "part", "v": "video", "w": "video"}
    nodes = {one: Node(id=one, kind=kind, sha256=one, records=(one,)) for one, kind in kinds.items()}
    pairs = [("a", "e"), ("e", "f"), ("f", "p"), ("p", "v"), ("a", "w")]
    graph = LineageGraph(root="a", nodes=nodes, edges=tuple(Edge(source=s, target=t, role="r") for s, t in pairs))
    found = through(graph)
    assert (found["v"], found["p"], found["e"], found["w"]) == (
        "an edited picture, a part of a film",
        "an edited picture",
        "",
        "",
    )


def test_what_changed_since_is_said(made, run, tmp_path):
    studio = shutil.copytree(made.studio, tmp_path / "studio")
    code, out, _ = run("lineage", made.id, "--stale", studio=studio)
    assert (code, out.splitlines()[-1]) == (0, "nothing has changed since")
    assert run("revoke", made.asset, "--by", "ann", "--reason", "the licence ended", studio=studio)[0] == 0
    code, said, _ = run("lineage", made.id, "--stale", "--json", studio=studio)
    assert (code, [(one["kind"], one["what"]) for one in said["stale"]]) == (0, [("picture revoked", made.asset)])
    assert "the licence ended" in run("lineage", made.id, "--stale", studio=studio)[1]


def test_a_record_that_cannot_be_read_is_told_not_shown(made, run, tmp_path):
    studio = shutil.copytree(made.studio, tmp_path / "studio")
    database = Database(studio / "vrag.db")
    ledger = Ledger(database)
    payload = json.dumps(ledger.get(made.id).statement).replace('"generate"', '"gen\\u001b[31m"').encode()
    envelope = {"payload": base64.b64encode(payload).decode(), "payloadType": "t", "signatures": []}
    draft = Draft(record_id="f" * 64, payload=payload, lineage=Lineage(subjects={}))
    with database.transaction() as connection:
        ledger.append(connection, draft, json.dumps(envelope).encode(), public_key=b"key")
    database.close()
    code, _, err = run("lineage", "f" * 64, studio=studio)
    assert code == 5
    assert err.replace("\n", "").isprintable()
