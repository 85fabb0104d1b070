"""The statement: what it names, what it hides, and that a paid video can always be recorded."""

import hashlib
import json
import math

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vrag.errors import FormatVersionError, ProvenanceError, VerificationError
from vrag.provenance.record import Commitments, video_statement
from vrag.provenance.statement import NAMESPACE, build_type, keyed_digest, read_statement
from vrag.testing import FakeClock
from vrag.values.canonical import canonical_json
from vrag.values.jobs import JobStatus
from vrag.values.policy import Policy
from vrag.workspace.ledger import LineageInput


def statement(recorded, **changes):
    facts = evolve(recorded.facts, **changes)
    return json.loads(video_statement(facts, policy=Policy(), clock=FakeClock(seed=3)).payload)


def strings(value):
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)
    elif isinstance(value, str):
        yield value


def test_it_names_all_that_the_video_was_made_of(recorded):
    made = statement(recorded)
    facts, planned = recorded.facts, recorded.facts.planned
    source = planned.sources[0]
    assert made["_type"] == "https://in-toto.io/Statement/v1"
    assert made["predicateType"] == "https://slsa.dev/provenance/v1"
    assert {one["name"]: one["digest"]["sha256"] for one in made["subject"]} == {
        "delivered": facts.delivered.sha256,
        "raw": facts.raw.sha256,
    }
    build, run = made["predicate"]["buildDefinition"], made["predicate"]["runDetails"]
    assert build["buildType"] == build_type("generate") == f"{NAMESPACE}generate/v1"
    original, fitted = build["resolvedDependencies"]
    assert original["digest"]["sha256"] == source.original.sha256
    assert original["annotations"]["asset_id"] == source.asset_id
    assert original["annotations"]["rights"]["licence"] == "CC0-1.0"
    assert original["annotations"]["review"]["state"] == "approved"
    assert fitted["digest"]["sha256"] == source.conformed.media.sha256
    assert fitted["annotations"]["crop_px"] == [0, 10, 1280, 730]
    assert fitted["annotations"]["made_from"] == source.original.sha256
    internal = build["internalParameters"]
    assert internal["generator"] == {
        "name": "camera",
        "provider": "local",
        "id": "camera-moves/1",
        "region": None,
        "account": None,
        "lifecycle": None,
    }
    assert internal["candidates"][0] == {
        "asset_id": source.asset_id,
        "cosine": 0.61,
        "word_rank": 1,
        "fused_score": 0.27,
        "chosen": True,
        "excluded": None,
    }
    assert internal["candidates"][1]["excluded"] == "review state proposed"
    assert internal["request"]["shots"][0]["camera"] == ["tilt down"]
    assert internal["request"]["fps"] == 24
    assert internal["unmet"][0]["field"] == "shots[0].prompt"
    assert internal["estimate"]["usd_micros"] == 0
    assert run["metadata"]["vrag_job"]["report"]["encoder"] == "libx264"
    assert run["metadata"]["vrag_job"]["report"]["moves"] == ["tilt down"]
    assert run["metadata"]["invocationId"] == planned.step_id


def test_it_hides_words_and_every_plain_hash_of_them(recorded, words):
    payload = recorded.draft.payload
    shown = set(strings(json.loads(payload)))
    for word in words:
        assert word.encode() not in payload
        for spelling in (word, word.casefold(), word.upper(), json.dumps(word)):
            for name in ("md5", "sha1", "sha256", "sha512"):
                assert not any(hashlib.new(name, spelling.encode()).hexdigest() in text for text in shown)
    # a report may not repeat a single word of the prompt either
    assert b"granite" not in payload
    kept = {text.value for text in recorded.draft.texts}
    assert {word for word in words if word not in kept} <= {"spring campaign", "confidential-tag"}  # inside JSON texts
    assert len({text.key for text in recorded.draft.texts}) == len(recorded.draft.texts)


def test_every_text_opens_its_digest_and_every_digest_has_its_text(recorded):
    read = read_statement(recorded.draft.payload)
    for text in recorded.draft.texts:
        assert keyed_digest(text.key, text.kind, text.value) == text.keyed_digest
    assert {text.keyed_digest for text in recorded.draft.texts} == read.keyed_digests


def test_policy_text_puts_the_words_beside_their_digests(recorded):
    open_record = video_statement(recorded.facts, policy=Policy(text="text"), clock=FakeClock())
    shots = json.loads(open_record.payload)["predicate"]["buildDefinition"]["internalParameters"]["request"]["shots"]
    assert shots[0]["prompt"]["text"] == "red shoes on granite, camera pans down swiftly"
    assert read_statement(open_record.payload).keyed_digests == {one.keyed_digest for one in open_record.texts}


def test_lineage_is_what_the_statement_says(recorded):
    source = recorded.facts.planned.sources[0]
    assert recorded.draft.lineage.inputs == (
        LineageInput(
            sha256=source.original.sha256, role="start_frame", asset_id=source.asset_id, knowledge_base="brand"
        ),
        LineageInput(sha256=source.conformed.media.sha256, role="start_frame"),
    )


