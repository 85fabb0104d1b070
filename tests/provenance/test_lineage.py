"""Lineage both ways through edits and joined films, as text and as a picture; what has changed since; edits for a page."""

import io
import xml.etree.ElementTree as ET
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vrag.backends.local.storage import FolderStorage
from vrag.errors import FormatVersionError, NotFoundError, VerificationError
from vrag.media.ref import MediaRef, sha256_hex
from vrag.provenance.lineage import Edge, LineageGraph, Node, family, sources_of, used_in
from vrag.provenance.lineage_view import lineage_picture, lineage_tree, shortened
from vrag.provenance.receipt import ReceiptSigner
from vrag.provenance.record import (
    ChoiceFacts,
    EditFacts,
    Option,
    PartFacts,
    VideoFacts,
    choice_statement,
    edit_statement,
    video_statement,
)
from vrag.provenance.report.edits import shown_edits
from vrag.provenance.signing import LocalSigner, sign_envelope
from vrag.provenance.staleness import Now, stale
from vrag.provenance.steps import ERASED
from vrag.testing import FakeClock
from vrag.values.assets import Asset, Review, ReviewState, Rights
from vrag.values.briefs import AppliedEdit, Brief, Conformed, PlannedEdit, PlannedVideo, Source
from vrag.values.jobs import JobStatus
from vrag.values.policy import Policy
from vrag.values.requests import EditRequest, Estimate, Input, ModelRef, Shot, VideoRequest
from vrag.workspace.db import Database
from vrag.workspace.ledger import Draft, Ledger

CAMERA = ModelRef(provider="local", id="camera-moves/1")
PAINTER = ModelRef(provider="local", id="opencv-telea/1")
WHEN = {"started_at": "2026-01-02T00:00:00Z", "finished_at": "2026-01-02T00:00:05Z", "library_version": "1"}
SVG = "{http://www.w3.org/2000/svg}"


