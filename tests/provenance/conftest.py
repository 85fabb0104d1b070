"""A video made from a real photograph, recorded in a real workspace with real keys."""

import sys
from pathlib import Path

import pytest
from attrs import frozen

sys.path.insert(0, str(Path(__file__).parent))

from film_facts import SECRETS, VIDEO, facts_of

from vrag.backends.local.storage import FolderStorage
from vrag.provenance.record import VideoFacts, video_statement
from vrag.provenance.sidecar import sidecar_json, sidecar_path
from vrag.provenance.signing import LocalSigner, sign_envelope
from vrag.testing import FakeClock
from vrag.values.policy import Policy
from vrag.workspace.db import Database
from vrag.workspace.ledger import Draft, Entry, Ledger


@frozen(kw_only=True)
class Recorded:
    folder: Path
    database: Database
    ledger: Ledger
    storage: FolderStorage
    signer: LocalSigner
    facts: VideoFacts
    draft: Draft
    entry: Entry
    video: Path

    @property
    def sidecar(self) -> bytes:
        return sidecar_path(self.video).read_bytes()

    @property
    def pem(self) -> bytes:
        from vrag.provenance.signing import export_public_key_pem

        return export_public_key_pem(self.signer)


@pytest.fixture
def words():
    """The words of people in the facts."""
    return SECRETS


@pytest.fixture
def recorded(tmp_path):
    """A delivered video with its sidecar, and the workspace that made it."""
    clock = FakeClock()
    database = Database(tmp_path / "studio" / "vrag.db", clock=clock)
    ledger = Ledger(database, clock)
    storage = FolderStorage(tmp_path / "media")
    signer = LocalSigner.load_or_create(tmp_path / "keys" / "signing.pem")
    facts = facts_of(storage)
    draft = video_statement(facts, policy=Policy(), clock=clock)
    envelope = sign_envelope(draft.payload, signer)
    with database.transaction() as connection:
        entry = ledger.append(connection, draft, envelope, public_key=signer.public_key)
    video = tmp_path / "out" / "shoes-final.mp4"
    video.parent.mkdir()
    video.write_bytes(VIDEO)
    sidecar_path(video).write_bytes(sidecar_json(entry, signer=signer, texts=ledger.texts(entry.record_id)))
    yield Recorded(
        folder=tmp_path,
        database=database,
        ledger=ledger,
        storage=storage,
        signer=signer,
        facts=facts,
        draft=draft,
        entry=entry,
        video=video,
    )
    database.close()
