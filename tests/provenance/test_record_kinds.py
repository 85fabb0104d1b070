"""Records of every kind of step: edits, choices, films of parts and receipts; their schema, and the graph that they make."""

import gzip
import io
import json
from pathlib import Path

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ed25519
from film_facts import SECRETS, facts_of
from jsonschema import Draft202012Validator

from vrag.backends.local.storage import FolderStorage
from vrag.errors import ProvenanceError, VerificationError
from vrag.media.ref import MediaRef, sha256_hex
from vrag.provenance.audit import verify_workspace
from vrag.provenance.receipt import ReceiptSigner
from vrag.provenance.record import (
    ChoiceFacts,
    EditFacts,
    Option,
    PartFacts,
    choice_statement,
    edit_statement,
    video_statement,
)
from vrag.provenance.sidecar import sidecar_json
from vrag.provenance.signing import LocalSigner, sign_envelope
from vrag.provenance.statement import build_type, read_statement
from vrag.provenance.verify import verify_file
from vrag.testing import FakeClock
from vrag.values.briefs import AppliedEdit, Brief, Edit, PlannedEdit, ShotBrief
from vrag.values.jobs import JobStatus
from vrag.values.policy import Policy
from vrag.values.requests import EditRequest
from vrag.workspace import Workspace
from vrag.workspace.db import Database
from vrag.workspace.ledger import Ledger

KEY = LocalSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "record.schema.json"
EDIT_SECRETS = ("a violet umbrella", "the dull lamp post", "no rain at all")


def media(name, media_type="video/mp4"):
    return MediaRef(sha256=sha256_hex(name.encode()), media_type=media_type, size_bytes=len(name), width_px=1280)


