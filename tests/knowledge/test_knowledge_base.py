"""Names, ids, the gate, take-down, and that nothing reaches from one knowledge base into another."""

import io
import json

import pytest

from vrag.backends.local.storage import FolderStorage
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.errors import (
    FormatVersionError,
    GateError,
    NotFoundError,
    SpaceMismatchError,
    UsageError,
    VerificationError,
)
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.knowledge.sources import SourcePicture
from vrag.testing import FAKE_SPACE, FakeClock, FakeEmbedder, FakeStorage, FakeVectorStore
from vrag.values.assets import ReviewState, Rights
from vrag.values.vectors import AllOf, Is, IsIn, Not


def pictures(jpeg, *names, first_seed=0, **stated):
    return [SourcePicture.from_bytes(name, jpeg(first_seed + n), **stated) for n, name in enumerate(names)]


@pytest.mark.parametrize(
    "name",
    [None, "", "*", [], {}, ("brand",), 3, b"brand", "Brand", "bränd", "br\u0430nd", "brand/../x", "a/b", "-a", "a-", " brand", "\uff42rand",
     "brand\n", "brand\0", "a" * 64, "..", "con.txt"],
)  # fmt: skip
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(UsageError):
        KnowledgeBase(name, store=FakeVectorStore(None), storage=FakeStorage())


def test_an_embedder_of_another_space_is_refused():
    with pytest.raises(SpaceMismatchError, match="fake-words"):
        KnowledgeBase("brand", store=FakeVectorStore(None), storage=FakeStorage(), embedder=FakeEmbedder())
    with pytest.raises(SpaceMismatchError, match=r"words only|none"):
        KnowledgeBase("brand", store=FakeVectorStore(FAKE_SPACE), storage=FakeStorage())


def test_a_picture_is_found_by_id_digest_and_beginning(jpeg, fake_kb):
    kb = fake_kb()
    kb.ingest(pictures(jpeg, "dog.jpg", "cat.jpg"))
    first, second = kb.assets()
    digest = first.original.sha256
    for key in (first.id, digest, digest[:8], f"brand/{digest[:12]}"):
        assert kb.asset(key) == first
    assert kb.asset(second.original.sha256[:20]) == second
    for unknown in ("0" * 64, "0" * 8):
        with pytest.raises(NotFoundError):
            kb.asset(unknown)
    for wrong in (
        "",
        "*",
        digest[:7],
        digest.upper(),
        f"other/{digest}",
        f"brand/x/{digest}",
        f"/{digest}x",
        "../" + digest,
        None,
        [],
    ):
        with pytest.raises(UsageError):
            kb.asset(wrong)


def test_the_beginning_of_two_ids_is_refused(fake_kb, jpeg):
    kb = fake_kb()
    kb.ingest(pictures(jpeg, "dog.jpg"))
    (asset,) = kb.assets()
    (row,) = kb._store.scan()
    twin = asset.original.sha256[:63] + ("0" if asset.original.sha256[63] != "0" else "1")
    kb._store.upsert([type(row)(key=f"brand/{twin}", payload=row.payload, fields=row.fields)])
    with pytest.raises(UsageError, match="2 pictures"):
        kb.asset(asset.original.sha256[:40])


