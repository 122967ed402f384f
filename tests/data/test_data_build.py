"""The whole way from a folder to rows, through the command line, and that every row is what a reader expects."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from engine.keye import KeyeProcessor
from finetune.data.build import MAKERS, Plan, build
from finetune.data.cli import add_commands
from finetune.data.items import Item, Medium
from finetune.data.makers import documents, texts
from finetune.data.rowfile import Example, Turn, to_row
from finetune.data.rows import Footage, parse_row
from finetune.errors import FinetuneError
from tests.data.pictures import field, save

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"
CATEGORIES = ("caption", "ocr_vqa", "grounding", "interleaved", "video", "text")
HTML = "<img src=x onerror=alert(1)>"


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(dest="command", required=True))
    args = parser.parse_args(["data", *map(str, arguments)])
    return args.act(args)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Media of all six categories, and one of each thing that goes wrong."""
    made = tmp_path_factory.mktemp("media") / "in"
    save(made / "pic.png", field(1))
    save(made / "copy.jpg", field(1), quality=95)
    (made / "pic.json").write_text(
        json.dumps(
            {
                "text": "A field of colours.",
                "width": 160,
                "height": 120,
                "objects": [{"name": "blob", "bbox": [0, 0, 80, 60]}],
                "questions": [{"question": "What is it?", "answer": "A field."}],
            }
        )
    )
    save(made / "sign.png", field(2))
    (made / "sign.json").write_text(json.dumps({"text": HTML, "screen": [{"start": 0, "end": 0, "text": "出口"}]}))
    (made / "page.md").write_text("Look:\n\n![](pic.png)\n\nColours everywhere.")
    (made / "story.txt").write_text("Once there was a small house. It stood by the sea. Nobody ever lived in it.")
    clips = ("heart-and-cross", "three-shapes", "colour-change", "square-appears")
    for name, clip in zip(("x/1.mp4", "x/2.mp4", "y/1.mp4", "y/2.mp4"), clips, strict=True):
        (made / name).parent.mkdir(exist_ok=True)
        shutil.copy(DEMO / f"{clip}.mp4", made / name)
    (made / "x/1.srt").write_text("1\n00:00:01,000 --> 00:00:03,000\nHello.\n")
    (made / "y/1.json").write_text(json.dumps({"events": [{"start": 0, "end": 2, "text": "It begins."}]}))
    (made / "broken.mp4").write_bytes(b"\0" * 300)
    (made / "broken.json").write_text("{")
    return made


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "out"
    assert run("build", folder, "--out", out, "--candidates", 2, "--frames", "16,32", "--jaccard", 0.85) == 0
    return out


def rows(out: Path) -> dict[str, list[dict]]:
    return {
        category: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for category in CATEGORIES
        if (path := out / f"rows-{category}.jsonl").is_file()
    }


def test_all_six_categories_are_made(built):
    made = rows(built)
    assert set(made) == set(CATEGORIES)
    (caption,) = made["caption"]
    assert caption == {
        "messages": [
            {"role": "user", "content": caption["messages"][0]["content"]},
            {"role": "assistant", "content": "A field of colours."},
        ],
        "images": ["media/pic.png"],
        "category": "caption",
        "source": "pic.png",
    }
    assert caption["messages"][0]["content"].startswith("<image>")
    (page,) = made["interleaved"]
    assert [message["content"] for message in page["messages"]] == ["Look:<image>", "Colours everywhere."]
    answers = [row["messages"][1]["content"] for row in made["ocr_vqa"] + made["grounding"]]
    assert answers == [
        "A field.",
        "<|ocr_text_start|>出口<|ocr_text_end|>",
        "<|object_ref_start|>blob<|object_ref_end|><|box_start|>[[0, 0, 500, 500]]<|box_end|>",
        "1",
    ]
    (story,) = made["text"]
    assert story["messages"][0]["content"].endswith("Once there was a small house.")


