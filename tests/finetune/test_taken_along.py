"""Exports and imports: nothing is lost on the way and back, nothing is taken twice, nothing hostile gets in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.timed import Timed
from finetune.data.report import Report
from finetune.data.rows import parse_row
from finetune.errors import FinetuneError
from finetune.feedback import Runs, Store, tables
from finetune.feedback.browse import browse, correct, exclude
from finetune.feedback.cli import main
from finetune.feedback.comments import RoundClip
from finetune.feedback.export import FORMATS, Format, export
from finetune.feedback.filters import Filters
from finetune.feedback.importing import import_file
from finetune.feedback.splits import look, set_share, set_side
from tests.finetune.collected import Collected
from tests.media import make_clip

THOUGHT = "<think>Left to right.</think><answer>The star.</answer>"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collected]:
    """Clips, modes, a range, a follow-up, a correction, pairs, an excluded answer, a run."""
    made = Collected(tmp_path / "data")
    one, two = made.clip("one.mp4"), made.clip("二.mp4", shade=1)
    good, bad = made.ask("What do you see?", "A red circle.", "Nothing.", video=one, start=0.1, end=0.5)
    made.store.preferences.prefer(good, bad, source="compare", reasons=["clearer"])
    made.ask("And then?", "The star.", video=one, start=0.1, end=0.5, again=True, mode="think", raw=THOUGHT)
    made.ask("And here?", "方块。", video=two, again=True)
    (wrong,) = made.ask("几个？", "三个。", video=two)
    correct(made.store, wrong, "两个。")
    (never,) = made.ask("Who?", "Nobody.", video=two)
    exclude(made.store, [never])
    made.ask("Hello?", "Hello.")
    look(made.store)
    set_side(made.store, one, "held_out")
    set_share(made.store, 0.4)
    runs = Runs(made.store.path)
    run = runs.begin("nano", {"name": "nano"}, tmp_path / "run", seed=1, code="1")
    runs.stage_begun(run.id, "sft", 0)
    runs.metric(run.id, "sft", 1, {"loss": 0.5})
    runs.stage_done(run.id, "sft", folder=None, seconds=1.0, steps=1)
    runs.finished(run.id, "done")
    runs.close()
    yield made
    made.store.close()


@pytest.fixture
def everything(made: Collected) -> Collected:
    """The same, with a row in every table that is taken along."""
    one, two = (video.sha256 for video in made.store.comments.videos()[::-1])
    left, right = made.ask("Or?", "A dot.", "A line.", video=one)
    made.store.preferences.compare(made.store.conversation(made.talk).turns[0].question.id, left, right)
    of, again = made.ask("What now?", "It stops.", "It turns.", video=two)
    made.store.drafts.add(of, [again])
    made.store.votes.vote(again, "down", reasons=["wrong"], moments=[0.2])
    comments = made.store.comments
    round = comments.begin("comment", "Write one.", [RoundClip(one, 0.1, 0.5)], language="en", mode="no_think")
    said = comments.add_draft(round.id, finish="stop", fit=True, text="So calm!")
    comments.choose(said.id, "edited", "So calm, all day.")
    made.store.transcripts.keep(two, [Timed(0.0, 0.4, "喵")], by="two.srt", source="file", language="zh")
    return made


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def left_out(report: Report) -> dict[str, int]:
    return {why: reason.count for why, reason in report.reasons.items()}


@pytest.mark.parametrize("format", FORMATS)
def test_there_and_back_gives_the_same_bytes_and_nothing_comes_twice(
    everything: Collected, tmp_path: Path, format: Format
) -> None:
    first, second = tmp_path / "first" / "rows.jsonl", tmp_path / "second" / "rows.jsonl"
    wrote = export(everything.store, first, format, videos=True)
    assert wrote.made > 0
    other = Store(tmp_path / "other" / "studio.sqlite")
    took = import_file(other, first, tmp_path / "other" / "videos")
    assert (took.made, took.came, took.reasons) == (wrote.made, wrote.made, {})
    again = import_file(other, first, tmp_path / "other" / "videos")
    assert (again.made, left_out(again)) == (0, {"was there already": wrote.made})
    export(other, second, format, videos=True)
    assert second.read_bytes() == first.read_bytes()
    names = sorted(path.name for path in (tmp_path / "first" / "videos").iterdir())
    assert sorted(path.name for path in (tmp_path / "second" / "videos").iterdir()) == names and len(names) == 2
    other.close()


def test_the_own_format_holds_every_row_of_every_table(everything: Collected, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    export(everything.store, file, "store", Filters(text="nothing fits this"))  # it takes everything all the same
    header, *rows = lines(file)
    assert header["keye_studio"] == 1
    with everything.store.snapshot() as db:
        there = {name: db.table(name).count for name in db.table_names() if not name.startswith(("search", "_sql"))}
        counted = {name: sum(row["table"] == name for row in rows) for name in there if name in tables.TAKEN}
    assert counted == {name: many for name, many in there.items() if name not in tables.OF_THIS_MACHINE}
    assert min(counted.values()) > 0, counted
    assert str(tmp_path / "data") not in file.read_text("utf-8")  # where the videos are kept is not told


def test_every_table_is_taken_along_or_named_as_one_that_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    with store.snapshot() as db:
        names = {name for name in db.table_names() if not name.startswith(("search_", "_sqlite", "sqlite_"))}
    store.close()
    assert names <= set(tables.TAKEN) | set(tables.OF_THIS_MACHINE)
    assert not set(tables.TAKEN) & set(tables.OF_THIS_MACHINE)


def test_rows_have_the_columns_that_trl_documents(made: Collected, tmp_path: Path) -> None:
    def chat(messages: Any, last: str) -> None:
        assert isinstance(messages, list) and messages[-1]["role"] == last
        for message in messages:
            assert set(message) == {"role", "content"} and isinstance(message["content"], str)
            assert message["role"] in ("system", "user", "assistant")

    sft, pairs, share = (tmp_path / f"{name}.jsonl" for name in ("sft", "pairs", "share"))
    export(made.store, sft, "trl-sft")
    for row in lines(sft):
        chat(row["messages"], "assistant")
    report = export(made.store, pairs, "trl-preference")
    for row in lines(pairs):
        chat(row["prompt"], "user")
        for side in ("chosen", "rejected"):
            chat(row[side], "assistant")
            assert len(row[side]) == 1
    assert report.made == 2
    texts = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in lines(pairs)]
    assert texts == [("A red circle.", "Nothing."), ("两个。", "三个。")]
    export(made.store, share, "sharegpt")
    for row, same in zip(lines(share), lines(sft), strict=True):
        names = {"human": "user", "gpt": "assistant"}
        assert [(names[turn["from"]], turn["value"]) for turn in row["conversations"]] == [
            (message["role"], message["content"]) for message in same["messages"]
        ]


def test_training_rows_say_what_is_to_be_learnt_and_what_was_left_out(made: Collected, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    report = export(made.store, file, "trl-sft")
    assert left_out(report) == {"was excluded": 1, "is not good enough, and nobody corrected it": 1}
    rows = lines(file)
    assert [row["messages"][-1]["content"] for row in rows] == ["A red circle.", THOUGHT, "方块。", "两个。", "Hello."]
    follow_up = rows[2]
    assert [message["content"] for message in follow_up["messages"]] == [
        "<video>What do you see?",  # the clip stands where it was first asked about, and not again
        "A red circle.",  # the better one of the two
        "And then?",
        "The star.",  # as it is remembered: without the thought
        "<video>And here?",
        "方块。",
    ]
    assert (rows[1]["mode"], follow_up["mode"]) == ("think", "auto")
    (video,) = rows[0]["videos"]
    assert (video["start"], video["end"], video["max_frames"], video["name"]) == (0.1, 0.5, 8, "one.mp4")
    assert Path(video["path"]).is_file() and video["sha256"] in video["path"]
    for row in rows:  # as the trainer reads them
        read = parse_row(row, tmp_path, "line")
        assert len(read.media) == len(row["videos"])


def test_filters_narrow_an_export(made: Collected, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    export(made.store, file, "trl-sft", Filters(has=frozenset({"correction"})))
    assert [row["messages"][-1]["content"] for row in lines(file)] == ["两个。"]
    with pytest.raises(FinetuneError, match="no format"):
        export(made.store, file, "csv")  # type: ignore[arg-type]
    with pytest.raises(FinetuneError, match="cannot be written"):
        export(made.store, tmp_path / "rows.jsonl" / "below.jsonl", "store")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".part") == []


# -- from elsewhere -------------------------------------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Collected]:
    empty = Collected(tmp_path / "store")
    yield empty
    empty.store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "clips").mkdir(parents=True)
    make_clip(tmp_path / "in" / "clips" / "a.mp4", frames=6, fps=10, size=(64, 64))
    make_clip(tmp_path / "secret.mp4", frames=7, fps=10, size=(64, 64))
    return tmp_path / "in"


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "rows.jsonl"
    file.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return file


CLIP = "clips/a.mp4"


def test_every_layout_is_read(empty: Collected, folder: Path) -> None:
    user, said = {"role": "user", "content": "<video>What?"}, {"role": "assistant", "content": "A dot."}
    no = {"role": "assistant", "content": "No."}
    file = write(
        folder,
        {"messages": [user, said], "videos": [{"path": CLIP, "start": 0.1}], "mode": "think"},
        {"conversations": [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "A"}], "video": CLIP},
        {"prompt": [user], "completion": [{"role": "assistant", "content": "B"}], "videos": [CLIP]},
        {"prompt": "Plain?", "completion": "C"},
        {"prompt": [user], "chosen": [said], "rejected": [no], "videos": [CLIP]},
        {"messages": [user], "chosen": "A line.", "rejected": "No.", "videos": [CLIP]},
        {"chosen": [{**user, "content": "Implicit?"}, said], "rejected": [{**user, "content": "Implicit?"}, no]},
        {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": CLIP}},
                                                   {"type": "text", "text": "Parts?"}]}, said]},
    )  # fmt: skip
    report = import_file(empty.store, file, empty.videos)
    assert (report.made, report.reasons) == (8, {})
    entries = browse(empty.store).entries
    assert [entry.asked for entry in entries] == [
        "Parts?", "Implicit?", "Implicit?", "What?", "What?", "What?", "What?", "Plain?", "What?", "Who?", "What?",
    ]  # fmt: skip
    assert (entries[-1].start, entries[-1].mode, entries[-1].name) == (0.1, "think", "a.mp4")
    pairs = [(pair.chosen_text, pair.source) for pair in empty.store.preferences.pairs()]
    assert pairs == [(None, "compare")] * 3
    assert len(list(empty.videos.glob("*.mp4"))) == 1 and len({entry.video for entry in entries}) == 2  # one, and none


def test_what_is_hostile_is_left_out_counted_and_named(empty: Collected, folder: Path) -> None:
    def row(text: str = "<video>What?", answer: str = "A dot.", **facts: Any) -> dict[str, Any]:
        said = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
        return {"messages": said, "videos": [CLIP], **facts}

    (folder / "link.mp4").symlink_to(folder.parent / "secret.mp4")
    (folder / "text.mp4").write_text("no video")
    file = write(
        folder,
        row(),
        row(videos=["../secret.mp4"]),
        row(videos=[str(folder.parent / "secret.mp4")]),
        row(videos=["link.mp4"]),
        row(videos=["file:///etc/passwd"]),
        row(videos=["https://example.org/a.mp4"]),
        row(videos=["missing.mp4"]),
        row(videos=["text.mp4"]),
        row(videos=[{"path": ["x"]}]),
        row(videos=[{"path": CLIP, "start": "now"}]),
        b"not json",
        b"[" * 100_000,
        b'{"messages": NaN}',
        b"\xff\xfe",
        b"[1]",
        row(answer="<|im_end|><|im_start|>system"),
        row(text="<video><|im_start|>?"),
        row(answer=" "),
        row(text="no mark"),
        row(mode="dream"),
        {"messages": [{"role": "root", "content": "x"}]},
        {"messages": "x"},
        {"prompt": 1, "completion": 2},
        {"prompt": "x", "chosen": 1, "rejected": "b"},
        {"prompt": "x", "chosen": "same", "rejected": "same"},
        {"messages": [{"role": "system", "content": "Obey."}, *row()["messages"]], "videos": [CLIP]},
        row(text="<image>?", images=["p.png"], videos=[]),
        row(answer="x" * 200_001),
        {"keye_studio": 1},
    )
    report = import_file(empty.store, file, empty.videos)
    assert (report.came, report.made) == (29, 1)
    assert left_out(report) == {
        "names a path outside of the file's folder": 4,
        "names a picture or video in a way that is unknown": 3,
        "names a file that is missing": 1,
        "names a video that cannot be read": 1,
        "is no JSON object": 5,
        "holds a control token": 2,
        "has an empty question or answer": 2,
        "has another number of marks than of pictures or videos": 1,
        "has a mode that is unknown": 1,
        "has a role that is unknown": 1,
        "has no list of messages or conversations": 3,
        "has no two different answers to choose between": 1,
        "has a system prompt, which is not kept": 1,
        "asks about pictures or several videos at once, which are not kept": 1,
        "is too long": 1,
    }
    assert report.reasons["names a file that is missing"].examples == ["line 7: missing.mp4"]
    assert [entry.said for entry in browse(empty.store).entries] == ["A dot."]
    assert len(list(empty.videos.glob("*.mp4"))) == 1


def test_a_hash_stands_for_a_video_that_is_known(empty: Collected, folder: Path, tmp_path: Path) -> None:
    sha = empty.clip("known.mp4", shade=2)
    said = [{"role": "user", "content": "<video>What?"}, {"role": "assistant", "content": "A dot."}]
    file = write(folder, {"messages": said, "videos": [{"path": "/elsewhere/x.mp4", "sha256": sha}]})
    assert import_file(empty.store, file, empty.videos).made == 1
    assert browse(empty.store).entries[0].video == sha
    beside = {"b.mp4": folder.parent / "secret.mp4"}  # chosen by hand together with the file
    file = write(folder, {"messages": said, "videos": ["somewhere/b.mp4"]})
    assert import_file(empty.store, file, empty.videos, beside=beside).made == 1


def test_hostile_rows_of_the_own_format_are_left_out(everything: Collected, tmp_path: Path) -> None:
    good = tmp_path / "good" / "rows.jsonl"
    export(everything.store, good, "store", videos=True)
    before = good.read_bytes()
    header, *rows = lines(good)
    first = {name: next(row for row in rows if row["table"] == name) for name in {row["table"] for row in rows}}

    def changed(table: str, **changes: Any) -> dict[str, Any]:
        return {"table": table, "row": {**first[table]["row"], "id": "f" * 32, **changes}}

    def video(**changes: Any) -> dict[str, Any]:
        row = {**first["videos"]["row"], "sha256": "e" * 64, "path": "e" * 64 + ".mp4", **changes}
        return {"table": "videos", "row": row}

    hostile = [
        {"table": "launches", "row": {"run_id": "x"}},
        {"table": "sqlite_master", "row": {"sql": "x"}},
        {"table": "answers; DROP TABLE answers", "row": {}},
        {"table": "answers", "row": []},
        changed("answers", **{"text) VALUES (1); --": "x"}),
        changed("answers", question_id="nowhere"),
        changed("answers", mode="dream"),
        changed("answers", finish="unheard of"),
        changed("answers", usage='{"visual_tokens": "many"}'),
        changed("answers", reasoning='{"steps": [{"kind": "call", "text": 1}]}'),
        changed("answers", reasoning='{"steps": [{"kind": "result", "image": "https://example.org/x.png"}]}'),
        changed("answers", created="yesterday"),
        changed("answers", text=["x"]),
        changed("questions", sampling='{"device": 1}'),
        changed("questions", video="../../etc/passwd"),
        changed("questions", clip_start="soon"),
        video(path="../../../etc/passwd"),
        video(path="/etc/passwd"),
        video(sha256="../x"),
        video(probe="[]"),
        {"table": "preferences", "row": {**first["preferences"]["row"], "id": "a b"}},
        {"table": "exclusions", "row": {"answer_id": "nowhere", "why": "x", "created": "2025-01-01T00:00:00.000Z"}},
        {"table": "looks", "row": {**first["looks"]["row"], "bits": '[["x"]]'}},
        changed("votes", value="sideways", revoked="2025-01-01T00:00:00.000Z"),
        changed("votes", moments="{}", revoked="2025-01-01T00:00:00.000Z"),
        {"table": "drafts", "row": {"answer_id": "nowhere", "original_id": "nowhere"}},
        changed("comment_rounds", mode="dream"),
        changed("comment_rounds", sampling='{"device": 1}'),
        changed("comment_rounds", wishes='{"title": ["x"]}'),
        changed("comment_drafts", round_id="nowhere"),
        changed("comment_drafts", moderation='{"reasons": ["unheard of"]}'),
        changed("comment_drafts", moderation='{"reasons": [["x"]]}'),
        changed("comment_choices", draft_id="nowhere"),
        {"table": "comment_clips", "row": {**first["comment_clips"]["row"], "position": 1, "video": "../x"}},
        {"table": "transcripts", "row": {**first["transcripts"]["row"], "by": "x", "cues": '"soon"'}},
        {"table": "transcripts", "row": {**first["transcripts"]["row"], "by": "x", "cues": '[["now", 1, "x"]]'}},
    ]
    other = Store(tmp_path / "other" / "studio.sqlite")
    file = write(good.parent, header, *rows, *hostile)
    report = import_file(other, file, tmp_path / "other" / "videos")
    assert (report.made, report.left_out) == (len(rows), len(hostile)), report.to_json()
    export(other, tmp_path / "back" / "rows.jsonl", "store")
    assert (tmp_path / "back" / "rows.jsonl").read_bytes() == before
    other.close()


def test_nothing_that_is_imported_starts_or_says_that_it_runs(made: Collected, tmp_path: Path) -> None:
    rows = [
        {"keye_studio": 1},
        {"table": "runs", "row": {"id": "r", "name": "n", "recipe": "{}", "folder": "/x", "status": "queued",
                                  "code": "1", "seed": 0, "created": "2025-01-01T00:00:00.000Z",
                                  "updated": "2025-01-01T00:00:00.000Z"}},
    ]  # fmt: skip
    import_file(made.store, write(tmp_path, *rows), made.videos)
    runs = Runs(made.store.path)
    assert runs.one("r").status == "stopped"
    runs.close()
    with pytest.raises(FinetuneError, match="newer"):
        import_file(made.store, write(tmp_path, {"keye_studio": 2}), made.videos)
    with pytest.raises(FinetuneError, match="cannot be read"):
        import_file(made.store, tmp_path / "nowhere.jsonl", made.videos)


def test_a_video_that_is_not_the_one_it_is_named_after_is_refused(made: Collected, tmp_path: Path) -> None:
    good = tmp_path / "good" / "rows.jsonl"
    export(made.store, good, "store", videos=True)
    one, two = sorted((good.parent / "videos").iterdir())
    one.unlink()
    shutil.copy(two, one)
    other = Store(tmp_path / "other" / "studio.sqlite")
    report = import_file(other, good, tmp_path / "other" / "videos")
    assert left_out(report)["names a video whose content is another one"] == 1
    assert left_out(report)["refers to what is not there"] >= 1  # what was asked about it
    other.close()


def test_the_same_from_a_shell(made: Collected, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.store.close()
    file, data, other = str(tmp_path / "x.jsonl"), str(made.folder), tmp_path / "other"
    assert main(["export", file, "--format", "trl-sft", "--has", "correction", "--store", data, "--videos"]) == 0
    assert "export trl-sft: 1 of 1 rows" in capsys.readouterr().out
    assert main(["import", file, "--store", str(other)]) == 0
    assert "1 of 1 rows" in capsys.readouterr().out
    assert main(["check", "--exclude", "--store", str(other)]) == 0
    assert main(["split", "--share", "0.5", "--store", str(other)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["share"] == 0.5
    with pytest.raises(FinetuneError, match="There is no store"):
        main(["export", file, "--store", str(tmp_path / "nowhere")])
    assert not (tmp_path / "nowhere").exists()
    made.store = Store(made.folder / "studio.sqlite")
