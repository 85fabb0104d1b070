"""The visible label: where it stands, how large it is, that nothing else changes, and that no box is ever drawn."""

import io
from fractions import Fraction
from importlib.resources import files

import av
import numpy as np
import pytest
from attrs import evolve
from PIL import Image, ImageFont

from vrag.errors import MediaRejectedError, UsageError
from vrag.media.video import iter_frames, probe_video
from vrag.provenance.fonts import find_font, font_with
from vrag.provenance.glyphs import covered, unshapable
from vrag.provenance.label import Label, check_label, draw_label
from vrag.provenance.metadata import read_aigc, write_aigc
from vrag.testing import make_film
from vrag.values.requests import Shot, VideoRequest

PHOTO = (files("vrag") / "demo" / "photos" / "osprey-on-branch.jpg").read_bytes()


def ground(colour):
    """A picture of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(out, "PNG")
    return out.getvalue()


GREY = ground((90, 90, 90))
POSITIONS = {
    "top left": (0, 0),
    "top": (0, 1),
    "top right": (0, 2),
    "bottom left": (2, 0),
    "bottom": (2, 1),
    "bottom right": (2, 2),
}


def a_film(width_px=320, height_px=180, *, duration_s=1.0, fps=12, picture=GREY):
    out = io.BytesIO()
    shot = Shot(prompt="x", duration_s=duration_s)
    make_film(VideoRequest(shots=(shot,), width_px=width_px, height_px=height_px, fps=fps), {0: picture}, out)
    return out


def labelled(film, **options):
    out = io.BytesIO()
    done = draw_label(film, out, Label(**{"text": "AI-generated"} | options))
    return out, done


def change(before, after, index=0):
    """How much each pixel of a frame changed."""
    frames = [list(iter_frames(film))[index].astype(int) for film in (before, after)]
    return np.abs(frames[0] - frames[1]).max(axis=2)


@pytest.mark.parametrize("position", POSITIONS)
def test_it_stands_where_it_should_and_inside_the_margins(position):
    film = a_film()
    out, _ = labelled(film, position=position, size_fraction=0.08)
    rows, columns = np.nonzero(change(film, out) > 60)
    third = POSITIONS[position]
    assert (int(rows.mean()) * 3 // 180, int(columns.mean()) * 3 // 320) == third
    margin = round(0.04 * 180) - 3
    assert rows.min() >= margin
    assert rows.max() < 180 - margin
    assert columns.min() >= margin
    assert columns.max() < 320 - margin


@pytest.mark.parametrize(("width_px", "height_px"), [(640, 360), (360, 640), (500, 500)])
@pytest.mark.parametrize("size_fraction", [0.05, 0.1])
def test_letters_are_as_high_as_asked_in_any_shape_of_film(width_px, height_px, size_fraction):
    film = a_film(width_px, height_px, duration_s=0.2)
    out, _ = labelled(film, text="AI film", size_fraction=size_fraction, position="top")
    white = next(iter(iter_frames(out))).min(axis=2) > 150
    rows = np.nonzero(white[: -height_px // 16].any(axis=1))[0]  # above the bar that grows along the lower edge
    assert rows.max() - rows.min() + 1 >= size_fraction * min(width_px, height_px) - 1


def test_size_rate_frames_and_times_stay_and_so_do_pixels_away_from_it():
    film = a_film(640, 360, duration_s=2.0, fps=24, picture=PHOTO)
    out, done = labelled(film)
    before, after = probe_video(film), probe_video(out)
    assert before == after
    assert (done["frames"], done["of_frames"]) == (48, 48)
    error = np.square(change(film, out)[:240].astype(float)).mean()
    assert 10 * np.log10(255**2 / error) > 40


def test_the_same_film_gives_the_same_bytes():
    film = a_film(picture=PHOTO)
    assert labelled(film)[0].getvalue() == labelled(film)[0].getvalue()


def test_it_can_stand_at_the_start_alone():
    film = a_film(duration_s=3.0)
    out, done = labelled(film, at="start", duration_s=2.0)
    assert done["frames"] == 24
    assert change(film, out, 0).max() > 60
    assert change(film, out, 23).max() > 60
    assert change(film, out, 24).max() < 30


def test_it_is_white_with_a_dark_edge_on_any_ground():
    for colour in ("white", "black"):
        out, _ = labelled(a_film(640, 360, duration_s=0.2, picture=ground(colour)), position="top left")
        part = next(iter(iter_frames(out)))[:60, :220].astype(int)
        assert part.max() > 220
        assert part.min() < 90
        assert np.ptp(part, axis=2).max() < 12  # grey: no colour was converted


@pytest.mark.parametrize(
    ("encoder", "pixels", "codec", "becomes"),
    [
        ("libsvtav1", "yuv420p", "av1", "av1"),
        ("libx264", "yuvj420p", "h264", "h264"),
        ("libx264", "yuv444p", "h264", "h264"),
        ("mpeg4", "yuv420p", "mpeg4", "h264"),
    ],
)
def test_films_of_other_codecs_and_colours_are_labelled_too(monkeypatch, encoder, pixels, codec, becomes):
    monkeypatch.setenv("SVT_LOG", "1")
    film = io.BytesIO()
    with av.open(film, "w", format="mp4") as made:
        video = made.add_stream(encoder, rate=Fraction(30000, 1001))
        video.width, video.height, video.pix_fmt = 160, 90, pixels
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((90, 160, 3), 9 * number, np.uint8), format="rgb24")
            made.mux(video.encode(frame))
        made.mux(video.encode(None))
    out, done = labelled(film, size_fraction=0.1)
    before, after = probe_video(film), probe_video(out)
    assert (before.codec, after.codec) == (codec, becomes)
    assert evolve(after, codec=codec) == before
    assert done["frames"] == 12
    assert change(film, out, 6)[45:].max() > 60
    assert change(film, out, 6)[:40].max() < 12
    marked = io.BytesIO()
    write_aigc(film, marked, {"Label": "1"})
    assert read_aigc(marked) == {"Label": "1"}
    assert probe_video(marked) == before


def test_varying_times_sound_and_keys_of_the_film_stay():
    film = io.BytesIO()
    with av.open(film, "w", format="mp4", options={"movflags": "use_metadata_tags"}) as made:
        made.metadata["AIGC"] = "kept"
        video = made.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 90, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        sound = made.add_stream("aac", rate=16_000, layout="mono")
        for number, moment in enumerate((0, 40, 90, 300, 310, 700)):
            frame = av.VideoFrame.from_ndarray(np.full((90, 160, 3), 20 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            made.mux(video.encode(frame))
        made.mux(video.encode(None))
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        tone.sample_rate = 16_000
        made.mux(sound.encode(tone))
        made.mux(sound.encode(None))
    out, _ = labelled(film, size_fraction=0.1)

    def read(stream):
        stream.seek(0)
        with av.open(stream, "r", format="mp4") as container:
            [one] = container.streams.audio
            packets = [bytes(packet) for packet in container.demux(one) if packet.size]
            container.seek(0)
            times = [round(float(frame.time), 3) for frame in container.decode(video=0)]
            return times, packets, container.metadata["AIGC"]

    assert read(out) == read(film)
    assert read(out)[0] == [0.0, 0.04, 0.09, 0.3, 0.31, 0.7]
    assert len(read(out)[1]) > 2


# -- characters


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("人工智能生成", "U+4EBA"),
        ("KI · öffentlich", "U+00F6"),
        ("AI 🤖", "U+1F916"),
        ("создано ИИ", "U+0418"),
    ],
)
def test_a_character_that_the_font_lacks_is_named_and_no_box_is_drawn(text, missing):
    with pytest.raises(UsageError, match=rf"lacks .*{missing.replace('+', '[+]')}"):
        check_label(Label(text=text), width_px=1280, height_px=720)


@pytest.mark.parametrize("text", ["two\nlines", "bell\x07", "\u202eturned", "", "   ", "half \ud800", "\ue000"])
def test_a_text_that_is_no_line_is_refused(text):
    with pytest.raises(UsageError):
        check_label(Label(text=text), width_px=1280, height_px=720)


def test_a_text_that_is_too_wide_says_how_wide_it_is():
    with pytest.raises(UsageError, match=r"too large for a film of 320 x 180: shorten its text"):
        check_label(Label(text="generated by artificial intelligence", size_fraction=0.2), width_px=320, height_px=180)


@pytest.mark.parametrize("text", ["مولد", "נוצר", "สร้าง", "कृत्रिम", "e\u0301\u0327x"])
def test_scripts_that_must_be_shaped_are_refused_where_nothing_shapes_them(text):
    assert "no Raqm" in unshapable(text, shaper=False)
    assert unshapable(text, shaper=True) is None


@pytest.mark.parametrize(
    "text", ["AI-generated, 2026", "人工智能生成", "AI生成です", "인공지능", "Создано ИИ", "Œuvre « IA »"]
)
def test_scripts_that_stand_one_after_the_other_need_no_shaper(text):
    assert unshapable(text, shaper=False) is None


def test_coverage_is_what_the_character_map_says():
    font = ImageFont.load_default(20)
    has = covered(font.font_bytes)
    assert {ord(one) for one in "AI-generated (2026)"} <= has
    assert ord("ö") not in has
    nothing = font.getmask("\U0010fffd").getbbox(), bytes(font.getmask("\U0010fffd"))
    assert (font.getmask("ö").getbbox(), bytes(font.getmask("ö"))) == nothing  # what would have been drawn


@pytest.mark.parametrize("data", [b"", b"no font", b"\0\1\0\0" + bytes(40), b"ttcf" + b"\xff" * 60])
def test_what_is_no_font_is_refused(tmp_path, data):
    path = tmp_path / "font.ttf"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="not a TrueType or OpenType font"):
        check_label(Label(text="AI", font=str(path)), width_px=1280, height_px=720)
    with pytest.raises(UsageError, match="There is no font"):
        check_label(Label(text="AI", font=str(tmp_path / "none.ttf")), width_px=1280, height_px=720)


@pytest.fixture
def fonts(tmp_path, monkeypatch):
    """A person's own folder of fonts: the one that Pillow brings, and what is no font."""
    folder = tmp_path / ".fonts" / "deep"
    folder.mkdir(parents=True)
    (folder / "Bundled-Sans.ttf").write_bytes(ImageFont.load_default(20).font_bytes)
    (folder / "A.ttf").write_bytes(b"no font")
    monkeypatch.setattr("vrag.provenance.fonts._FOLDERS", (str(tmp_path / ".fonts"), str(tmp_path / "absent")))
    return folder


