"""Many decisions at once: by table and by query, with every row that was not carried out named by its line."""

import io

import pytest

from vrag.errors import UsageError
from vrag.knowledge.sources import SourcePicture
from vrag.testing import FakeStorage
from vrag.values.assets import ReviewState
from vrag.values.vectors import Is


@pytest.fixture
def kb(jpeg, fake_kb):
    made = fake_kb(storage=FakeStorage())
    names = ("brown-dog.jpg", "white-dog.jpg", "red-shoes.jpg", "lake.jpg")
    made.ingest(SourcePicture.from_bytes(name, jpeg(number)) for number, name in enumerate(names))
    return made


def ids(kb):
    return {asset.file_name.partition(".")[0]: asset.id for asset in kb.assets()}


def states(kb):
    return {asset.file_name.partition(".")[0]: kb.review_of(asset.id).state.value for asset in kb.assets()}


def test_a_table_decides_row_by_row_and_names_what_it_could_not(kb):
    names = ids(kb)
    kb.revoke(names["lake"], by="zoe", reason="sold")
    table = "\ufeffState, Reason ,ID\r\n" + "\r\n".join(
        [
            f'approved,"signed, twice",{names["brown-dog"]}',
            f"rejected,,{names['white-dog'][-64:][:20]}",
            "",
            "approved,,brand/" + "0" * 64,
            f"blessed,,{names['red-shoes']}",
            f"approved,,{names['lake']}",
            f"revoked,,{names['red-shoes']}",
            f"approved,{names['red-shoes']}",
            "approved,,../../etc/passwd",
            "approved,,other/" + "0" * 64,
        ]
    )
    report = kb.review_csv(table.encode(), by="ann")
    assert [(one.state.value, one.by, one.reason) for one in report.decided] == [
        ("approved", "ann", "signed, twice"),
        ("rejected", "ann", None),
    ]
    assert [(one.line, one.error) for one in report.failed] == [
        (5, "not_found"),
        (6, "usage"),
        (7, "usage"),
        (8, "usage"),
        (9, "usage"),
        (10, "usage"),
        (11, "usage"),
    ]
    assert not report.ok
    assert report.partial
    assert "line 7: usage" in str(report)
    assert report.to_json()["failed"][0]["line"] == 5
    assert states(kb) == {
        "brown-dog": "approved",
        "white-dog": "rejected",
        "red-shoes": "proposed",
        "lake": "revoked",
    }
    assert kb.count(Is(field="review", value="approved")) == 1
    # Once more changes nothing.
    again = kb.review_csv(table, by="bob")
    assert (again.decided, again.unchanged) == ((), 2)
    assert len(kb.history(names["brown-dog"])) == 1


def test_rows_that_contradict_each_other_are_all_left_out(kb):
    dog = ids(kb)["brown-dog"]
    table = f"id,state\n{dog},approved\n{ids(kb)['lake']},approved\n{dog[-64:]},rejected\n{ids(kb)['lake']},approved\n"
    report = kb.review_csv(table, by="ann")
    assert [one.line for one in report.failed] == [2, 4]
    assert states(kb)["brown-dog"] == "proposed"
    assert states(kb)["lake"] == "approved"


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"\n",
        b"asset,verdict\n",
        b"id,id,state\n",
        b"id,state,reason,more\n",
        b"\xff\xfei\0d\0",
        b'id,state\n"open,approved\n',
        b"id;state\nx;approved\n",
    ],
)
def test_what_is_no_table_decides_nothing(kb, table):
    with pytest.raises(UsageError):
        kb.review_csv(table + b"" if table else table, by="ann")
    with pytest.raises(UsageError, match="name of who"):
        kb.review_csv(b"id,state\n", by=" ")
    assert set(states(kb).values()) == {"proposed"}
    assert kb.review_csv(b"id,state\n", by="ann").ok


def test_a_row_whose_reviews_cannot_be_read_can_only_be_revoked(kb):
    dog, lake = ids(kb)["brown-dog"], ids(kb)["lake"]
    for one in (dog, lake):
        kb._storage.put_named(f"reviews/{one[-64:]}/000000.json", io.BytesIO(b"{broken"))
    report = kb.review_csv(f"id,state,reason\n{dog},approved,fine\n{lake},revoked,to be safe\n", by="ann")
    assert [(one.line, one.error) for one in report.failed] == [(2, "verification")]
    assert [one.state.value for one in report.decided] == ["revoked"]


def test_a_query_decides_about_what_it_finds_and_not_about_more_than_was_meant(kb):
    with pytest.raises(UsageError, match="More than 1"):
        kb.review_matching("dog", ReviewState.APPROVED, by="ann", at_most=1)
    assert set(states(kb).values()) == {"proposed"}
    report = kb.review_matching("dog", ReviewState.APPROVED, by="ann", reason="seen")
    assert {one.asset_id for one in report.decided} == {ids(kb)["brown-dog"], ids(kb)["white-dog"]}
    assert kb.review_matching("dog", ReviewState.APPROVED, by="ann").unchanged == 2
    assert kb.review_matching("submarine", ReviewState.APPROVED, by="ann").decided == ()
    with pytest.raises(UsageError, match="name of who"):
        kb.review_matching("dog", ReviewState.APPROVED, by="")
