"""The steps of marking together: their order, what survives them, and what the record catches that C2PA leaves out."""

import errno
import io
import json
import sys
from importlib.resources import files

import pytest
from attrs import evolve

from vrag.errors import ConfigError, MissingExtraError, ProvenanceError, UsageError
from vrag.media.ref import MediaRef, sha256_hex
from vrag.media.video import probe_video
from vrag.provenance.certificates import development_signer, read_anchors
from vrag.provenance.credentials import GivenPicture, credentials_mismatch, read_credentials
from vrag.provenance.label import Label
from vrag.provenance.marking import (
    Marking,
    MarkingFacts,
    check_marking,
    finish,
    given_pictures,
)
from vrag.provenance.metadata import Aigc, append_xmp, read_aigc, read_xmp
from vrag.provenance.record import video_statement
from vrag.provenance.sidecar import sidecar_json, sidecar_path
from vrag.provenance.signing import sign_envelope
from vrag.provenance.verify import verify_file
from vrag.testing import FakeClock, make_film
from vrag.testing.watermark import FakeWatermarker
from vrag.values.briefs import AppliedEdit
from vrag.values.canonical import from_json, to_json
from vrag.values.policy import Policy
from vrag.values.requests import ModelRef, Shot, VideoRequest

pytest.importorskip("c2pa", reason="c2pa-python is not installed: pip install 'vrag[local]'")

PHOTO = (files("vrag") / "demo" / "photos" / "osprey-on-branch.jpg").read_bytes()
PICTURE = MediaRef(sha256=sha256_hex(PHOTO), media_type="image/jpeg", size_bytes=len(PHOTO))
RECORD = "1e" * 32
EVERYTHING = Marking(
    label=Label(text="AI-generated", size_fraction=0.08),
    aigc=Aigc(producer="某公司 <studio> & co", propagator="portal"),
)


def a_film():
    out = io.BytesIO()
    request = VideoRequest(shots=(Shot(prompt="x", duration_s=1.0),), width_px=320, height_px=180, fps=12)
    make_film(request, {0: PHOTO}, out)
    return out.getvalue()


FILM = a_film()
FACTS = MarkingFacts(
    record_id=RECORD,
    raw_sha256=sha256_hex(FILM),
    model=ModelRef(provider="aws-bedrock", id="luma.ray/v2", region="us-west-2"),
    origin="trained_model",
    pictures=(
        GivenPicture(asset_id=f"brand/{'cd' * 32}", role="start_frame", original_sha256="cd" * 32, given=PICTURE),
    ),
    library_version="0.1.0",
)


def photo(_ref):
    return io.BytesIO(PHOTO)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("c2pa")


@pytest.fixture(scope="module")
def mark(folder):
    signer = development_signer(folder)

    def run(marking, *, film=FILM, facts=FACTS, out=None, **more):
        out = io.BytesIO() if out is None else out
        options = {"media": photo, "signer": signer, "anchors": read_anchors(folder)} | more
        return out, finish(io.BytesIO(film), out, facts, marking, **options)

    return run


def test_by_default_a_film_is_signed_and_says_what_made_it(mark):
    out, done = mark(Marking())
    assert [one.step for one in done.marks] == ["iptc", "c2pa"]
    assert done.lines[1] == "c2pa: trainedAlgorithmicMedia, development certificate: valid, not trusted"
    assert (done.sha256, done.size_bytes) == (sha256_hex(out.getvalue()), len(out.getvalue()))
    assert (done.credentials.state, done.manifest) == ("Trusted", None)
    assert read_xmp(out) == {
        "Iptc4xmpExt:DigitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
        "Iptc4xmpExt:AISystemUsed": "aws-bedrock luma.ray",
        "Iptc4xmpExt:AISystemVersionUsed": "v2",
        "dc:identifier": RECORD,
        "xmp:CreatorTool": "vrag",
    }
    assert probe_video(out) == probe_video(io.BytesIO(FILM))


