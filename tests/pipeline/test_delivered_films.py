"""A delivered film carries content credentials by default, and `verify` names what was done to it."""

import io
import struct

import av
import pytest

from vrag import Brief, VRAGPipeline
from vrag.cli.demo import demo_photos
from vrag.errors import UsageError
from vrag.provenance.certificates import read_anchors
from vrag.provenance.credential_check import credential_check
from vrag.provenance.credentials import read_credentials
from vrag.provenance.marking import Marking
from vrag.provenance.verify import CREDENTIALS, SAME_VIDEO, verify_file

BRIEF = Brief(
    object_prompt="lake", action_prompt="camera zooms in", knowledge_base="brand", width_px=160, height_px=90, fps=8,
    duration_s=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    with VRAGPipeline.local(folder) as pipeline, demo_photos() as photos:
        brand = pipeline.knowledge_base("brand")
        for name in ("snowy-mountain-lake.jpg", "two-spaniel-dogs.jpg"):
            brand.ingest(photos / name)
        brand.approve_all(by="ann")
        lake = pipeline.generate(BRIEF)
        dogs = pipeline.generate(Brief(**{**vars_of(BRIEF), "object_prompt": "dogs"}))
        yield folder, pipeline, lake, dogs


def vars_of(brief):
    return {field.name: getattr(brief, field.name) for field in type(brief).__attrs_attrs__}


def failures(studio, data, video):
    folder, pipeline, *_ = studio
    found = verify_file(
        io.BytesIO(data),
        video.sidecar(),
        trusted_keys=[pipeline._signer.public_key],
        credentials=credential_check(read_anchors(folder / "keys")),
    )
    return {check.promise: check.detail for check in found.checks if check.ok is False}


def test_the_film_says_what_it_is_and_names_its_picture(studio):
    _, _, lake, _ = studio
    assert lake.verify().ok
    with lake.open() as film:
        state = read_credentials(film)
    assert (state.state, state.digital_source_type) == ("Valid", "algorithmicallyEnhanced")
    assert state.record_id == lake.record_id
    assert state.pictures == ((lake.sources[0].asset_id, lake.sources[0].conformed.media.sha256),)


def test_stripped_credentials_are_named(studio):
    _, _, lake, _ = studio
    out = io.BytesIO()
    with av.open(io.BytesIO(lake.read_bytes()), format="mp4") as film, av.open(out, "w", format="mp4") as bare:
        track = bare.add_stream_from_template(film.streams.video[0])
        for packet in film.demux(film.streams.video[0]):
            if packet.dts is not None:
                packet.stream = track
                bare.mux(packet)
    found = failures(studio, out.getvalue(), lake)
    assert "stripped" in found[CREDENTIALS]
    assert SAME_VIDEO in found


def test_a_free_box_at_the_end_keeps_the_credentials_and_breaks_the_record(studio):
    _, _, lake, _ = studio
    found = failures(studio, lake.read_bytes() + struct.pack(">I4s", 16, b"free") + bytes(8), lake)
    assert list(found) == [SAME_VIDEO]


def test_another_film_that_is_soundly_signed_is_not_this_one(studio):
    _, _, lake, dogs = studio
    found = failures(studio, dogs.read_bytes(), lake)
    assert SAME_VIDEO in found
    assert dogs.record_id in found[CREDENTIALS]


def test_a_changed_pixel_breaks_both(studio):
    _, _, lake, _ = studio
    data = bytearray(lake.read_bytes())
    data[data.index(b"mdat") + 200] ^= 1
    found = failures(studio, bytes(data), lake)
    assert {SAME_VIDEO, CREDENTIALS} <= set(found)
    assert "do not hold" in found[CREDENTIALS]


def test_without_a_signer_credentials_are_given_up_only_on_purpose(studio, tmp_path):
    _, pipeline, *_ = studio
    parts = {
        "workspace": pipeline.workspace,
        "knowledge_bases": {},
        "generators": {},
        "storage": pipeline._storage,
        "signer": pipeline._signer,
    }
    with pytest.raises(UsageError, match="Content credentials need a key"):
        VRAGPipeline(**parts)
    assert VRAGPipeline(**parts, marking=Marking(credentials="none"))