def test_the_gate_opens_for_approved_pictures_only_and_says_what_to_do(jpeg, fake_kb):
    clock = FakeClock()
    kb = fake_kb(clock=clock)
    rights = Rights(expires_on="2026-01-01")
    kb.ingest([*pictures(jpeg, "dog.jpg"), *pictures(jpeg, "cat.jpg", first_seed=5, rights=rights)])
    dog, cat = (next(a.id for a in kb.assets() if a.file_name == name) for name in ("dog.jpg", "cat.jpg"))
    with pytest.raises(GateError, match="proposed") as caught:
        kb.gate(dog)
    assert caught.value.hint == f"vrag review --kb brand --approve {dog} --by NAME"
    assert (caught.value.asset_id, caught.value.state) == (dog, "proposed")

    (review,) = kb.review(dog, ReviewState.APPROVED, by="ann")
    assert kb.gate(dog) == review == kb.review_of(dog)
    kb.review([dog], ReviewState.REJECTED, by="ann", reason="blurred")
    with pytest.raises(GateError, match=r"rejected.*blurred"):
        kb.gate(dog)
    with pytest.raises(UsageError, match="needs the name"):
        kb.review(dog, ReviewState.APPROVED, by="")
    with pytest.raises(UsageError, match="needs a reason"):
        kb.revoke(dog, by="ann", reason=" ")
    kb.revoke(dog, by="ann", reason="model withdrew")
    with pytest.raises(GateError, match=r"revoked.*withdrew") as caught:
        kb.gate(dog)
    assert "--approve" not in str(caught.value.hint)
    with pytest.raises(UsageError, match="final"):
        kb.review(dog, ReviewState.APPROVED, by="bob")
    assert [one.state for one in kb.history(dog)] == ["approved", "rejected", "revoked"]

    kb.review(cat, ReviewState.APPROVED, by="ann")
    clock.advance(24 * 3600 - 1)
    kb.gate(cat)
    assert kb.search("cat").hits
    clock.advance(1)
    assert kb.review_of(cat).state is ReviewState.EXPIRED
    with pytest.raises(GateError, match="expired"):
        kb.gate(cat)
    assert "1 expired" in kb.search("cat").refusal.reasons[0]


def test_a_revocation_on_one_machine_is_seen_by_the_other_whatever_its_index_says(jpeg, tmp_path):
    """Two machines with one storage and an index each."""
    storage = FolderStorage(tmp_path)
    one, two = (
        KnowledgeBase("brand", store=FakeVectorStore(None), storage=storage, clock=FakeClock()) for _ in range(2)
    )
    for kb in (one, two):
        kb.ingest(pictures(jpeg, "dog.jpg"), approve_by="ann")
    (asset,) = one.assets()
    assert two.search("dog").hits
    one.revoke(asset.id, by="ann", reason="withdrawn")
    assert two.count(Is(field="review", value="approved")) == 1
    assert two.search("dog").hits == ()
    with pytest.raises(GateError):
        two.gate(asset.id)
    # Ingested again, from anywhere, it stays revoked.
    report = two.ingest(pictures(jpeg, "dog.jpg"), approve_by="bob")
    assert report.approved == 0
    assert two.count(Is(field="review", value="revoked")) == 1


def test_reviews_that_cannot_be_read_close_the_gate_and_stop_nobody_else(jpeg, fake_kb):
    storage = FakeStorage()
    kb = fake_kb(storage=storage)
    kb.ingest(pictures(jpeg, "dog.jpg", "dog2.jpg"))
    broken, sound = kb.assets()
    name = f"reviews/{broken.original.sha256}/000000.json"
    storage.put_named(name, io.BytesIO(b"{broken"))
    with pytest.raises(VerificationError):
        kb.approve_all(by="ann")
    assert [hit.asset.id for hit in kb.search("dog").hits] == [sound.id]
    with pytest.raises(GateError) as caught:
        kb.gate(broken.id)
    assert caught.value.state == "unreadable"
    assert kb.ingest(pictures(jpeg, "new-dog.jpg", "dog2.jpg"), approve_by="ann").updated == 1
    kb.revoke(broken.id, by="ann", reason="to be safe")