class Works:
    """Makes facts and records of one small production: a picture, an edit in two variants, two shots, one film."""

    def __init__(self, folder):
        self.database = Database(folder / "studio" / "vrag.db", clock=FakeClock())
        self.ledger = Ledger(self.database, FakeClock())
        self.storage = FolderStorage(folder / "media")
        self.base = facts_of(self.storage)
        self.source = self.base.planned.sources[0]
        self._seed = 0

    def clock(self):
        self._seed += 1
        return FakeClock(seed=self._seed)

    def add(self, draft):
        with self.database.transaction() as connection:
            return self.ledger.append(connection, draft, sign_envelope(draft.payload, KEY), public_key=KEY.public_key)

    def edit(self, **changes):
        planned = PlannedEdit(
            step_id="ed" * 32,
            brief=Brief(
                object_prompt="red shoes on granite",
                edits=(Edit(operation="replace", prompt=EDIT_SECRETS[0], mask_prompt=EDIT_SECRETS[1], count=2),),
            ),
            generator="editor",
            model=self.base.planned.model,
            request=EditRequest(
                operation="replace",
                image=self.source.conformed.media,
                mask=media("mask", "image/png"),
                mask_prompt=EDIT_SECRETS[1],
                prompt=EDIT_SECRETS[0],
                negative_prompt=EDIT_SECRETS[2],
                count=2,
                seed=3,
            ),
            source=self.source,
            estimate=self.base.planned.estimate,
        )
        known = {
            "record_id": planned.step_id,
            "planned": planned,
            "variants": (media("variant 1", "image/png"), media("variant 2", "image/png")),
            "report": {"radius": 5, "said": "drew an umbrella"},
            "rejected": ("the umbrella looked odd",),
            "billed": True,
            "reviews": self.base.reviews,
            "lifecycle": {"state": "active", "ends_on": None},
            "started_at": "2026-01-02T00:00:00.000000Z",
            "finished_at": "2026-01-02T00:00:05.000000Z",
            "library_version": "0.1.0",
        }
        return edit_statement(EditFacts(**(known | changes)), policy=Policy(), clock=self.clock())

    def choice(self, **changes):
        options = tuple(
            Option(media=media(f"variant {one}", "image/png"), record_id="ed" * 32, scores={"aesthetic": 0.5 + one})
            for one in (1, 2)
        )
        known = {
            "record_id": "c0" * 32,
            "step_id": "c0" * 32,
            "options": options,
            "chosen": 2,
            "by": "Ada Reviewer",
            "is_person": True,
            "reason": "looks good to Ada",
            "started_at": "2026-01-02T00:00:00.000000Z",
            "finished_at": "2026-01-02T00:00:05.000000Z",
            "library_version": "0.1.0",
        }
        return choice_statement(ChoiceFacts(**(known | changes)), policy=Policy(), clock=self.clock())

    def edited_source(self):
        applied = AppliedEdit(step_id="ed" * 32, operation="replace", media=media("variant 2", "image/png"), variant=2)
        fitted = evolve(self.source.conformed, media=media("fitted edit", "image/png"))
        return evolve(self.source, conformed=fitted, edits=(applied,))

    def shot(self, number):
        source = self.edited_source() if number == 1 else self.source
        planned = evolve(self.base.planned, step_id=f"{number:02x}" * 32, sources=(source,))
        return evolve(
            self.base,
            record_id=planned.step_id,
            planned=planned,
            raw=media(f"shot {number}"),
            delivered=None,
            delivered_name=None,
            for_step="ff" * 32,
        )

    def film(self, **changes):
        parts = tuple(
            PartFacts(planned=self.shot(one).planned, raw=media(f"shot {one}"), record_id=self.shot(one).record_id)
            for one in (1, 2)
        )
        brief = Brief(shots=(ShotBrief(object_prompt="red shoes on granite"), ShotBrief()), crossfade_s=0.5)
        planned = evolve(
            self.base.planned,
            step_id="ff" * 32,
            brief=brief,
            sources=(),
            parts=tuple(part.planned for part in parts),
            crossfade_s=0.5,
        )
        facts = evolve(
            self.base,
            record_id="ff" * 32,
            planned=planned,
            parts=parts,
            raw=media("film"),
            delivered=media("delivered film"),
            handle=None,
            status=None,
            marks=[{"kind": "label", "text": "AI"}, {"kind": "c2pa", "sha256": "0" * 64}],
            **changes,
        )
        return video_statement(facts, policy=Policy(), clock=self.clock())

    def part(self, number):
        return video_statement(self.shot(number), policy=Policy(), clock=self.clock())

    def receipt(self):
        sign = ReceiptSigner(KEY, library_version="0.1.0", clock=self.clock())
        body = {
            "review": {"by": "Ada Reviewer", "state": "revoked", "reason": "looks good to Ada"},
            "videos": ["0" * 64],
        }
        self.ledger.add_receipt(
            kind="revocation",
            subject=self.source.asset_id,
            by="Ada Reviewer",
            reason="looks good to Ada",
            body=body,
            sign=sign,
        )
        return self.ledger.get(self.ledger.receipts()[-1].record_id)


@pytest.fixture
def works(tmp_path):
    made = Works(tmp_path)
    yield made
    made.database.close()


def payloads(works):
    for draft in (
        video_statement(works.base, policy=Policy(), clock=works.clock()),
        video_statement(works.base, policy=Policy(text="text"), clock=works.clock()),
        video_statement(
            evolve(
                works.base,
                delivered=None,
                withheld="revoked",
                lifecycle={"state": "legacy"},
                status=JobStatus(state="lost"),
            ),
            policy=Policy(),
            clock=works.clock(),
        ),
        works.edit(),
        works.choice(),
        works.choice(by="highest mean", is_person=False, reason=None),
        works.part(1),
        works.film(),
    ):
        yield json.loads(draft.payload)
    yield works.receipt().statement


def test_records_of_the_first_release_have_it_too(tmp_path):
    packed = Path(__file__).parents[1] / "workspace" / "fixtures" / "workspace-1.db.gz"
    (tmp_path / "vrag.db").write_bytes(gzip.decompress(packed.read_bytes()))
    workspace = Workspace(tmp_path)
    schema = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for entry in workspace.ledger.entries():
        schema.validate(entry.statement)
        key = entry.public_key
    found = verify_workspace(workspace, trusted_keys=[key])
    assert found.ok, found.first_failure
    assert {check.name for check in found.checks if check.ok is None} >= {"tree", "checkpoints", "outside", "receipts"}
    workspace.close()


