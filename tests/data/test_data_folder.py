"""Reading a folder: which fact belongs to which medium, and what becomes of everything that is broken."""

from __future__ import annotations

import json
import os

import pytest

from finetune.data.folder import read_folder
from finetune.data.itemfile import read_items, write_items
from finetune.data.items import Caption, Item, Medium, Region, Timed
from finetune.errors import FinetuneError
from tests.data.pictures import field, save


def read(folder):
    items, report = read_folder(folder)
    return {item.id: item for item in items}, report


def told(report):
    return {why: reason.examples for why, reason in report.reasons.items()}


def test_facts_come_from_the_files_beside(tmp_path):
    for name in ("a.mp4", "b.jpg", "deep/c.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")  # media are not opened
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHi\n")
    (tmp_path / "a.txt").write_text("\ufeffA video.\r\n")
    facts = {
        "caption": "not this",
        "language": "EN",
        "tags": ["x", "y"],
        "group": "g",
        "questions": [{"question": "Q?", "answer": "A."}],
        "events": [{"start": 2, "end": 3, "text": "later"}, {"start": 0, "end": 1.5, "text": "first"}],
    }
    (tmp_path / "a.mp4.json").write_text(json.dumps(facts))
    (tmp_path / "captions.jsonl").write_text(
        '{"file": "b.jpg", "text": "First."}\n{"file": "b.jpg", "text": "Second."}\n'
        '{"file": "a.mp4", "text": "A part.", "start": 1, "end": 2.5}\n{"question": "1+1?", "questions": []}\n'
        '{"text": "Only text."}\n{"file": "deep/c.PNG", "text": "From above."}\n'
    )
    (tmp_path / "deep" / "captions.jsonl").write_text('{"file": "./c.PNG", "text": "From beside."}\n')
    items, report = read(tmp_path)
    assert items["a.mp4"] == Item(
        "a.mp4",
        (Medium("a.mp4", "video"),),
        "A video.",
        "en",
        "g",
        ("x", "y"),
        (("Q?", "A."),),
        speech=(Timed(1.0, 2.0, "Hi"),),
        events=(Timed(0.0, 1.5, "first"), Timed(2.0, 3.0, "later")),
    )
    assert items["b.jpg"].text == "First." and items["captions.jsonl:2"].text == "Second."
    assert items["captions.jsonl:3"].media == (Medium("a.mp4", "video", 1.0, 2.5),)
    assert items["captions.jsonl:5"] == Item("captions.jsonl:5", text="Only text.")
    assert items["deep/c.PNG"].text == "From beside."
    assert report.reasons == {}


def test_documents_keep_their_pictures_in_place(tmp_path):
    save(tmp_path / "pics" / "one two.png", field(1))
    (tmp_path / "doc.md").write_text("Start.\n\n![a](pics/one%20two.png)\nEnd ![b](./pics/../pics/one%20two.png).")
    (tmp_path / "plain.md").write_text("No pictures.")
    (tmp_path / "lost.md").write_text("![x](missing.png) text")
    (tmp_path / "out.md").write_text("![x](../../etc/passwd.png) text")
    (tmp_path / "net.md").write_text("![x](https://example.org/a.png) text")
    items, report = read(tmp_path)
    picture = Medium("pics/one two.png", "image")
    assert items["doc.md"].parts == ("Start.", picture, "End", picture, ".")
    assert items["plain.md"] == Item("plain.md", text="No pictures.")
    assert len(told(report)["a document names a medium that is not in the folder"]) == 3


def test_links_that_leave_the_folder_are_refused(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    save(outside / "secret.png", field(1))
    (outside / "secret.txt").write_text("secret")
    save(folder / "good.png", field(2))
    (folder / "inside.png").symlink_to("good.png")
    (folder / "evil.png").symlink_to(outside / "secret.png")
    (folder / "good.txt").symlink_to(outside / "secret.txt")
    (folder / "deep").symlink_to(outside)
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "captions.jsonl").write_text('{"file": "../outside/secret.png", "text": "x"}\n')
    items, report = read(folder)
    assert sorted(items) == ["good.png", "inside.png"]
    assert items["good.png"].text == ""
    assert told(report) == {
        "a link leads out of the folder": ["evil.png", "good.txt"],
        "a link to a folder is not followed": ["deep"],
        "a file is missing": ["gone.png"],
        "a line of captions names no medium of the folder": ["captions.jsonl:1: ../outside/secret.png"],
    }