def test_a_withheld_video_has_a_reason_and_no_delivered_file(recorded):
    draft = video_statement(
        evolve(recorded.facts, delivered=None, withheld="the picture was revoked"), policy=Policy(), clock=FakeClock()
    )
    assert set(draft.lineage.subjects) == {"raw"}
    with pytest.raises(ProvenanceError, match="either delivered"):
        video_statement(evolve(recorded.facts, delivered=None), policy=Policy(), clock=FakeClock())
    with pytest.raises(ProvenanceError, match="has no review"):
        video_statement(evolve(recorded.facts, reviews={}), policy=Policy(), clock=FakeClock())


def test_credentials_in_a_report_are_left_out(recorded):
    url = "https://user:hunter2@bucket.s3.amazonaws.com/out.mp4?X-Amz-Signature=deadbeef&X-Amz-Credential=AKIA"
    status = JobStatus(state="succeeded", report={"output": url, "log": f"wrote {url} well"})
    made = video_statement(evolve(recorded.facts, status=status), policy=Policy(), clock=FakeClock())
    assert b"deadbeef" not in made.payload
    assert b"hunter2" not in made.payload
    assert not any("deadbeef" in text.value or "hunter2" in text.value for text in made.texts)
    report = json.loads(made.payload)["predicate"]["runDetails"]["metadata"]["vrag_job"]["report"]
    assert report["output"] == "https://bucket.s3.amazonaws.com/out.mp4"


ANY_REPORT = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=8)
    | st.text(alphabet=st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("hmac-sha256"), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(report=ANY_REPORT, name=st.text(alphabet=st.characters(exclude_categories=())))
def test_whatever_a_provider_reports_a_paid_video_is_recorded(recorded, report, name):
    facts = evolve(recorded.facts, status=JobStatus(state="succeeded", report=report), delivered_name=name)
    draft = video_statement(facts, policy=Policy(), clock=FakeClock())
    assert canonical_json(json.loads(draft.payload)) == draft.payload
    assert {text.keyed_digest for text in draft.texts} == read_statement(draft.payload).keyed_digests


def test_numbers_that_json_cannot_keep_become_text(recorded):
    deep = []
    for _ in range(2000):
        deep = [deep]
    report = {"job": 2**63, "loss": math.nan, "raw": b"\0", "deep": deep}
    made = statement(recorded, status=JobStatus(state="succeeded", report=report))
    kept = made["predicate"]["runDetails"]["metadata"]["vrag_job"]["report"]
    assert (kept["job"], kept["loss"], kept["raw"]) == ("0x8000000000000000", "nan", "(bytes)")


def change(path, value):
    def broken(content):
        *way, last = path
        at = content
        for step in way:
            at = at[step]
        if value is ...:
            del at[last]
        else:
            at[last] = value
        return content

    return broken


BUILD = ("predicate", "buildDefinition")
DEPENDENCY = (*BUILD, "resolvedDependencies", 0)
BROKEN = {
    "digest is not hexadecimal": change(("subject", 0, "digest", "sha256"), "zz"),
    "digest is upper case": change(("subject", 0, "digest", "sha256"), "A" * 64),
    "digest is missing": change(("subject", 0, "digest"), {}),
    "two subjects of one name": change(("subject", 0, "name"), "raw"),
    "no subject": change(("subject",), []),
    "subject is a text": change(("subject",), "raw"),
    "foreign build type": change((*BUILD, "buildType"), "https://slsa.dev/container/v1"),
    "kind of another step": change((*BUILD, "buildType"), build_type("edit")),
    "input without role": change((*DEPENDENCY, "annotations", "role"), ...),
    "input of no kind": change((*DEPENDENCY, "annotations", "kind"), "thing"),
    "asset id of other bytes": change((*DEPENDENCY, "digest", "sha256"), "0" * 64),
    "record without id": change((*BUILD, "internalParameters", "record", "id"), ""),
    "keyed digest too short": change((*BUILD, "internalParameters", "notes", 0, "hmac-sha256"), "abcd"),
    "number past 2**53": change((*BUILD, "internalParameters", "request", "seed"), 2**53 + 1),
    "other statement": change(("_type",), "https://example.org/Statement/v1"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_statement_of_another_form_is_refused(recorded, broken):
    content = BROKEN[broken](json.loads(recorded.draft.payload))
    with pytest.raises(VerificationError):
        read_statement(json.dumps(content).encode())


@pytest.mark.parametrize(
    "path_and_value",
    [
        (("_type",), "https://in-toto.io/Statement/v2"),
        (("predicateType",), "https://slsa.dev/provenance/v2"),
        ((*BUILD, "buildType"), f"{NAMESPACE}generate/v2"),
    ],
)
def test_a_newer_record_names_the_remedy(recorded, path_and_value):
    content = change(*path_and_value)(json.loads(recorded.draft.payload))
    with pytest.raises(FormatVersionError, match="pip install --upgrade vrag"):
        read_statement(json.dumps(content).encode())


def test_a_step_of_a_later_kind_with_this_shape_is_read(recorded):
    content = json.loads(recorded.draft.payload)
    content["predicate"]["buildDefinition"]["buildType"] = build_type("choose")
    content["predicate"]["buildDefinition"]["internalParameters"]["record"]["kind"] = "choose"
    assert read_statement(json.dumps(content).encode()).kind == "choose"


def test_a_text_is_bound_to_its_kind():
    commit = Commitments(FakeClock())
    commit("prompt", "red shoes")
    (text,) = commit.texts
    assert keyed_digest(text.key, "caption", "red shoes") != text.keyed_digest