class World:
    """A workspace in which pictures were edited, animated, joined, chosen, withheld and taken down; all real records."""

    def __init__(self, folder):
        self.clock = FakeClock()
        self.database = Database(folder / "vrag.db", clock=self.clock)
        self.ledger = Ledger(self.database, self.clock)
        self.storage = FolderStorage(folder / "media")
        self.signer = LocalSigner.load_or_create(folder / "signing.pem")
        self.reviews = {}

    def put(self, name, media_type="image/png"):
        out = io.BytesIO()
        Image.new("RGB", (64, 36), f"#{sha256_hex(name.encode())[:6]}").save(out, "PNG")
        out.write(name.encode())
        ref = self.storage.put(io.BytesIO(out.getvalue()), media_type)
        return MediaRef(sha256=ref.sha256, media_type=media_type, size_bytes=ref.size_bytes, width_px=64, height_px=36)

    def source(self, name, *, kb="brand", edits=(), caption=None):
        original = self.put(name, "image/jpeg")
        asset_id = f"{kb}/{original.sha256}"
        self.reviews[asset_id] = Review(
            asset_id=asset_id, state=ReviewState.APPROVED, by="ann", at="2026-01-01T00:00:00Z"
        )
        return Source(
            asset_id=asset_id,
            knowledge_base=kb,
            role="start_frame",
            original=original,
            conformed=Conformed(media=self.put(f"{name} fitted {len(edits)}"), crop_px=(0, 0, 64, 36), mode="cover"),
            review_sequence=0,
            caption=caption or f"caption of {name}",
            file_name=f"{name}.jpg",
            edits=tuple(edits),
        )

    def planned(self, prompt, sources, parts=(), model=CAMERA):
        inputs = tuple(Input(role="start_frame", media=source.conformed.media) for source in sources)
        shots = tuple(Shot(prompt=one, inputs=inputs) for one in ([prompt] if isinstance(prompt, str) else prompt))
        return PlannedVideo(
            step_id=sha256_hex(repr(prompt).encode()),
            brief=Brief(object_prompt=prompt if isinstance(prompt, str) else prompt[0], knowledge_base="brand"),
            generator="camera",
            model=model,
            request=VideoRequest(shots=shots),
            sources=tuple(sources),
            estimate=Estimate(usd_micros=0),
            parts=tuple(parts),
        )

    def record(self, draft: Draft):
        envelope = sign_envelope(draft.payload, self.signer)
        with self.database.transaction() as connection:
            return self.ledger.append(connection, draft, envelope, public_key=self.signer.public_key)

    def video(self, prompt, sources, *, parts=(), part_of=None, withheld=None, model=CAMERA):
        planned = self.planned(prompt, sources, [part.planned for part in parts], model)
        name = repr(prompt)
        facts = VideoFacts(
            record_id=planned.step_id,
            planned=planned,
            raw=self.put(f"raw {name}", "video/mp4"),
            delivered=None if part_of or withheld else self.put(f"film {name}", "video/mp4"),
            withheld=withheld,
            for_step=part_of,
            status=None if parts else JobStatus(state="succeeded"),
            parts=tuple(PartFacts(planned=one.planned, raw=one.raw, record_id=one.record_id) for one in parts),
            reviews=self.reviews,
            **WHEN,
        )
        self.record(video_statement(facts, policy=Policy(), clock=self.clock))
        return facts

    def edit(self, source, prompt="blue shoes", count=2):
        mask = self.put(f"mask of {prompt}")
        request = EditRequest(operation="replace", image=source.conformed.media, mask=mask, prompt=prompt, count=count)
        facts = EditFacts(
            record_id=sha256_hex(f"edit {prompt}".encode()),
            planned=PlannedEdit(
                step_id=sha256_hex(f"edit {prompt}".encode()),
                brief=Brief(object_prompt="shoes", knowledge_base="brand"),
                generator="inpainter",
                model=PAINTER,
                request=request,
                source=source,
                estimate=Estimate(usd_micros=0),
            ),
            variants=tuple(self.put(f"{prompt} {number}") for number in range(count)),
            reviews=self.reviews,
            **WHEN,
        )
        self.record(edit_statement(facts, policy=Policy(), clock=self.clock))
        return facts

    def applied(self, facts, variant=1):
        return AppliedEdit(
            step_id=facts.record_id, operation="replace", media=facts.variants[variant - 1], variant=variant
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("lineage"))
    shoes, dog = made.source("shoes"), made.source("dog")
    edit = made.edit(shoes)
    edited = made.source("shoes", edits=[made.applied(edit, 2)])
    film = made.video("blue shoes, pans down", [edited])
    first = made.video("red shoes", [shoes], part_of="story")
    second = made.video("a dog", [dog], part_of="story")
    story = made.video(["red shoes", "a dog"], [], parts=[first, second])
    kept_back = made.video("a dog in the rain", [dog], withheld="the picture was revoked")
    words = made.video("a storm, from words", [])
    made.record(
        choice_statement(
            ChoiceFacts(
                record_id="choice",
                step_id="choice",
                options=(Option(media=film.raw, record_id=film.record_id, scores={}),),
                chosen=1,
                by="ann",
                is_person=True,
                **WHEN,
            ),
            policy=Policy(),
            clock=made.clock,
        )
    )
    made.ledger.add_receipt(
        kind="revocation",
        subject=dog.asset_id,
        by="ann",
        reason="asked to",
        sign=ReceiptSigner(made.signer, library_version="1", clock=made.clock),
    )
    made.facts = SimpleNamespace(
        shoes=shoes, dog=dog, edit=edit, edited=edited, film=film, first=first, second=second, story=story,
        kept_back=kept_back, words=words,
    )  # fmt: skip
    yield made
    made.database.close()


def shape(graph):
    """Every edge as (source kind, role, target kind)."""
    kind = {node_id: node.kind for node_id, node in graph.nodes.items()}
    return sorted((kind[edge.source], edge.role, kind[edge.target]) for edge in graph.edges)


def test_a_video_of_an_edited_picture_leads_back_to_picture_and_mask(world):
    facts = world.facts
    graph = sources_of(world.ledger, facts.film.record_id)
    assert graph.root == facts.film.delivered.sha256
    assert shape(graph) == [
        ("asset", "fit", "fitted"),
        ("edited", "fit", "fitted"),
        ("fitted", "picture", "edited"),
        ("fitted", "start_frame", "video"),
        ("mask", "mask", "edited"),
    ]
    (edited,) = graph.of_kind("edited")
    assert edited.id == facts.edit.variants[1].sha256, "the variant that went on, not the other"
    assert edited.records == (facts.edit.record_id,)
    assert (edited.title, edited.detail) == ("blue shoes", "replace, opencv-telea/1")
    (picture,) = graph.of_kind("asset")
    assert (picture.asset_id, picture.title) == (facts.shoes.asset_id, "caption of shoes")
    assert graph.nodes[graph.root].title == "blue shoes, pans down"


@pytest.mark.parametrize("name", ["record_id", "delivered", "raw"])
def test_a_video_has_one_node_whatever_names_it(world, name):
    named = getattr(world.facts.film, name)
    graph = sources_of(world.ledger, named if isinstance(named, str) else named.sha256)
    assert graph.root == world.facts.film.delivered.sha256
    assert len(graph.of_kind("video")) == 1


