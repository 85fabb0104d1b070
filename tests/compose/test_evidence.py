"""`[budget]`, `[marking]` and `[checkpoints]` of `vrag.toml` reach the pipeline."""

import pytest

from vrag import Brief, VRAGPipeline
from vrag.cli.demo import demo_photos
from vrag.compose import from_config
from vrag.compose.assembly import Assembly
from vrag.compose.configuration import read_configuration
from vrag.errors import BudgetError, ConfigError
from vrag.values.policy import Caps

LAKE = Brief(object_prompt="lake", knowledge_base="brand", width_px=160, height_px=90, fps=8, duration_s=0.5)


@pytest.fixture
def opened(tmp_path):
    made = []

    def make(text):
        file = tmp_path / "vrag.toml"
        file.write_text(text)
        pipeline = from_config(VRAGPipeline, file, environ={})
        made.append(pipeline)
        return pipeline

    yield make
    for one in made:
        one.close()


def filled(pipeline):
    with demo_photos() as photos:
        pipeline.knowledge_base("brand").ingest(photos / "snowy-mountain-lake.jpg")
    pipeline.knowledge_base("brand").approve_all(by="ann")
    return pipeline


def test_money_is_written_in_usd_and_kept_in_micro_usd(opened):
    pipeline = opened("[budget]\nrun_usd = 1.5\nmonth_usd = 20\nrun_video_s = 0.25\n")
    assert pipeline.workspace.budget.caps == Caps(
        run_usd_micros=1_500_000, month_usd_micros=20_000_000, run_video_s=0.25
    )
    with pytest.raises(BudgetError) as caught:
        filled(pipeline).generate(LAKE)
    assert caught.value.cap == "run_video_s"
    assert pipeline.workspace.journal.ids() == []


def test_a_label_and_no_credentials_are_recorded(opened):
    pipeline = opened('[marking]\ncredentials = "none"\nlabel = "Made from a photograph"\n')
    video = filled(pipeline).generate(LAKE)
    marks = pipeline.workspace.journal.get(video.id).marks
    assert [mark["kind"] for mark in marks] == ["label", "iptc", "none"]
    assert video.verify().ok


def test_checkpoints_are_kept_where_it_says(opened, tmp_path):
    pipeline = opened('[checkpoints]\nfile = "outside/newest.note"\nstate_folder = false\nstorage = "local:folder"\n')
    filled(pipeline).generate(LAKE)
    assert (tmp_path / "outside" / "newest.note").read_text().count("\n") >= 4
    assert list((tmp_path / "studio").rglob("*.note"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[budget]\nrun_eur = 3\n", "vrag.toml:1: unknown key 'run_eur'"),
        ("[budget]\nrun_usd = -3\n", "'run_usd' is a number, 0 or more"),
        ("[budget]\nrun_usd = true\n", "'run_usd' is a number, 0 or more"),
        ("[marking]\nlabel_text = 'x'\n", "It knows: aigc"),
        ("[marking]\nkey_file = 'k.pem'\n", "needs a certificate"),
        ("[marking]\ncertificate_file = 'c.pem'\n", "either a 'key_file' or a 'signer'"),
        ("[checkpoints]\nplace = 'x'\n", "unknown key 'place'"),
        ("budget = 3\n", "'budget' is a table"),
    ],
)
def test_what_is_not_known_is_refused_with_its_place(opened, text, told):
    with pytest.raises(ConfigError, match=told):
        opened(text)


def test_a_font_is_a_path_beside_the_file_or_the_name_of_one_of_the_system(tmp_path):
    (tmp_path / "own.ttf").write_bytes(b"x")
    (tmp_path / "vrag.toml").write_text("")
    assembly = Assembly(read_configuration(tmp_path / "vrag.toml", environ={}), environ={})
    for given, meant in (
        ("own.ttf", str(tmp_path / "own.ttf")),
        ("NotoSans-Regular.ttf", "NotoSans-Regular.ttf"),
        ("fonts/absent.ttf", str(tmp_path / "fonts" / "absent.ttf")),
    ):
        assert assembly.with_paths({"label": {"font": given}}) == {"label": {"font": meant}}