def test_a_font_is_found_by_its_file_name_or_by_its_characters(fonts):
    assert find_font("bundled-sans.TTF") == fonts / "Bundled-Sans.ttf"
    assert find_font(str(fonts / "A.ttf")) == fonts / "A.ttf"
    check_label(Label(text="AI", font="Bundled-Sans.ttf"), width_px=1280, height_px=720)
    for name in ("Absent.ttf", "deep/Bundled-Sans.ttf", "../.fonts/deep/Bundled-Sans.ttf"):
        with pytest.raises(UsageError, match="There is no font"):
            find_font(name)
    assert font_with({ord("A")}) == fonts / "Bundled-Sans.ttf"
    assert font_with({ord("A"), ord("ö")}) is None


@pytest.mark.parametrize("text", ["KI: ä é ø ß ł", "AI生成"])
def test_a_refused_label_says_what_to_write_next(text):
    with pytest.raises(UsageError, match="lacks") as refused:
        check_label(Label(text=text), width_px=1280, height_px=720)
    found = font_with({ord(one) for one in text if one != " "})
    assert refused.value.hint is not None
    assert ("NotoSansSC" if found is None else str(found)) in refused.value.hint
    if found is not None:
        check_label(Label(text=text, font=found.name), width_px=1280, height_px=720)


def test_another_font_draws_another_script():
    package = pytest.importorskip("noto_cjk_sans_otc", reason="no font with Chinese: pip install noto-cjk-sans-otc")
    font = str(files(package) / "NotoSansCJK-Regular.ttc")
    label = Label(text="人工智能生成", font=font, size_fraction=0.08)
    check_label(label, width_px=320, height_px=180)
    film, out = a_film(duration_s=0.2), io.BytesIO()
    draw_label(film, out, label)
    shapes = {
        text: change(film, labelled(film, font=font, text=text, size_fraction=0.08)[0]).tobytes()
        for text in ("人", "工")
    }
    assert len(set(shapes.values())) == 2
    with pytest.raises(UsageError, match="lacks"):
        check_label(evolve(label, text="AI 🤖"), width_px=320, height_px=180)


def test_what_is_no_film_is_refused():
    with pytest.raises(MediaRejectedError):
        labelled(io.BytesIO(b"nothing"))