def test_a_joined_film_leads_through_its_parts(world):
    facts = world.facts
    graph = sources_of(world.ledger, facts.story.record_id)
    assert {edge.source for edge in graph.into(graph.root)} == {facts.first.raw.sha256, facts.second.raw.sha256}
    assert {node.title for node in graph.of_kind("part")} == {"red shoes", "a dog"}
    assert {node.asset_id for node in graph.of_kind("asset")} == {facts.shoes.asset_id, facts.dog.asset_id}


def test_a_picture_leads_to_everything_made_of_it(world):
    facts = world.facts
    graph = used_in(world.ledger, facts.shoes.asset_id)
    records = {record for node in graph.nodes.values() for record in node.records}
    assert records == {one.record_id for one in (facts.edit, facts.film, facts.first, facts.story)}
    assert {node.id for node in graph.of_kind("asset")} == {facts.shoes.asset_id}, "not what else they are made from"
    assert used_in(world.ledger, facts.shoes.original.sha256) == graph
    assert set(world.ledger.used_in(facts.shoes.asset_id)) >= {facts.film.record_id, facts.story.record_id}


def test_a_withheld_video_says_so_and_a_part_does_not(world):
    graph = used_in(world.ledger, world.facts.dog.asset_id)
    said = {node.title: node.detail for node in graph.of_kind("video", "part")}
    assert said["a dog in the rain"] == "camera-moves/1, withheld"
    assert said["a dog"] == "camera-moves/1"


def test_both_ways_from_the_middle(world):
    facts = world.facts
    graph = family(world.ledger, facts.edit.variants[1].sha256)
    assert graph.into(graph.root)
    assert [node.id for node in graph.of_kind("video")] == [facts.film.delivered.sha256]
    up, down = sources_of(world.ledger, graph.root), used_in(world.ledger, graph.root)
    assert set(up.joined(down).edges) == set(graph.edges)


def test_a_variant_that_was_not_taken_went_nowhere(world):
    graph = family(world.ledger, world.facts.edit.variants[0].sha256)
    assert graph.into(graph.root)
    assert not graph.out_of(graph.root)


def test_a_video_from_words_stands_alone(world):
    graph = family(world.ledger, world.facts.words.record_id)
    assert (len(graph.nodes), graph.edges) == (1, ())


def test_what_no_record_names_is_not_found(world):
    for key in ("f" * 64, f"brand/{'f' * 64}", "nothing"):
        with pytest.raises(NotFoundError, match="No record"):
            family(world.ledger, key)


def test_one_picture_in_two_knowledge_bases_is_two(tmp_path):
    world = World(tmp_path)
    for kb in ("brand", "archive"):
        world.video(f"a film of {kb}", [world.source("shoes", kb=kb)])
    by_asset = used_in(world.ledger, f"archive/{world.put('shoes', 'image/jpeg').sha256}")
    assert [node.title for node in by_asset.of_kind("video")] == ["a film of archive"]
    by_bytes = used_in(world.ledger, world.put("shoes", "image/jpeg").sha256)
    assert {node.title for node in by_bytes.of_kind("video")} == {"a film of brand", "a film of archive"}
    assert len(by_bytes.of_kind("asset")) == 2


def test_the_same_bytes_made_twice_have_both_records(tmp_path):
    world = World(tmp_path)
    source = world.source("shoes")
    first = world.video("red shoes", [source])
    facts = VideoFacts(
        record_id="again", planned=first.planned, raw=first.raw, delivered=first.delivered,
        status=JobStatus(state="succeeded"), reviews=world.reviews, **WHEN,
    )  # fmt: skip
    world.record(video_statement(facts, policy=Policy(), clock=world.clock))
    graph = sources_of(world.ledger, first.delivered.sha256)
    assert graph.nodes[graph.root].records == (first.record_id, "again")