def test_every_mark_is_made_in_order_and_survives_the_ones_after_it(mark):
    watermarker = FakeWatermarker()
    out, done = mark(EVERYTHING, watermarker=watermarker)
    assert [one.step for one in done.marks] == ["label", "watermark", "aigc", "iptc", "c2pa"]
    assert json.loads(json.dumps(to_json(done.marks)))[0]["details"]["text"] == "AI-generated"
    assert read_aigc(out) == {
        "Label": "1",
        "ContentProducer": "某公司 <studio> & co",
        "ProduceID": RECORD,
        "ReservedCode1": "",
        "ContentPropagator": "portal",
        "PropagateID": RECORD,
        "ReservedCode2": "",
    }
    assert read_xmp(out)["dc:identifier"] == RECORD
    [binding] = done.credentials.soft_bindings
    assert (binding.algorithm, binding.value) == (watermarker.algorithm, FakeWatermarker.detect(out))
    assert done.credentials.state == "Trusted"
    before, after = probe_video(io.BytesIO(FILM)), probe_video(out)
    assert before == after


def test_no_credentials_is_explicit_and_recorded(mark):
    out, done = mark(Marking(credentials="none", iptc=False), signer=None)
    assert done.lines == ("none: no content credentials, as configured",)
    assert out.getvalue() == FILM
    assert (done.credentials.state, done.manifest) == ("none", None)


def test_without_a_signer_nothing_is_delivered_unmarked(mark):
    with pytest.raises(ConfigError, match="need a signer"):
        mark(Marking(), signer=None)
    with pytest.raises(ConfigError, match="need a signer"):
        check_marking(Marking(), width_px=320, height_px=180)


