"""Files of conversations: the layouts that are read, and every row that is not learnt, named and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engine.video import Clip
from finetune.data.conversations import Conversations
from finetune.data.jsonl import load_rows, read_jsonl
from finetune.data.problems import BadRow
from finetune.data.rows import Footage, Row, Turn, parse_row
from finetune.errors import FinetuneError
from tests.data.talks import talk

HERE = Path("/data")


def parsed(row: Any) -> Row:
    return parse_row(row, HERE, "x.jsonl line 1")


def any_length(row: Row) -> int:
    return 10


# -- layouts ----------------------------------------------------------------------------------------------------------

CLIP = Footage(Clip(HERE / "v/a.mp4"))
ASKED = (Turn("user", (CLIP, "What?")), Turn("assistant", ("A heart.",)))


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "A heart."}],
         "videos": ["v/a.mp4"]},
        {"conversations": [{"from": "human", "value": "<video>What?"}, {"from": "gpt", "value": " A heart.\n"}],
         "video": "./v/a.mp4"},
        {"messages": [{"role": "user", "content": "\n<video>\n\nWhat?"}, {"role": "assistant", "content": "A heart."}],
         "videos": [{"path": "v/a.mp4"}]},
        {"messages": [{"role": "user", "content": [{"type": "video", "video": "v/a.mp4"},
                                                   {"type": "text", "text": "What?"}]},
                      {"role": "assistant", "content": [{"type": "text", "text": "A heart."}]}]},
        {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "/data/v/a.mp4"}},
                                                   {"type": "text", "text": "What?"}]},
                      {"role": "assistant", "content": "A heart."}]},
    ],
)  # fmt: skip
def test_every_layout_says_the_same(row: dict[str, Any]) -> None:
    assert parsed(row).turns == ASKED


@pytest.mark.parametrize(
    ("video", "wanted"),
    [
        ({"path": "a.mp4", "start": 1, "end": 2.5, "fps": 4, "max_frames": 8},
         Footage(Clip(HERE / "a.mp4", 1.0, 2.5), 4.0, 8)),
        ({"video": "a.mp4", "video_start": 1.5}, Footage(Clip(HERE / "a.mp4", 1.5))),
        ("/elsewhere/a.mp4", Footage(Clip(Path("/elsewhere/a.mp4")))),
        ("file:///elsewhere/a%20b.mp4", Footage(Clip(Path("/elsewhere/a b.mp4")))),
        ({"url": "a.mp4#t=1,2&fps=3&budget=512"}, Footage(Clip(HERE / "a.mp4", 1.0, 2.0), 3.0, None, 512)),
        ({"url": "file:///e/a.mp4#max_frames=2"}, Footage(Clip(Path("/e/a.mp4")), None, 2)),
    ],
)  # fmt: skip
def test_clips_have_ranges(video: Any, wanted: Footage) -> None:
    assert parsed(talk("<video>What?", "This.", videos=[video])).media == [wanted]


def test_media_are_taken_in_the_order_of_their_marks() -> None:
    row = parsed(
        talk("<image> or <video>?", "One.", "And <image><image>", "Two.", images=["1", "2", "3"], videos=["v.mp4"])
    )
    a, b, c = (HERE / n for n in "123")
    assert row.turns[0].parts == (a, " or ", Footage(Clip(HERE / "v.mp4")), "?")
    assert row.turns[2].parts == ("And ", b, c)


def test_what_a_row_says_beside_its_turns() -> None:
    row = parsed({"id": 7, "system": "Be brief.", "mode": "think", **talk("Hi", "Ho")})
    assert (row.id, row.mode, row.switched) == ("7", "think", True)
    assert row.turns[0] == Turn("system", ("Be brief.",))
    plain = parsed(talk("Hi", "Write <image> for a picture."))
    assert plain.turns[1].text == "Write <image> for a picture."  # a mark is one in a question only
    assert not plain.switched


# -- what is wrong ----------------------------------------------------------------------------------------------------

USER, BOT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ([1], "is not a JSON object of at most 64 MB", ""),
        ({"text": "hi"}, "has no list of messages or conversations", ""),
        ({"messages": "hi"}, "has no list of messages or conversations", "no list of objects"),
        ({"messages": []}, "has no list of messages or conversations", ""),
        ({"messages": [{"role": "robot", "content": "x"}]}, "has a role that is unknown", "robot"),
        ({"messages": [USER, USER, BOT]}, "has its roles out of order", "two turns of the user"),
        ({"messages": [USER, BOT, BOT]}, "has its roles out of order", "two turns of the assistant"),
        ({"messages": [USER, BOT, USER]}, "has its roles out of order", "ends with the user"),
        ({"messages": [BOT]}, "has its roles out of order", "does not begin"),
        ({"messages": [{"role": "system", "content": "x"}]}, "has its roles out of order", "does not begin"),
        ({"messages": [USER, {"role": "system", "content": "x"}, BOT]}, "has its roles out of order", "middle"),
        (talk("Hi", "  \n"), "has an empty question or answer", "assistant"),
        (talk("", "Ho"), "has an empty question or answer", "user"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "has an empty question or answer", ""),
        (talk("<video>Hi", "Ho"), "has another number of marks than of pictures or videos", "1 of <video>, 0 videos"),
        (talk("Hi", "Ho", images=["p"]), "has another number of marks than of pictures or videos", "0 of <image>"),
        (talk("<image><image>", "Ho", images=["p"]), "has another number of marks than of pictures or videos", "2 of"),
        (talk("<image>", "Ho", images=["../p"]), "names a path outside of the file's folder", "absolutely"),
        (talk("<image>", "Ho", images=["a/../../p"]), "names a path outside of the file's folder", ""),
        (talk("<image>", "Ho", images=["https://x/p.png"]), "names a picture or video in a way", "download"),
        (talk("<image>", "Ho", images=[7]), "names a picture or video in a way", "7"),
        (talk("<video>", "Ho", videos=[{"path": "a", "start": "x"}]), "names a picture or video in a way", "start"),
        (talk("<video>", "Ho", videos=[{"path": "a", "fps": -1}]), "names a picture or video in a way", "fps"),
        (talk("<video>", "Ho", videos=[{"path": "a", "max_frames": 2.5}]), "names a picture", "not whole"),
        (talk("<video>", "Ho", videos=[{"url": "a.mp4#fps=x&t=1"}]), "names a picture or video in a way", "fps"),
        (talk("<video>", "Ho", videos=[["1.jpg", "2.jpg"]]), "names a picture or video in a way", ""),
        (talk("Hi", "Ho", mode="ponder"), "has a mode that is unknown", "ponder"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}, BOT]}, "names a picture or video", "audio"),
        ({"messages": [USER, {"role": "assistant", "content": [{"type": "image", "image": "p"}]}]},
         "has its roles out of order", "media in a turn of the assistant"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_learnt_says_why(row: Any, reason: str, detail: str) -> None:
    with pytest.raises(BadRow) as raised:
        parsed(row)
    assert raised.value.reason.startswith(reason)
    assert detail in raised.value.detail


def test_checks_that_need_the_model_and_the_files(
    conversations: Conversations, write: Callable[..., Path], folder: Path
) -> None:
    (folder / "broken.mp4").write_bytes(b"\0" * 2000)
    (folder / "broken.png").write_bytes(b"\x89PNG and no more")
    path = write(
        talk("<video>What?", "A heart.", videos=["a.mp4"]),
        talk("<video>What?", "A heart.", videos=["gone.mp4"]),
        talk("<video>What?", "A heart.", videos=["broken.mp4"]),
        talk("<video>What?", "A heart.", videos=[{"path": "a.mp4", "start": 500}]),
        talk("<image>What?", "A heart.", images=["broken.png"]),
        talk("Hi", "It ends here.<|im_end|> More."),
        talk("Hi", "word " * 3000),
        "{not json",
        "",
        "[" * 100_000,
        talk("Hi", "Ho"),
    )
    rows, problems = read_jsonl([path], conversations.length, workers=2)
    assert [row.where for row in rows] == ["data.jsonl line 1", "data.jsonl line 11"]
    assert problems.counts == {
        "names a file that is missing": 1,
        "names a video that cannot be read": 2,
        "names a picture that cannot be read": 1,
        "has control tokens in an answer": 1,
        "is longer than fits": 1,
        "is not a JSON object of at most 64 MB": 2,
    }
    first = problems.lines()[0]
    assert first.startswith("2 rows, each") and "data.jsonl line" in first
    assert any("data.jsonl line 2 (" in line and "gone.mp4" in line for line in problems.lines())


def test_nothing_to_learn_is_one_sentence_with_the_reasons(write: Callable[..., Path]) -> None:
    path = write(talk("Hi", ""), "x")
    with pytest.raises(FinetuneError, match=r"nothing to learn from in data.jsonl.*line 1.*line 2"):
        read_jsonl([path], any_length)
    path.write_text("")
    with pytest.raises(FinetuneError, match="It has no rows"):
        read_jsonl([path], any_length)
    with pytest.raises(FinetuneError, match=r"gone.jsonl cannot be read"):
        read_jsonl([path.with_name("gone.jsonl")], any_length)


def test_examples_of_a_reason_are_few_but_all_are_counted(write: Callable[..., Path]) -> None:
    path = write(*[talk("Hi", "")] * 1000, talk("Hi", "Ho"))
    rows, problems = read_jsonl([path], any_length)
    assert len(rows) == 1 and problems.total == 1000
    assert [where for where, _ in problems.examples["has an empty question or answer"]] == [
        f"data.jsonl line {i}" for i in range(1, 6)
    ]


# -- large files ------------------------------------------------------------------------------------------------------


def test_rows_are_found_by_their_place_in_several_files(write: Callable[..., Path]) -> None:
    one = write(*[talk(f"Frage {i} – ü", f"答 {i}") for i in range(50)], name="one.jsonl")
    other = write(talk("Hi", "x" * 200_000), talk("Hi", "last"), name="other.jsonl")
    rows, _ = read_jsonl([one, other], any_length)
    assert len(rows) == 52
    assert [rows[i].turns[1].text for i in (0, 49, 51, 7)] == ["答 0", "答 49", "last", "答 7"]
    assert rows[51].where == "other.jsonl line 2"
    # What is held is a few numbers of a row, not its text.
    held = sum(getattr(rows, name).itemsize for name in ("file", "line", "offset", "answers", "lengths"))
    assert held <= 48


def test_a_row_that_is_too_large_is_passed_over(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.data.jsonl.MAX_LINE", 2000)
    path = write(talk("Hi", "one"), talk("Hi", "x" * 10_000), talk("Hi", "two"))
    rows, problems = read_jsonl([path], any_length)
    assert [row.turns[1].text for row in rows] == ["one", "two"]
    assert problems.counts == {"is not a JSON object of at most 64 MB": 1}


def test_a_file_that_changes_under_the_run_is_told(write: Callable[..., Path]) -> None:
    path = write(talk("Hi", "Ho"), talk("Hi", "He"))
    rows, _ = read_jsonl([path], any_length)
    path.write_text(json.dumps(talk("Hi", "Other")))
    with pytest.raises(FinetuneError, match=r"Line 2 of .* is not what it was"):
        rows[1]


def test_with_a_mode_every_answer_is_an_example_of_its_own(write: Callable[..., Path]) -> None:
    path = write(talk("1", "one", "2", "two", mode="think"), talk("1", "one", "2", "two"))
    rows, _ = read_jsonl([path], any_length)
    assert [[turn.text for turn in row.turns] for row in rows] == [
        ["1", "one"],
        ["1", "one", "2", "two"],
        ["1", "one", "2", "two"],
    ]


def test_a_file_is_checked_once_for_all_who_ask(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(*[talk("Hi", f"{i}") for i in range(40)], talk("Hi", ""))
    seen: list[str] = []

    def measure(row: Row) -> int:
        seen.append(row.id)
        return len(row.turns)

    with ThreadPoolExecutor(3) as pool:  # locks hold between opened files, of threads as of processes
        found = [pool.submit(load_rows, [path], measure, tmp_path / "c", "a") for _ in range(3)]
    for rows, problems in (future.result() for future in found):
        assert list(rows.lengths) == [2] * 40 and [row.turns[1].text for row in rows][39] == "39"
        assert problems.counts == {"has an empty question or answer": 1}
    assert len(seen) == 40


def test_what_was_checked_is_checked_again_when_anything_changed(write: Callable[..., Path], tmp_path: Path) -> None:
    calls: list[str] = []

    def measure(row: Row) -> int:
        calls.append(row.id)
        return 3

    path = write(talk("Hi", "Ho"))
    for depends in ("a", "a", "b"):
        load_rows([path], measure, tmp_path / "c", depends)
    assert len(calls) == 2
    path = write(talk("Hi", "Ho!"), talk("Hi", "He"))
    rows, _ = load_rows([path], measure, tmp_path / "c", "a")
    assert len(rows) == 2 and len(calls) == 4