def test_every_row_is_whole(built):
    """As many marks as media in the user's texts, none in answers; turns alternate; every path lies within."""
    for several in rows(built).values():
        for row in several:
            roles = [message["role"] for message in row["messages"]]
            assert roles == ["user", "assistant"] * (len(roles) // 2) and roles
            for kind in ("image", "video"):
                media = row.get(f"{kind}s", [])
                asked = "".join(message["content"] for message in row["messages"][::2])
                assert asked.count(f"<{kind}>") == len(media)
                for medium in media:
                    path = medium if isinstance(medium, str) else medium["path"]
                    assert not os.path.isabs(path) and ".." not in path.split("/")
                    assert (built / path).is_file() and not (built / path).is_symlink()
            assert not re.search("<(image|video)>", "".join(message["content"] for message in row["messages"][1::2]))


def test_what_learns_from_conversations_reads_every_row(built):
    processor = KeyeProcessor.from_pretrained(DEMO.parent / "keye-nano")
    for category, several in rows(built).items():
        for number, row in enumerate(several, 1):
            read = parse_row(row, built, f"{category}:{number}")
            assert read.answers == len(row["messages"]) // 2
            files = [medium.clip.path if isinstance(medium, Footage) else medium for medium in read.media]
            assert all(path.is_file() for path in files)
            # The marks of an answer reach the model as they are; a prompt's own tokens would not.
            assert all(processor.sanitize(turn.text) == turn.text for turn in read.turns)


def test_video_rows_come_once_for_each_limit(built):
    videos = [entry for row in rows(built)["video"] for entry in row.get("videos", [])]
    limits = [entry["max_frames"] for entry in videos]
    assert set(limits) == {16, 32} and limits.count(16) == limits.count(32)


def test_the_report_counts_and_names(built, folder):
    facts = json.loads((built / "report.json").read_text("utf-8"))
    steps = {step["step"]: {one["why"]: one["examples"] for one in step["left_out"]} for step in facts["steps"]}
    assert steps["folder"] == {"a sidecar cannot be used": ["broken.json: the file is not JSON"]}
    assert steps["media"]["a video cannot be read"][0].startswith("broken.mp4: ")
    assert steps["duplicates"] == {"looks like another one": ["copy.jpg: like pic.png"]}
    assert steps["text"] == {"a text holds markup": [f"sign.png: {HTML}"]}
    assert facts["rows"] == {category: len(several) for category, several in rows(built).items()}
    page = (built / "report.html").read_text("utf-8")
    assert HTML not in page and "&lt;img src=x" in page
    assert "<script" not in page and "copy.jpg: like pic.png" in page
    assert "data:image/jpeg;base64," in page


def test_a_second_run_writes_the_same(built, folder):
    before = {path.name: path.read_bytes() for path in built.glob("*.json*")}
    (built / "rows-old.part").write_text("x")
    assert run("build", folder, "--out", built, "--candidates", 2, "--frames", "16,32", "--jaccard", 0.85) == 0
    assert {path.name: path.read_bytes() for path in built.glob("*.json*")} == before


def test_steps_can_be_chained(folder, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("text", folder, "--out", first, "--min-side", 100) == 0
    assert "a video cannot be read (1)" in capsys.readouterr().out
    assert run("duplicates", folder, "--out", second, "--items", first / "items.jsonl", "--jaccard", 0.85) == 0
    names = [json.loads(line)["id"] for line in (second / "items.jsonl").read_text().splitlines()]
    assert "copy.jpg" not in names and "broken.mp4" not in names and "pic.png" in names
    assert run("grounding", folder, "--out", tmp_path / "third", "--items", second / "items.jsonl") == 0
    assert list(rows(tmp_path / "third")) == ["grounding"]


def test_what_a_user_can_get_wrong_is_one_sentence(folder, tmp_path):
    out = str(tmp_path / "out")
    for arguments, why in (
        (["build", tmp_path / "none", "--out", out], "is no folder"),
        (["build", folder, "--out", folder / "out"], "would be read next time"),
        (["build", folder, "--out", out, "--steps", "text,fly"], "no step 'fly'"),
        (["build", folder, "--out", out, "--steps", "ocr"], "needs a model"),
        (["build", folder, "--out", out, "--steps", "similarity"], "needs an encoder"),
        (["build", folder, "--out", out, "--frames", "16,x"], "--frames takes numbers"),
        (["build", folder, "--out", out, "--frames", "inf"], "--frames takes numbers"),
        (["build", folder, "--out", out, "--frames", "0"], "at least 1"),
        (["build", folder, "--out", out, "--jaccard", "2"], "Jaccard threshold"),
        (["decontaminate", folder, "--out", out], "needs the folder of a benchmark"),
        (["similarity", folder, "--out", out, "--encoder", folder, "--threshold", "0.1"], "no config.json"),
        (["text", folder, "--out", out, "--items", tmp_path / "none.jsonl"], "cannot be read"),
        (["text", folder, "--out", folder / "pic.png"], "name another --out"),
    ):
        with pytest.raises(FinetuneError) as told:
            run(*arguments)
        assert why in str(told.value) and "\n" not in str(told.value)


def test_a_failed_build_leaves_the_rows_of_the_last_one(built, folder, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(built, out)
    before = {path.name: path.read_bytes() for path in out.glob("rows-*")}
    plan = Plan(folder, out, ("caption", "related"), candidates=99)
    with pytest.raises(FinetuneError):
        build(plan)
    assert {path.name: path.read_bytes() for path in out.glob("rows-*")} == before
    assert set(MAKERS) >= {"caption", "related"}


def test_texts_are_cut_where_a_sentence_ends():
    whole = "A first sentence stands here. " * 2 + "And the last one is the longest of all of them."
    (example,), _ = texts([Item("t", text=whole)])
    given, rest = example.turns[0].parts[0], example.turns[1].parts[0]
    assert given.endswith("\n\nA first sentence stands here.")
    assert rest == whole[len("A first sentence stands here. ") :]
    (chinese,), _ = texts([Item("t", text="这是第一句话，它有不止二十个汉字，所以可以在这里切开。" * 2)])
    assert chinese.turns[0].parts[0].startswith("续写这段文字。")
    made, report = texts([Item("t", text="No end in sight"), Item("t", text="Short. Text.")])
    assert made == [] and report.left_out == 2


def test_documents_take_turns():
    a, b = Medium("a.png", "image"), Medium("b.mp4", "video")
    item = Item("d", (a, b, a), parts=("One", a, "two", "three", b, a, "four", b))
    (example,), _ = documents([item])
    row = to_row(example)
    assert [message["content"] for message in row["messages"]] == ["One<image>", "two", "three<video><image>", "four"]
    assert row["images"] == ["media/a.png", "media/a.png"] and row["videos"] == ["media/b.mp4"]
    made, report = documents([Item("d", (a,), parts=("One", a))])
    assert made == [] and report.left_out == 1


def test_a_text_that_would_break_a_row_costs_that_row_only(tmp_path):
    save(tmp_path / "in" / "a.png", field(1))
    (tmp_path / "in" / "a.txt").write_text("A caption with <video> in it.")
    save(tmp_path / "in" / "b.png", field(2))
    (tmp_path / "in" / "b.txt").write_text("A good caption.")
    facts = build(Plan(tmp_path / "in", tmp_path / "out", ("caption",)))
    assert facts["rows"]["caption"] == 1
    assert facts["steps"][1]["left_out"][0]["examples"] == ["a.png: A text of a.png holds the mark of a medium."]


@pytest.mark.parametrize(
    "turns",
    [
        (),
        (Turn("assistant", ("a",)),),
        (Turn("user", ("q",)),),
        (Turn("user", ("q <image>",)), Turn("assistant", ("a",))),
        (Turn("user", ("q",)), Turn("assistant", (Medium("a.png", "image"),))),
        (Turn("user", ("q",)), Turn("assistant", (" ",))),
    ],
)
def test_what_is_no_row_is_not_written(turns):
    with pytest.raises(FinetuneError):
        to_row(Example("text", "x", turns))