def test_without_the_library_it_says_what_to_install_and_none_still_works(mark, monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(MissingExtraError, match="marking none") as caught:
        check_marking(Marking(), width_px=320, height_px=180, signer=development_signer(folder))
    assert caught.value.hint == "pip install 'vrag[local]'"
    assert mark(Marking(credentials="none"))[1].lines[-1].startswith("none: ")


def test_a_camera_move_is_not_called_artificial_intelligence(mark):
    facts = evolve(FACTS, origin="algorithm", model=ModelRef(provider="local", id="camera-moves/1"))
    out, done = mark(Marking(aigc=Aigc(producer="studio")), facts=facts)
    assert done.lines[0] == "aigc: not written: no trained model made or changed this film"
    assert read_aigc(out) is None
    assert "Iptc4xmpExt:AISystemUsed" not in read_xmp(out)
    assert done.credentials.digital_source_type == "algorithmicallyEnhanced"


def test_the_models_own_credentials_are_kept_through_label_and_metadata(mark, tmp_path):
    vendor = development_signer(tmp_path / "vendor")
    theirs, _ = mark(Marking(iptc=False), signer=vendor, facts=evolve(FACTS, pictures=()))
    film = theirs.getvalue()
    for marking in (Marking(), EVERYTHING):
        out, done = mark(marking, film=film, facts=evolve(FACTS, raw_sha256=sha256_hex(film)))
        assert "the model's own credentials kept" in done.lines[-1]
        assert done.marks[-1].details["parent"]["state"] == "Valid"
        relations = [one.relationship for one in done.credentials.ingredients]
        assert relations == ["parentOf", "inputTo"]
        assert read_credentials(out).state == "Valid"


def test_marks_that_a_film_came_with_stay(mark):
    theirs, _ = mark(Marking(credentials="none", aigc=Aigc(producer="the vendor"), iptc=False))
    film = theirs.getvalue()
    out, _ = mark(Marking(label=EVERYTHING.label), film=film, facts=evolve(FACTS, raw_sha256=sha256_hex(film)))
    assert read_aigc(out)["ContentProducer"] == "the vendor"


def test_a_container_without_a_place_has_its_manifest_beside_it(mark):
    film = b"\x1a\x45\xdf\xa3" + bytes(5000)
    facts = evolve(FACTS, raw_sha256=sha256_hex(film), media_type="video/webm")
    out, done = mark(Marking(aigc=Aigc(producer="studio")), film=film, facts=facts)
    assert out.getvalue() == film
    assert done.lines[0] == "aigc: not written: video/webm has no place for it"
    assert done.lines[1].endswith(", in a file beside it")
    assert read_credentials(io.BytesIO(film), "video/webm", manifest=done.manifest).record_id == RECORD
    with pytest.raises(UsageError, match="not on video/webm"):
        mark(EVERYTHING, film=film, facts=facts)


def test_the_manifest_has_no_word_of_a_person(mark, recorded, words):
    [source] = recorded.facts.planned.sources
    edited = evolve(source, edits=(AppliedEdit(step_id="e", operation="erase", media=source.original),))
    [plain], [painted] = given_pictures((source,)), given_pictures((edited,))
    assert (plain.edited_by_model, painted.edited_by_model) == (False, True)
    facts = evolve(FACTS, pictures=(evolve(plain, given=PICTURE),))
    out, done = mark(Marking(), facts=facts)
    assert (
        credentials_mismatch(
            done.credentials, record_id=RECORD, raw_sha256=FACTS.raw_sha256, given=[(source.asset_id, PICTURE.sha256)]
        )
        is None
    )
    assert not [word for word in words if word.encode() in out.getvalue()]


def test_other_bytes_than_were_recorded_are_not_signed(mark):
    with pytest.raises(ProvenanceError, match="other bytes than were recorded"):
        mark(Marking(), film=FILM[:-1])


# -- files


def test_a_path_gets_the_whole_film_or_nothing(mark, tmp_path):
    path = tmp_path / "film.mp4"
    _, done = mark(EVERYTHING, out=path)
    assert sha256_hex(path.read_bytes()) == done.sha256
    with pytest.raises(ProvenanceError):
        mark(Marking(), out=tmp_path / "other.mp4", media=lambda _ref: io.BytesIO(b"other bytes"))
    assert [one.name for one in tmp_path.iterdir()] == ["film.mp4"]


def test_a_film_that_is_there_is_kept_when_marking_fails(mark, tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"before")
    with pytest.raises(ProvenanceError):
        mark(Marking(), out=path, media=lambda _ref: io.BytesIO(b"other bytes"))
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("marking", [Marking(), EVERYTHING, Marking(credentials="none")])
def test_a_full_disk_is_told(mark, marking):
    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() + len(data) > 5000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    with pytest.raises(ProvenanceError, match="disk is full"):
        mark(marking, out=Full())


def test_a_film_whose_end_is_open_gets_no_box_after_it():
    film = io.BytesIO(FILM[: FILM.rindex(b"moov")] + b"moov")
    with pytest.raises(UsageError, match="whole box"):
        append_xmp(film, digital_source_type="x", model=FACTS.model, record_id=RECORD, by_model=True)


# -- the value


def test_a_marking_is_json_and_its_digest_follows_it():
    assert from_json(Marking, to_json(EVERYTHING)) == EVERYTHING
    assert to_json(Marking()) == {}
    assert len({Marking().digest, EVERYTHING.digest, Marking(credentials="none").digest}) == 3


@pytest.mark.parametrize(
    "wrong", [{"credentials": "off"}, {"label": {"text": "x", "position": "left"}}, {"watermark": True}, {"aigc": {}}]
)
def test_a_marking_that_says_nothing_known_is_refused(wrong):
    with pytest.raises(UsageError):
        from_json(Marking, wrong)


def test_a_label_that_cannot_be_drawn_is_found_before_anything_is_bought(folder):
    signer = development_signer(folder)
    check_marking(EVERYTHING, width_px=320, height_px=180, signer=signer)
    with pytest.raises(UsageError, match="lacks"):
        check_marking(Marking(label=Label(text="生成")), width_px=320, height_px=180, signer=signer)
    with pytest.raises(UsageError, match="not on video/webm"):
        check_marking(EVERYTHING, width_px=320, height_px=180, media_type="video/webm", signer=signer)


# -- the record


def test_the_record_catches_what_the_credentials_leave_out(mark, recorded, tmp_path):
    """A box appended to the file keeps C2PA valid; the digest of all bytes in the record does not let it pass."""
    path = tmp_path / "film.mp4"
    _, done = mark(Marking(), out=path)
    facts = evolve(
        recorded.facts,
        record_id=RECORD,
        raw=MediaRef(sha256=FACTS.raw_sha256, media_type="video/mp4", size_bytes=len(FILM)),
        delivered=MediaRef(sha256=done.sha256, media_type="video/mp4", size_bytes=done.size_bytes),
        marks=done.lines,
    )
    draft = video_statement(facts, policy=Policy(), clock=FakeClock())
    envelope = sign_envelope(draft.payload, recorded.signer)
    with recorded.database.transaction() as connection:
        entry = recorded.ledger.append(connection, draft, envelope, public_key=recorded.signer.public_key)
    sidecar_path(path).write_bytes(sidecar_json(entry, signer=recorded.signer))
    assert verify_file(path).ok
    with path.open("ab") as file:
        file.write(b"\0\0\0\x10free" + b"12345678")
    with path.open("rb") as file:
        assert read_credentials(file).state == "Valid"
    found = verify_file(path)
    assert not found.ok
    assert found.first_failure.name == "video"