BROKEN = {
    "latin.txt": (b"caf\xe9", "the file is not UTF-8"),
    "cut.json": (b'{"text": "a', "the file is not JSON"),
    "list.json": (b"[1]", "the file holds no JSON object"),
    "deep.json": (b"[" * 200_000, "the file is not JSON"),
    "odd.json": (b'{"text": 7}', "text is no text"),
    "long.json": (b'{"text": "' + b"x" * 300_000 + b'"}', "text is longer than 200,000 characters"),
    "no.srt": (b"hello", "no cue with a time and a text was found"),
    "times.json": (b'{"segments": [{"start": 5, "end": 1, "text": "x"}]}', "no times from start to end"),
    "nan.json": (b'{"segments": [{"start": NaN, "end": 1e999, "text": "x"}]}', "no times from start to end"),
    "digits.json": (b'{"segments": [{"start": 1' + b"0" * 500 + b', "end": 1, "text": "x"}]}', "no times"),
    "question.json": (b'{"questions": ["x", {"question": "a"}]}', "a question is no object"),
    "tags.json": (b'{"tags": "red"}', "tags is no list"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_sidecar_costs_its_facts_and_no_more(tmp_path, name):
    raw, why = BROKEN[name]
    medium = name.rpartition(".")[0] + ".png"
    (tmp_path / medium).write_bytes(b"x")
    (tmp_path / name).write_bytes(raw)
    items, report = read(tmp_path)
    assert items == {medium: Item(medium, (Medium(medium, "image"),))}
    (examples,) = told(report).values()
    assert examples[0].startswith(f"{name}: ") and why in examples[0]


def test_broken_lines_of_captions_are_counted(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "captions.jsonl").write_bytes(
        b'{"file": "a.png", "text": "Good."}\nnot json\n\xff\xfe\n[1]\n{"file": 7}\n{"file": "a.png", "text": "x", '
        b'"start": 3, "end": 1}\n{"file": "no.png", "text": "x"}\n{"text": "\\ud800 half"}\n'
    )
    items, report = read(tmp_path)
    assert items["a.png"].text == "Good."
    assert items["captions.jsonl:8"].text == "? half"
    assert {why: reason.count for why, reason in report.reasons.items()} == {
        "a line of captions cannot be read": 3,
        "a line of captions names no medium of the folder": 2,
        "a line of captions cannot be used": 1,
    }


def test_a_folder_of_nothing_is_told(tmp_path):
    with pytest.raises(FinetuneError, match="no videos, pictures or texts"):
        read_folder(tmp_path)
    (tmp_path / "notes.pdf").write_bytes(b"x")
    (tmp_path / "lonely.srt").write_text("x")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    with pytest.raises(FinetuneError, match=r"a sidecar has no medium of its name \(1\)"):
        read_folder(tmp_path)
    with pytest.raises(FinetuneError, match="is no folder"):
        read_folder(tmp_path / "notes.pdf")


def test_names_that_are_no_text_are_told(tmp_path):
    (tmp_path / "good.png").write_bytes(b"x")
    try:
        with open(os.fsencode(tmp_path) + b"/bad\xff.png", "wb"):
            pass
    except OSError:
        pytest.skip("this disk takes names in UTF-8 only")
    items, report = read(tmp_path)
    assert list(items) == ["good.png"]
    assert list(told(report)) == ["a file's name is not UTF-8"]


FULL = Item(
    "a.mp4",
    (Medium("a.mp4", "video", 1.0, None, 2.0, 16),),
    "text",
    "en",
    "g",
    ("t",),
    (("q", "a"),),
    (Timed(0.0, 1.0, "s"),),
    (Timed(1.0, 2.0, "e"),),
    (Timed(0.0, 0.0, "o"),),
    (Region("r", "box", ((0.0, 0.25), (1.0, 0.5))),),
    (("r", 3),),
    (Caption("c", "model", 0.5), Caption("d", "model")),
    ("x", Medium("b.png", "image")),
)


def test_items_are_read_back_as_they_were_written(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    items = [FULL, Item("t", text="短")]
    write_items(tmp_path / "items.jsonl", items)
    assert read_items(tmp_path / "items.jsonl", tmp_path)[0] == items


def test_lines_that_are_no_items_are_counted(tmp_path):
    write_items(tmp_path / "items.jsonl", [Item("good", text="x"), FULL])
    lines = [
        {"id": "a", "media": [{"path": "../../etc/passwd", "kind": "image"}]},
        {"id": "a", "media": [{"path": "a.mp4", "kind": "program"}]},
        {"id": "a", "media": "a.mp4"},
        {"id": 7},
        {},
        {"id": "a", "__class__": "x"},
        {"id": "a", "regions": [{"name": "r", "shape": "box", "points": [[0, 1, 2]]}]},
        {"id": "a", "captions": [{"text": "x", "by": "m", "fps": True}]},
    ]
    with (tmp_path / "items.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.write("not json\n")
    items, report = read_items(tmp_path / "items.jsonl", tmp_path)
    assert [item.id for item in items] == ["good"]
    assert {why: reason.count for why, reason in report.reasons.items()} == {
        "a line is no item": 8,
        "a medium is missing or outside the folder": 2,
    }
    (tmp_path / "empty.jsonl").write_text("\n")
    for name in ("empty.jsonl", "missing.jsonl"):
        with pytest.raises(FinetuneError):
            read_items(tmp_path / name, tmp_path)
