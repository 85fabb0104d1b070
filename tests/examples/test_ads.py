"""Ads per segment: audiences stay apart, three shapes have one lineage, and the report says what each film cost."""

import csv
from pathlib import Path

import pytest

from vrag import Brief, VRAGPipeline
from vrag.errors import BudgetError
from vrag.media.video import check_video
from vrag.provenance.lineage import used_in
from vrag.provenance.marking import Marking
from vrag.provenance.verify import verify_file
from vrag.testing import FakeSigner, FakeStorage, FakeVideoGenerator
from vrag.workspace import Workspace

SEGMENTS = Path(__file__).parents[2] / "examples" / "ads-per-segment" / "segments.csv"
OUTDOOR = ("snowy-mountain-lake", "hikers-on-orange-dune")
CITY = ("city-skyline-at-night", "roman-colosseum")


@pytest.fixture
def ads(example):
    return example("ads-per-segment/ads.py")


def named_photos(photos):
    """Their file names are their captions here; the dune's must say what the segments ask for."""
    outdoor, city = photos("outdoor", *OUTDOOR), photos("city", *CITY)
    (outdoor / "hikers-on-orange-dune.jpg").rename(outdoor / "hikers-on-orange-sand-dune.jpg")
    return outdoor, city


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_row_becomes_three_films_of_one_picture_of_its_audience(ads, photos, tmp_path, capsys):
    outdoor, city = named_photos(photos)
    out, studio = tmp_path / "ads", tmp_path / "studio"
    ads.main(
        [
            str(SEGMENTS),
            "--pictures",
            f"outdoor={outdoor}",
            "--pictures",
            f"city={city}",
            "--out",
            str(out),
            "--workspace",
            str(studio),
            "--short-side",
            "72",
            "--duration",
            "0.5",
        ]
    )
    said = capsys.readouterr().out
    assert "outdoor: 0.00 USD" in said
    assert "9 films" in said
    assert "not made" not in said
    rows = read(out / "report.csv")
    assert len(rows) == 9
    for row in rows:
        film = out / row["film"]
        assert verify_file(film).ok
        assert film.parent.name == row["audience"]
        assert row["picture"].startswith(f"{row['audience']}/"), "a picture of another audience"
    sizes = {(row["line"], row["shape"]): row for row in rows}
    for line in ("2", "3", "4"):
        siblings = [sizes[line, shape] for shape in ads.SHAPES]
        assert len({row["picture"] for row in siblings}) == 1
        assert len({row["crop_px"] for row in siblings}) == 3
    for shape, size in zip(ads.SHAPES, ((128, 72), (72, 128), (72, 72)), strict=True):
        with (out / sizes["2", shape]["film"]).open("rb") as stream:
            info = check_video(stream, "ad", duration_s=0.5)
        assert (info.width_px, info.height_px) == size
    assert "Content-Security-Policy" in (out / "plan.html").read_text(encoding="utf-8")
    with VRAGPipeline.local(studio) as pipeline:
        family = used_in(pipeline.workspace.ledger, sizes["2", "16:9"]["picture"])
        made = {record for node in family.of_kind("video") for record in node.records}
        assert {sizes["2", shape]["record"] for shape in ads.SHAPES} <= made


@pytest.fixture
def priced(photos, tmp_path):
    """The embedded knowledge bases, and a film model that costs 0.10 USD a second."""
    outdoor, city = named_photos(photos)
    local = VRAGPipeline.local(tmp_path / "studio")
    bases = {"outdoor": local.knowledge_base("outdoor"), "city": local.knowledge_base("city")}
    bases["outdoor"].ingest(outdoor, approve_by="ann")
    bases["city"].ingest(city, approve_by="ann")
    pipeline = VRAGPipeline(
        workspace=Workspace(tmp_path / "priced"),
        knowledge_bases=bases,
        generators={"film": FakeVideoGenerator()},
        storage=FakeStorage(),
        signer=FakeSigner(),
        marking=Marking(credentials="none"),
    )
    yield pipeline
    pipeline.close()
    local.close()


def test_prices_are_reported_for_each_audience_and_a_budget_holds(ads, priced, tmp_path):
    rows, problems = ads.read_campaign(SEGMENTS, Brief(duration_s=0.5), {"outdoor": "outdoor", "city": "city"})
    assert problems == ()
    campaign = ads.shaped(priced, rows, short_side_px=36)
    plan = priced.plan([ad.brief for ad in campaign.ads])
    assert ads.prices(plan, campaign.ads) == {"outdoor": 300_000, "city": 150_000}
    with pytest.raises(BudgetError):
        ads.make(priced, campaign.ads, tmp_path / "ads", budget_usd=0.4)
    assert priced.generators["film"].charges == ()
    assert ads.make(priced, campaign.ads, tmp_path / "ads", budget_usd=0.5) == []
    assert {row["usd"] for row in read(tmp_path / "ads" / "report.csv")} == {"0.0500"}
    assert len(priced.generators["film"].charges) == 9


def test_an_unknown_price_is_reported_as_unknown(ads, priced):
    priced.generators["film"]._usd_micros_per_s = None
    rows, _ = ads.read_campaign(SEGMENTS, Brief(duration_s=0.5), {"outdoor": "outdoor", "city": "city"})
    campaign = ads.shaped(priced, rows[:1], short_side_px=36)
    assert ads.prices(priced.plan([ad.brief for ad in campaign.ads]), campaign.ads) == {"outdoor": None}


def test_rows_that_would_mix_audiences_or_find_nothing_are_told_with_their_line(ads, priced, tmp_path):
    segments = tmp_path / "segments.csv"
    segments.write_text(
        "audience,object_prompt,action_prompt,knowledge_base\n"
        "outdoor,mountain lake,camera zooms in,city\n"
        ",skyline at night,camera zooms in,city\n"
        "press,mountain lake,camera zooms in,\n"
        "outdoor,submarine,camera zooms in,\n"
        "outdoor,mountain lake,camera zooms in,\n"
    )
    rows, problems = ads.read_campaign(segments, Brief(duration_s=0.5), {"outdoor": "outdoor", "city": "city"})
    assert [problem.split(":")[0] for problem in problems] == ["line 2", "line 3", "line 4"]
    campaign = ads.shaped(priced, rows, short_side_px=36)
    assert [problem.split(":")[0] for problem in campaign.problems] == ["line 5"]
    assert {ad.line for ad in campaign.ads} == {6}