def test_erased_words_leave_the_graph(tmp_path):
    world = World(tmp_path)
    film = world.video("red shoes", [world.source("shoes")])
    before = sources_of(world.ledger, film.record_id)
    world.ledger.erase_text(film.record_id, by="ann", reason="asked to")
    after = sources_of(world.ledger, film.record_id)
    assert (after.edges, list(after.nodes)) == (before.edges, list(before.nodes))
    assert {node.title for node in after.of_kind("asset", "video")} == {ERASED}
    assert "red shoes" not in repr(after) + lineage_picture(after) + "".join(lineage_tree(after, "up"))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda payload: payload.replace(b'"role"', b'"rule"'), VerificationError),
        (lambda payload: payload.replace(b"generate/v1", b"generate/v2"), FormatVersionError),
        (lambda payload: payload.replace(b"generate/v1", b"gen"), VerificationError),
        (lambda payload: b'{"predicate":[]}', VerificationError),
    ],
    ids=["no role", "newer", "another type", "no record"],
)
def test_a_record_that_cannot_be_read_is_an_error(tmp_path, change, error):
    world = World(tmp_path)
    film = world.planned("red shoes", [world.source("shoes")])
    facts = VideoFacts(
        record_id="r", planned=film, raw=world.put("raw"), delivered=world.put("film"),
        status=JobStatus(state="succeeded"), reviews=world.reviews, **WHEN,
    )  # fmt: skip
    draft = video_statement(facts, policy=Policy(), clock=world.clock)
    world.record(Draft(record_id="r", payload=change(draft.payload), lineage=draft.lineage))
    with pytest.raises(error):
        sources_of(world.ledger, "r")


# -- for people


def test_the_tree_shows_every_step_and_names_what_it_showed_already(world):
    lines = lineage_tree(sources_of(world.ledger, world.facts.film.record_id), "up")
    assert [line.strip(" │├└─").partition(":")[0] for line in lines[1:]] == [
        "start frame", "fit", "picture", "fit", "mask",
    ]  # fmt: skip
    assert lines[0].startswith(f'video  {world.facts.film.record_id[:12]}  "blue shoes, pans down"')
    down = lineage_tree(used_in(world.ledger, world.facts.dog.asset_id), "down")
    assert sum("a dog in the rain" in line for line in down) == 1


def hand_made(titles, edges):
    nodes = {
        f"{number:064x}": Node(id=f"{number:064x}", kind="video", sha256=f"{number:064x}", title=title, detail=title)
        for number, title in enumerate(titles)
    }
    made = tuple(Edge(source=f"{s:064x}", target=f"{t:064x}", role="shot") for s, t in edges)
    return LineageGraph(root=f"{len(titles) - 1:064x}", nodes=nodes, edges=made)


def test_hostile_titles_stay_text():
    title = "</text></svg><script>alert(1)</script>\x1b[31m\u202e]]>&\n" + "x" * 500
    graph = hand_made([title, title], [(0, 1)])
    for line in lineage_tree(graph, "up"):
        assert line.isprintable()
    drawn = ET.fromstring(lineage_picture(graph))
    assert not [
        one.tag for one in drawn.iter() if one.tag.removeprefix(SVG) in {"script", "image", "a", "foreignObject"}
    ]
    assert {one.tag.removeprefix(SVG) for one in drawn} == {"title", "style", "defs", "path", "g", "text"}
    assert not [name for one in drawn.iter() for name in one.attrib if name.startswith("on") or "href" in name]
    assert all(len(one.text) <= 60 for one in drawn.iter(f"{SVG}text"))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_picture_of_any_graph_has_every_box_and_runs_left_to_right(data):
    count = data.draw(st.integers(1, 9))
    titles = data.draw(st.lists(st.text(max_size=80), min_size=count, max_size=count))
    pairs = [(s, t) for t in range(count) for s in range(t)]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    graph = hand_made(titles, edges)
    drawn = ET.fromstring(lineage_picture(graph))
    assert lineage_tree(graph, "up")
    width, height = float(drawn.attrib["width"]), float(drawn.attrib["height"])
    boxes = [(float(one.attrib["x"]), float(one.attrib["y"])) for one in drawn.iter(f"{SVG}rect")]
    assert len(boxes) == len(set(boxes)) == count
    assert all(0 <= x <= width - 232 and 0 <= y <= height - 92 for x, y in boxes)
    for source, target in edges:
        assert boxes[source][0] < boxes[target][0]
    for column in {x for x, _ in boxes}:
        tops = sorted(y for x, y in boxes if x == column)
        assert all(lower - upper >= 92 for upper, lower in pairwise(tops)), "none covers another"


def test_bytes_that_made_each_other_end_too():
    graph = hand_made(["a", "b", "c"], [(0, 1), (1, 0), (1, 2)])
    assert lineage_tree(graph, "up")[-1].endswith("(above)")
    ET.fromstring(lineage_picture(graph))


def test_shortened_cuts_at_a_word():
    assert shortened("red shoes on a table", 40) == "red shoes on a table"
    assert shortened("red shoes on a wooden table", 20) == "red shoes on a…"
    assert shortened("x" * 100, 10) == "x" * 9 + "…"


# -- what changed since