def closed(schema):
    """The schema with every object closed: a member that it does not describe fails."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(one) for key, one in schema.items()}
    if schema.get("type") == "object" and "properties" in schema and "required" in schema:
        made.setdefault("additionalProperties", False)
    return made


def test_every_record_has_the_form_of_the_published_schema(works):
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    validators = Draft202012Validator(schema), Draft202012Validator(closed(schema))
    kinds = set()
    for statement in payloads(works):
        for validator in validators:
            errors = [f"{error.json_path}: {error.message}"[:500] for error in validator.iter_errors(statement)]
            assert errors == []
        kinds.add(statement["predicate"]["buildDefinition"]["buildType"])
    assert kinds == {build_type(kind) for kind in ("generate", "assemble", "edit", "choose", "receipt")}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("predicateType",), "https://slsa.dev/provenance/v2"),
        (("subject",), []),
        (("subject", 0, "digest", "sha256"), "zz"),
        (("predicate", "buildDefinition", "resolvedDependencies", 0, "annotations", "review"), None),
        (("predicate", "buildDefinition", "internalParameters", "record", "kind"), "edit"),
        (("predicate", "buildDefinition", "externalParameters", "object_prompt"), "red shoes"),
    ],
)
def test_the_schema_refuses_what_is_no_record(works, path, value):
    statement = next(iter(payloads(works)))
    place = statement
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert not Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).is_valid(statement)


def test_the_published_schema_is_the_one_in_the_package():
    packaged = Path(__file__).parents[2] / "src" / "vrag" / "provenance" / "schema" / "record.schema.json"
    assert packaged.read_bytes() == SCHEMA.read_bytes()


def test_lineage_is_a_graph_through_edits_choices_and_parts(works):
    for draft in (works.edit(), works.choice(), works.part(1), works.part(2), works.film()):
        works.add(draft)
    ledger, picture = works.ledger, works.source
    everything = ("ed" * 32, "c0" * 32, "01" * 32, "02" * 32, "ff" * 32)
    assert ledger.used_in(picture.asset_id) == everything
    assert ledger.used_in(media("variant 2").sha256) == ("c0" * 32, "01" * 32, "ff" * 32)
    assert ledger.used_in(media("variant 1").sha256)[0] == "c0" * 32
    assert ledger.used_in(media("shot 2").sha256) == ("ff" * 32,)
    film = read_statement(works.film().payload)
    assert film.kind == "assemble"
    assert [(one.role, one.sha256) for one in film.lineage.inputs[:2]] == [
        ("part", media("shot 1").sha256),
        ("part", media("shot 2").sha256),
    ]
    named = {one.asset_id for one in film.lineage.inputs if one.asset_id}
    assert named == {picture.asset_id}
    assert len([one for one in film.lineage.inputs if one.asset_id]) == 1  # used twice, stands once


def test_a_video_names_the_edits_of_its_picture_and_their_records(works):
    dependencies = json.loads(works.part(1).payload)["predicate"]["buildDefinition"]["resolvedDependencies"]
    original, edited, fitted = dependencies
    assert original["annotations"]["kind"] == "asset"
    assert edited["annotations"]["record_id"] == "ed" * 32
    assert (edited["annotations"]["operation"], edited["annotations"]["variant"]) == ("replace", 2)
    assert edited["annotations"]["made_from"] == original["digest"]["sha256"]
    assert fitted["annotations"]["made_from"] == edited["digest"]["sha256"]


def test_edits_and_choices_hide_the_words_of_people(works):
    for draft in (works.edit(), works.choice(), works.film(), works.part(1)):
        for word in (*SECRETS, *EDIT_SECRETS, "umbrella"):
            assert word.encode() not in draft.payload, word
        kept = {text.keyed_digest for text in draft.texts}
        assert kept == read_statement(draft.payload).keyed_digests
    assert b"umbrella" not in works.receipt().envelope


def test_a_receipt_hides_who_and_why_and_made_nothing(works):
    works.add(works.edit())
    entry = works.receipt()
    payload = json.dumps(entry.statement)
    for word in ("Ada", "good"):
        assert word not in payload
    asked = entry.statement["predicate"]["buildDefinition"]["externalParameters"]
    assert asked["receipt"] == "revocation"
    assert asked["body"]["review"]["state"] == "revoked"
    assert asked["body"]["videos"] == ["0" * 64]
    assert works.ledger.by_artefact(works.source.original.sha256) == ()
    assert works.ledger.used_in(works.source.asset_id) == ("ed" * 32,)
    assert "Ada Reviewer" in {text.value for text in works.ledger.texts(entry.record_id)}


def test_the_record_beside_a_video_is_that_of_its_making_not_of_its_choice(works):
    film = b"a film"
    made = MediaRef(sha256=sha256_hex(film), media_type="video/mp4", size_bytes=len(film))
    facts = evolve(works.base, raw=made, delivered=made)
    works.add(video_statement(facts, policy=Policy(), clock=works.clock()))
    works.add(works.choice(options=(Option(media=made, record_id=facts.record_id, scores={}),), chosen=1))
    found = verify_file(io.BytesIO(film), trusted_keys=[KEY.public_key], ledger=works.ledger)
    assert (found.ok, found.kind) == (True, "generate")


def test_a_part_is_not_a_video_that_was_delivered(works):
    draft = works.part(1)
    entry = works.add(draft)
    found = verify_file(io.BytesIO(b"shot 1"), sidecar_json(entry), trusted_keys=[KEY.public_key])
    assert "given to another step" in found.first_failure.detail


def test_content_credentials_are_checked_where_a_reader_is_given(works):
    film = b"a film"
    made = MediaRef(sha256=sha256_hex(film), media_type="video/mp4", size_bytes=len(film))
    entry = works.add(
        video_statement(evolve(works.base, raw=made, delivered=made), policy=Policy(), clock=works.clock())
    )
    seen = []
    answers = {"valid": True, None: None, "broken": False}
    left = [*answers]

    def read(video, statement):
        seen.append((video.read(), statement["subject"][0]["name"]))
        answer = left.pop(0)
        if answer == "broken":
            raise VerificationError("the manifest was stripped", promise="x")
        return answer

    for ok in answers.values():
        found = verify_file(io.BytesIO(film), sidecar_json(entry), credentials=read)
        assert next(check.ok for check in found.checks if check.name == "credentials") is ok
        assert seen.pop() == (film, "delivered")
    assert found.first_failure.promise == "The file carries the content credentials that the record lists"


def test_marks_stay_readable_and_repeat_no_word_of_the_prompt(works):
    marks = [
        {
            "kind": "label",
            "text": "granite",
            "details": {"said": "red shoes on granite", "url": "https://a:b@host/x?key=1"},
        },
        "none: red granite",
    ]
    planned = evolve(works.base.planned, brief=Brief(object_prompt="granite, with kind details and text"))
    draft = video_statement(evolve(works.base, planned=planned, marks=marks), policy=Policy(), clock=works.clock())
    written = json.loads(draft.payload)["subject"][0]["annotations"]["marks"]
    assert written[0]["kind"] == "label"
    assert set(written[0]["text"]) == {"hmac-sha256"}
    assert written[0]["details"]["url"] == "https://host/x"
    assert set(written[0]["details"]["said"]) == {"hmac-sha256"}
    assert written[1] == "none: red granite"


def test_what_cannot_be_recorded_is_refused(works):
    with pytest.raises(ProvenanceError, match="no picture"):
        works.edit(variants=())
    with pytest.raises(ProvenanceError, match="there are 1 to 2"):
        works.choice(chosen=3)
    with pytest.raises(ProvenanceError, match="has no review"):
        works.edit(reviews={})
    with pytest.raises(ProvenanceError, match="either delivered"):
        video_statement(evolve(works.base, for_step="x"), policy=Policy(), clock=works.clock())
