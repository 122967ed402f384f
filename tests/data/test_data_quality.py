"""Quality filters: what is wrong with a text or a medium, by name."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.data.items import Caption, Item, Medium, Region, Timed
from finetune.data.quality import MediaLimits, TextLimits, media, text, wrong_with
from tests.data.pictures import field, save
from tests.media import cut_short, make_clip

GOOD = [
    ("A red bus stops at the corner of two streets, and three people get off.", "en"),
    ("一辆红色的公交车停在路口，三个人下车。", "zh"),
    ("Der Zug fährt über die Brücke nach Köln.", "de"),
    ("これは猫です。", "ja"),
    ("2 + 2 = 4", ""),
    ("Café Noël – “très bien”, 50 % off!", "fr"),
    ("用 Photoshop 修过的照片", "zh"),
    ("GO", ""),
]
BAD = [
    ("x", "", "a text is too short"),
    ("word " * 9000, "", "a text is too long"),
    ("see <image> here", "", "a text holds the mark of a medium"),
    ("hello<|im_end|>\n<|im_start|>system", "", "a text holds a control token"),
    ("The CafÃ© in MÃ¼nchen", "", "a text is garbled"),  # UTF-8 read as Latin-1
    ("broken \ufffd\ufffd bytes", "", "a text is garbled"),
    ("null\x00byte here", "", "a text is garbled"),
    ("#$%^&*()_+{}|:<>?~~~!!!@@@", "", "a text is garbled"),
    ("<div class='x'>Buy now</div>", "", "a text holds markup"),
    ("buy now " * 60, "", "a text repeats itself"),
    ("A red bus stops here.", "zh", "a text is not in the language it is marked with"),
    ("一辆红色的公交车停在路口。", "en", "a text is not in the language it is marked with"),
]
LIMITS = TextLimits(shortest=2)


@pytest.mark.parametrize(("said", "language"), GOOD)
def test_good_texts_pass(said, language):
    assert wrong_with(said, LIMITS, language) == ""


@pytest.mark.parametrize(("said", "language", "why"), BAD)
def test_bad_texts_are_named(said, language, why):
    assert wrong_with(said, LIMITS, language) == why


def test_languages_may_be_chosen():
    limits = TextLimits(languages=("zh",))
    assert wrong_with("A red bus.", limits, "en") == "a text is in another language"
    assert wrong_with("A red bus.", limits, "") == ""  # not marked: nobody knows


def test_a_medium_stays_without_its_bad_texts():
    bad, good = "The CafÃ© in MÃ¼nchen", "A red bus."
    item = Item(
        "a.png",
        (Medium("a.png", "image"),),
        bad,
        questions=((good, "Yes."), (bad, "No.")),
        speech=(Timed(0, 1, good), Timed(1, 2, bad)),
        regions=(Region("bus", "point", ((0, 0),)), Region("<|im_end|>", "point", ((0, 0),))),
        counts=(("bus", 1), ("<|im_end|>", 2)),
        captions=(Caption(good, "m"), Caption("x" * 3, "m")),
    )
    (left,), report = text([item], TextLimits())
    assert left.media and left.text == ""
    assert left.questions == ((good, "Yes."),)
    assert left.speech == (Timed(0, 1, good),)
    assert [region.name for region in left.regions] == ["bus"] and left.counts == (("bus", 1),)
    assert report.reasons["a text is garbled"].count == 3


def test_what_is_left_with_nothing_goes():
    parts = ("Before.", Medium("a.png", "image"), "a <video> after")
    items = [Item("t", text="x"), Item("d", (Medium("a.png", "image"),), parts=parts), Item("ok", text="All is well.")]
    kept, report = text(items, TextLimits())
    assert [item.id for item in kept] == ["ok"]
    assert report.left_out == 2


def test_broken_and_small_media_are_named(tmp_path):
    save(tmp_path / "good.png", field(1))
    save(tmp_path / "small.png", field(2, 40, 30))
    save(tmp_path / "strip.png", np.zeros((60, 60 * 201, 3), np.uint8))
    cut_short(save(tmp_path / "cut.jpg", field(3)), 0.5)
    (tmp_path / "text.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    make_clip(tmp_path / "good.mp4", frames=10)
    cut_short(make_clip(tmp_path / "cut.mp4", frames=10), 0.3)
    bomb(tmp_path / "bomb.png", 50_000)
    names = ["good.png", "small.png", "strip.png", "cut.jpg", "text.jpg", "bomb.png", "missing.png"]
    items = [Item(name, (Medium(name, "image"),)) for name in names]
    items += [Item(name, (Medium(name, "video"),)) for name in ("good.mp4", "cut.mp4")]
    items.append(Item("late", (Medium("good.mp4", "video", 5.0, 6.0),)))
    kept, report = media(items, tmp_path, MediaLimits())
    assert [item.id for item in kept] == ["good.png", "good.mp4"]
    told = {why: reason.examples for why, reason in report.reasons.items()}
    assert told["the resolution is too low"] == ["small.png: 40×30"]
    assert told["a medium is too oblong"] == ["strip.png: 12060×60"]
    assert [line.partition(":")[0] for line in told["a picture cannot be read"]] == [
        "cut.jpg",
        "text.jpg",
        "missing.png",
    ]
    assert [line.partition(":")[0] for line in told["a picture is too large"]] == ["bomb.png"]
    assert [line.partition(":")[0] for line in told["a video cannot be read"]] == ["cut.mp4", "late"]


def bomb(path, side):
    """A small PNG that says it is enormous: a right header, and next to no data."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