def standing(world, source, **changes):
    """How one picture stands now."""
    asset = Asset(
        id=source.asset_id, knowledge_base="brand", original=source.original, file_name=source.file_name,
        caption=changes.pop("caption", source.caption), ingested_at="2026-01-01T00:00:00Z",
        rights=Rights(expires_on=changes.pop("expires_on", None)), erased_at=changes.pop("erased_at", None),
    )  # fmt: skip
    review = Review(
        asset_id=source.asset_id, **({"state": ReviewState.APPROVED, "by": "ann", "at": "2026-02-01"} | changes)
    )
    return Now(asset=lambda _: asset, review=lambda _: review)


@pytest.mark.parametrize(
    ("changes", "kinds", "since"),
    [
        ({}, [], None),
        ({"state": ReviewState.REVOKED, "reason": "asked to"}, ["picture revoked"], "2026-02-01"),
        ({"state": ReviewState.REJECTED}, ["picture rejected"], "2026-02-01"),
        ({"state": ReviewState.EXPIRED, "expires_on": "2026-01-31"}, ["picture expired"], "2026-01-31"),
        ({"sequence": 1}, ["picture reviewed again"], "2026-02-01"),
        ({"caption": "brown shoes"}, ["caption changed"], None),
        ({"erased_at": "2026-03-01", "caption": None, "state": ReviewState.REVOKED},
         ["picture erased", "picture revoked"], "2026-03-01"),
    ],
    ids=["nothing", "revoked", "rejected", "expired", "reviewed", "caption", "erased"],
)  # fmt: skip
def test_a_picture_that_changed_is_named(world, changes, kinds, since):
    found = stale(world.ledger, world.facts.film.record_id, standing(world, world.facts.shoes, **changes))
    assert [one.kind for one in found] == kinds
    assert all(one.what == world.facts.shoes.asset_id for one in found)
    assert not found or found[0].since == since


def test_a_picture_that_is_gone_is_named(world):
    found = stale(world.ledger, world.facts.story.record_id, Now(asset=lambda _: None))
    assert [(one.kind, one.what) for one in found] == [
        ("picture gone", world.facts.shoes.asset_id),
        ("picture gone", world.facts.dog.asset_id),
    ]


def test_models_and_templates_that_changed_are_named_through_every_step(world):
    now = Now(
        lifecycle=lambda model: ("retired", "2026-09-30") if model == PAINTER else None,
        model=lambda name: {"camera": ModelRef(provider="local", id="camera-moves/2"), "inpainter": PAINTER}[name],
        template=lambda: "<object_prompt> at noon",
    )
    found = {one.kind: one for one in stale(world.ledger, world.facts.film.record_id, now)}
    assert set(found) == {"model retired", "model changed", "template changed"}
    assert (found["model retired"].what, found["model retired"].since) == (str(PAINTER), "2026-09-30")
    assert "camera-moves/2" in found["model changed"].detail
    assert "at noon" in found["template changed"].detail
    assert stale(world.ledger, world.facts.film.record_id, Now()) == ()


def test_erased_words_are_not_said_to_have_changed(tmp_path):
    world = World(tmp_path)
    source = world.source("shoes")
    film = world.video("red shoes", [source])
    now = standing(world, source, caption="brown shoes")
    assert [one.kind for one in stale(world.ledger, film.record_id, now)] == ["caption changed"]
    world.ledger.erase_text(film.record_id, by="ann", reason="asked to")
    assert stale(world.ledger, film.record_id, now) == ()


# -- edits for a page


def test_an_edit_is_shown_with_before_mask_after_and_words(world):
    facts = world.facts

    def thumbnail(ref):
        with world.storage.open(ref) as stream:
            return stream.read()

    (shown,) = shown_edits(world.ledger, [facts.edited, facts.edited], thumbnail)
    assert (shown.operation, shown.prompt, shown.model) == ("replace", "blue shoes", str(PAINTER))
    assert shown.before == thumbnail(facts.edit.planned.request.image)
    assert shown.mask == thumbnail(facts.edit.planned.request.mask)
    assert shown.after == thumbnail(facts.edit.variants[1])
    assert shown_edits(world.ledger, [facts.shoes, facts.dog], thumbnail) == ()


def test_an_edit_without_a_record_shows_what_there_is(world):
    edit = AppliedEdit(step_id="gone", operation="erase", media=world.facts.edit.variants[0])
    (shown,) = shown_edits(world.ledger, [world.source("shoes", edits=[edit])], lambda ref: None)
    assert (shown.prompt, shown.before, shown.mask, shown.after) == (None, None, None, None)
