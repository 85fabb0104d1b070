"""Nothing reaches from one knowledge base into another: not by a name, an id, a filter, a query, a digest or a table."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vrag import Brief, VRAGPipeline
from vrag.errors import NotFoundError, UsageError, VRAGError
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.knowledge.sources import SourcePicture
from vrag.provenance.marking import Marking
from vrag.testing import FakeClock, FakeEmbedder, FakeSigner, FakeStorage, FakeVectorStore, FakeVideoGenerator
from vrag.values.assets import ReviewState
from vrag.values.vectors import AllOf, AnyOf, Between, Is, IsIn, Not
from vrag.workspace import Workspace

HOSTILE = [
    None,
    "",
    "*",
    "%",
    "_",
    [],
    ["theirs"],
    {},
    {"name": "theirs"},
    ("theirs",),
    0,
    True,
    b"theirs",
    "theirs*",
    "their?",
    "Theirs",
    "THEIRS",
    " theirs",
    "theirs ",
    "theirs\0",
    "theirs\n",
    "their\u0455",
    "t\u04bbeirs",
    "\uff54heirs",
    "the\u0131rs",
    "th\u0435irs",
    "theirs\u200b",
    "theirs\u0301",
    "ours/../theirs",
    "../theirs",
    "theirs/",
    "/theirs",
    "theirs' or '1'='1",
    "ours OR theirs",
    "theirs" * 5000,
    "\ud800theirs",
    float("nan"),
]
SECRET = "theirs-secret"


@pytest.fixture(params=["local", "fake"])
def bases(request, tmp_path, jpeg, local_kb, fake_kb):
    """Two with the same picture, and a secret in the second."""

    def make(name):
        return local_kb(tmp_path, name) if request.param == "local" else fake_kb(name, embedder=FakeEmbedder())

    ours, theirs = make("ours"), make("theirs")
    ours.ingest([SourcePicture.from_bytes("red-shoes.jpg", jpeg(1), tags=["shared"])], approve_by="ann")
    theirs.ingest(
        [
            SourcePicture.from_bytes("red-shoes.jpg", jpeg(1), tags=["shared"]),
            SourcePicture.from_bytes("secret-dog.jpg", jpeg(2), tags=["shared", SECRET], caption="a secret dog"),
        ],
        approve_by="ann",
    )
    return ours, theirs


def secret_of(theirs):
    return next(asset for asset in theirs.assets() if SECRET in asset.tags)


def names_in(found):
    """Every knowledge base that an answer names."""
    assets = [hit.asset for hit in (*found.hits, *(found.refusal.candidates if found.refusal else ()))]
    return {asset.knowledge_base for asset in assets} | {one.asset_id.partition("/")[0] for one in found.candidates}


def tried(call, *args, **options):
    """What a call gives, or the typed error that it raises; anything else is a failure."""
    try:
        return call(*args, **options)
    except VRAGError as error:
        return error


def test_no_id_no_words_and_no_digest_reach_the_other(bases):
    ours, theirs = bases
    secret = secret_of(theirs)
    before = len(theirs.history(secret.id))
    for value in HOSTILE:
        forms = [value]
        if isinstance(value, str):
            forms += [f"{value}/{secret.original.sha256}", f"ours/{secret.original.sha256}", f"{value}{secret.id}"]
        for form in forms:
            for call in (ours.asset, ours.review_of, ours.history, ours.gate, ours.thumbnail):
                with pytest.raises((UsageError, NotFoundError)):
                    call(form)
            for act in (ours.revoke, ours.erase_media):
                with pytest.raises((UsageError, NotFoundError)):
                    act(form, by="eve", reason="mine")
            with pytest.raises((UsageError, NotFoundError)):
                ours.review([form], ReviewState.REJECTED, by="eve")
            if form != secret.original.sha256:
                with pytest.raises(UsageError):
                    ours.revoke_digest(form, by="eve", reason="mine")
            found = tried(ours.search, form)
            assert isinstance(found, UsageError) or names_in(found) <= {"ours"}
            if isinstance(form, str):
                report = tried(ours.review_csv, f"id,state\n{form!r},rejected\n".encode("utf-8", "replace"), by="eve")
                assert isinstance(report, UsageError) or not report.decided
    assert len(theirs.history(secret.id)) == before
    assert theirs.gate(secret.id).state is ReviewState.APPROVED


def test_no_filter_reaches_the_other(bases):
    ours, theirs = bases
    for value in HOSTILE:
        conditions = [
            Is(field="tags", value=value),
            Is(field=value, value="shared"),
            IsIn(field="tags", values=value),
            IsIn(field="tags", values=(value, SECRET)),
            Not(Is(field="tags", value=value)),
            Between(field="ingested_at", low=value),
            Between(field=value),
            AllOf(value),
            AnyOf((Is(field="tags", value=SECRET), Not(Is(field="tags", value=value)))),
            AllOf((AnyOf((AllOf((Not(Is(field="tags", value=value)),)),)),)),
            value,
            {"field": "tags", "value": value},
            [Is(field="tags", value=value)],
        ]
        for condition in conditions:
            found = tried(ours.search, "secret dog", filter=condition)
            assert isinstance(found, UsageError) or names_in(found) <= {"ours"}
            listed = tried(lambda condition=condition: list(ours.assets(condition)))
            assert isinstance(listed, UsageError) or {asset.knowledge_base for asset in listed} <= {"ours"}
            counted = tried(ours.count, condition)
            assert isinstance(counted, UsageError) or counted <= 1
            report = tried(ours.review_matching, "secret dog", ReviewState.REJECTED, by="eve", filter=condition)
            assert isinstance(report, UsageError) or not report.decided
    assert theirs.gate(secret_of(theirs).id).state is ReviewState.APPROVED


def test_filters_that_nest_endlessly_or_empty_themselves_are_refused(bases):
    ours, _ = bases
    deep = Is(field="tags", value="shared")
    for _ in range(2000):
        deep = Not(deep)
    wide = AnyOf((Is(field="tags", value="x"),) * 5000)
    once = AllOf(iter([Is(field="tags", value="nobody")]))
    for condition in (deep, wide, once, AllOf([Is(field="tags", value="x")]), AllOf(None), AnyOf("abc"), AllOf(5)):
        for call in (ours.count, ours.assets, lambda one: ours.search("shoes", filter=one)):
            with pytest.raises(UsageError):
                call(condition)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(text=st.text(max_size=80), tag=st.text(max_size=40))
def test_no_text_at_all_reaches_the_other(bases, text, tag):
    ours, _ = bases
    for condition in (None, Is(field="tags", value=tag), Not(IsIn(field="tags", values=(tag, SECRET)))):
        found = tried(ours.search, text, filter=condition)
        assert isinstance(found, UsageError) or names_in(found) <= {"ours"}
    for form in (text, f"ours/{text}", f"theirs/{text}"):
        assert isinstance(tried(ours.asset, form), UsageError | NotFoundError)


def test_the_bytes_of_the_other_are_not_opened_and_the_same_bytes_are_two_assets(bases, tmp_path):
    ours, theirs = bases
    secret = secret_of(theirs)
    with pytest.raises(NotFoundError):
        ours.open(secret.original)
    theirs.export_to(tmp_path / "export")
    with pytest.raises(UsageError, match="'theirs', not of 'ours'"):
        ours.import_from(tmp_path / "export")
    assert ours.count() == 1
    (shared,) = ours.assets()
    theirs.revoke(shared.original.sha256, by="ann", reason="theirs alone")
    theirs.erase_media(shared.original.sha256, by="ann", reason="theirs alone")
    assert ours.gate(shared.id).state is ReviewState.APPROVED
    with ours.open(shared.original) as stream:
        assert len(stream.read()) == shared.original.size_bytes
    # Taking down bytes that are not here says nothing about whether the other has them.
    ours.revoke_digest(secret.original.sha256, by="ann", reason="never here")
    assert theirs.gate(secret.id).state is ReviewState.APPROVED
    assert ours.count() == 1


def test_no_vector_that_one_paid_for_and_no_question_is_known_to_the_other(jpeg, fake_kb):
    embedder = FakeEmbedder(usd_micros=20)
    parts = {name: {"store": FakeVectorStore(), "storage": FakeStorage()} for name in ("ours", "theirs")}
    ours, theirs = (fake_kb(name, embedder=embedder, **parts[name]) for name in parts)
    source = [SourcePicture.from_bytes("red-shoes.jpg", jpeg(1))]

    def paid(call, *args, **options):
        before = len(embedder.calls)
        call(*args, **options)
        return len(embedder.calls) - before

    assert paid(theirs.ingest, source, approve_by="ann", approve_cost=lambda _: True) == 1
    # The same picture and the same embedder: the price says nothing about what the other has.
    assert ours.estimate_ingest(source).embeddings == 1
    assert paid(ours.ingest, source, approve_by="ann", approve_cost=lambda _: True) == 1
    assert paid(theirs.search, "a secret dog") == 1
    assert paid(theirs.search, "a secret dog") == 0
    assert paid(ours.search, "a secret dog") == 1
    assert paid(fake_kb("theirs", embedder=embedder, **parts["theirs"]).search, "a secret dog") == 1
    for hostile in (
        "theirs\0a secret dog",
        "theirs/a secret dog",
        "a secret dog\0theirs",
        "('theirs', 'a secret dog')",
    ):
        assert paid(ours.search, hostile) == 1


def test_an_index_that_two_have_come_to_share_is_refused_or_shows_each_its_own(jpeg, fake_kb):
    store = FakeVectorStore(None)
    ours, theirs = (fake_kb(name, store=store) for name in ("ours", "theirs"))
    for kb in (ours, theirs):
        assert kb.count() == 0  # both look while it is empty
    ours.ingest([SourcePicture.from_bytes("red-shoes.jpg", jpeg(1))], approve_by="ann")
    again = fake_kb("theirs", store=store, storage=theirs._storage)
    with pytest.raises(UsageError, match="belongs to 'ours'"):
        again.search("shoes")
    tried(theirs.ingest, [SourcePicture.from_bytes("blue-shoes.jpg", jpeg(2))], approve_by="ann")
    for kb in (ours, theirs):
        found = tried(kb.search, "shoes")
        assert isinstance(found, UsageError) or names_in(found) <= {kb.name}
        listed = tried(lambda kb=kb: list(kb.assets()))
        assert isinstance(listed, UsageError) or {asset.knowledge_base for asset in listed} <= {kb.name}


def test_no_name_opens_another_knowledge_base_of_a_pipeline(tmp_path, jpeg):
    clock, opened = FakeClock(), []

    def factory(name):
        opened.append(name)
        return KnowledgeBase(name, store=FakeVectorStore(None), storage=FakeStorage(), clock=clock)

    with VRAGPipeline(
        workspace=Workspace(tmp_path / "work", clock=clock),
        knowledge_bases=factory,
        generators={"film": FakeVideoGenerator(clock=clock)},
        storage=FakeStorage(),
        signer=FakeSigner(),
        marking=Marking(credentials="none"),
        clock=clock,
    ) as pipeline:
        pipeline.knowledge_base("ours").ingest([SourcePicture.from_bytes("dog.jpg", jpeg(1))], approve_by="ann")
        for value in HOSTILE:
            with pytest.raises(UsageError):
                pipeline.knowledge_base(value)
            with pytest.raises(VRAGError):
                pipeline.generate(Brief(object_prompt="dog", knowledge_base=value))
            if isinstance(value, str) and value != "theirs/":  # that one does name it
                with pytest.raises(VRAGError):
                    pipeline.revoke(value, by="eve", reason="mine")
        assert opened == ["ours"]