def test_two_knowledge_bases_never_see_each_other(tmp_path, jpeg, local_kb):
    ours, theirs = local_kb(tmp_path, "ours"), local_kb(tmp_path, "theirs")
    ours.ingest(pictures(jpeg, "red-shoes.jpg", "dog.jpg", tags=["shared"]), approve_by="ann")
    theirs.ingest(pictures(jpeg, "red-shoes.jpg", "secret-dog.jpg", tags=["shared"], first_seed=1), approve_by="ann")
    conditions = (
        None,
        Is(field="tags", value="shared"),
        IsIn(field="tags", values=("shared", "theirs/")),
        Not(Is(field="tags", value="x")),
        AllOf(()),
    )
    for condition in conditions:
        for query in ("dog", "secret", "red shoes", "theirs/", "* OR theirs", "') or 1=1 --"):
            result = ours.search(query, filter=condition)
            found = {
                hit.asset.knowledge_base
                for hit in (*result.hits, *(result.refusal.candidates if result.refusal else ()))
            }
            assert found <= {"ours"}
            assert all(candidate.asset_id.startswith("ours/") for candidate in result.candidates)
        assert {asset.knowledge_base for asset in ours.assets(condition)} == {"ours"}
    secret = next(asset for asset in theirs.assets() if asset.file_name == "secret-dog.jpg")
    with pytest.raises(UsageError):
        ours.asset(secret.id)
    for call in (ours.asset, ours.gate, ours.history, ours.thumbnail):
        with pytest.raises(NotFoundError):
            call(secret.original.sha256)
    with pytest.raises(NotFoundError):
        ours.open(secret.original)
    # One picture, in both: decided about in each for itself.
    shared = next(asset for asset in theirs.assets() if asset.file_name == "red-shoes.jpg").original.sha256
    assert ours.asset(shared).file_name == "dog.jpg"
    theirs.revoke(shared, by="ann", reason="theirs alone")
    assert ours.gate(shared).state is ReviewState.APPROVED


@pytest.mark.parametrize(
    "field", [None, "", "*", [], {}, "knowledge_base", "review) OR (1=1", "\uff54ags", "tags\0", "__class__"]
)
def test_a_filter_on_anything_else_is_refused(field, jpeg, fake_kb):
    kb = fake_kb()
    kb.ingest(pictures(jpeg, "dog.jpg"))
    with pytest.raises(UsageError):
        kb.search("dog", filter=Is(field=field, value="x"))
    for wrong in ({"tags": "x"}, "tags = 'x'", []):
        with pytest.raises(UsageError):
            kb.search("dog", filter=wrong)


@pytest.mark.parametrize("shared", ["storage", "store"])
def test_parts_of_another_knowledge_base_are_refused(shared, jpeg, fake_kb):
    parts = {"storage": FakeStorage(), "store": FakeVectorStore(None)}
    fake_kb("ours", **parts).ingest(pictures(jpeg, "dog.jpg"), approve_by="ann")
    other = fake_kb("theirs", **{shared: parts[shared]})
    for act in (
        lambda: other.ingest([]),
        lambda: other.search("dog"),
        other.count,
        lambda: list(other.assets()),
        lambda: other.asset("0" * 64),
    ):
        with pytest.raises(UsageError, match="belongs to 'ours'"):
            act()


def test_a_newer_or_broken_label_is_refused_with_the_remedy(fake_kb):
    for document, error in (({"format": 2, "name": "brand"}, FormatVersionError), ([], UsageError)):
        storage = FakeStorage()
        storage.put_named("knowledge-base.json", io.BytesIO(json.dumps(document).encode()))
        with pytest.raises(error) as caught:
            fake_kb(storage=storage).count()
        assert caught.value.hint


def test_without_an_embedder_words_alone_find(tmp_path, jpeg):
    store = LocalVectorStore(tmp_path / "index", None)
    kb = KnowledgeBase("words", store=store, storage=FolderStorage(tmp_path / "storage"), clock=FakeClock())
    kb.ingest(pictures(jpeg, "brown-dog.jpg", "red-tulips.jpg", "running-shoes.jpg", "IMG_7.jpg"), approve_by="ann")
    assert [hit.asset.caption for hit in kb.search("dogs").hits] == ["brown dog"]
    assert [hit.asset.caption for hit in kb.search("red shoes").hits] == ["running shoes"]
    assert kb.search("red balloon").refusal is not None
    assert kb.search("IMG_7").refusal is not None
    assert kb.search("dogs").settings["space"] == "words only"
    kb.close()
    kb.close()
