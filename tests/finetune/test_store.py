"""What the store keeps, seen from outside by plain sqlite3."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.feedback import Store, export_conversation

SHA = "a" * 64
OTHER = "b" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "new folder" / "studio.sqlite")
    yield store
    store.close()


def read(store: Store, sql: str, *values: object) -> list[tuple]:
    conn = sqlite3.connect(store.path)
    try:
        return conn.execute(sql, values).fetchall()
    finally:
        conn.close()


def keep_video(store: Store, sha: str = SHA, path: str = "/videos/a.mp4") -> None:
    store.add_video(sha, name="cat.mp4", path=path, probe={"codec": "h264", "path": path})


def test_one_turn_column_by_column(store: Store) -> None:
    keep_video(store)
    talk = store.new_conversation("What is it?", model="keye-nano", language="en")
    question = store.add_question(
        talk.id, "What is it?", video=SHA, start=1, end=2.5, mode="think", sampling={"fps": 2.0, "budget": None}
    )
    answer = store.begin_answer(question.id, mode="think", model="keye-nano")
    assert (answer.finish, answer.text) == ("running", "")
    frames = {"times": [1.0, 1.5], "kinds": ["slow", "fast"], "tokens": [128, 48]}
    assert store.update_answer(answer.id, text="A c", frames=frames, checkpoint="/models/nano", runtime="local")
    assert store.finish_answer(
        answer.id,
        "length",
        text="A cat",
        raw_text="<analysis>…</analysis>A cat",
        decoding={"temperature": 0.6, "seed": None},
        usage={"visual_tokens": 176},
        timings={"total": 1.25},
    )
    assert read(store, "SELECT title, model, language FROM conversations") == [("What is it?", "keye-nano", "en")]
    assert read(store, "SELECT conversation_id, position, text, video, clip_start, clip_end, mode FROM questions") == [
        (talk.id, 0, "What is it?", SHA, 1.0, 2.5, "think")
    ]
    row = read(store, "SELECT text, raw_text, finish, error, model, checkpoint, adapter, runtime FROM answers")
    raw = "<analysis>…</analysis>A cat"
    assert row == [("A cat", raw, "length", None, "keye-nano", "/models/nano", None, "local")]
    assert [json.loads(c) for c in read(store, "SELECT frames, decoding, usage, timings FROM answers")[0]] == [
        frames,
        {"temperature": 0.6, "seed": None},
        {"visual_tokens": 176},
        {"total": 1.25},
    ]
    (turn,) = store.conversation(talk.id).turns
    assert turn.question.sampling == {"fps": 2.0, "budget": None} and turn.question == question
    assert turn.video is not None and turn.video.probe["codec"] == "h264"
    assert (turn.answers[0].frames, turn.answers[0].finish) == (frames, "length")
    assert store.turns(talk.id) == [(question, turn.answers[0])]


def test_times_are_utc_with_milliseconds_and_ids_sort_by_age(store: Store) -> None:
    talks = [store.new_conversation(str(n)) for n in range(50)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", talk.created) for talk in talks)
    assert [talk.id for talk in talks] == sorted({talk.id for talk in talks})


def test_turns_come_in_order_with_the_newest_answer_last(store: Store) -> None:
    talk = store.new_conversation()
    asked = [store.add_question(talk.id, f"q{n}", mode="auto") for n in range(12)]
    drafts = [store.begin_answer(asked[3].id, mode=mode).id for mode in ("auto", "think", "no_think")]
    turns = store.conversation(talk.id).turns
    assert [turn.question.text for turn in turns] == [f"q{n}" for n in range(12)]
    assert [answer.id for answer in turns[3].answers] == drafts
    newest = [answer and answer.id for _, answer in store.turns(talk.id)]
    assert newest == [None] * 3 + [drafts[-1]] + [None] * 8


def test_list_is_newest_first_in_pages(store: Store) -> None:
    talks = [store.new_conversation(f"talk {n}") for n in range(5)]
    conn = sqlite3.connect(store.path)
    for n, talk in enumerate(talks):  # times that are surely apart
        conn.execute("UPDATE conversations SET updated = ? WHERE id = ?", (f"2020-01-0{n + 1}T00:00:00.000Z", talk.id))
    conn.commit()
    conn.close()
    assert [talk.title for talk in store.conversations(limit=2)] == ["talk 4", "talk 3"]
    assert [talk.title for talk in store.conversations(limit=2, offset=4)] == ["talk 0"]
    store.rename(talks[1].id, "renamed")
    assert [talk.title for talk in store.conversations()][3] == "renamed"
    store.add_question(talks[0].id, "again", mode="auto")
    assert store.conversations()[0].title == "talk 0"


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("  What\n happens?\t", "What happens?"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("word " * 30, "word " * 11 + "word…"),
        (
            "several words and then one that reaches over the end: unfathomable",
            "several words and then one that reaches over the end:…",
        ),
        ("这" * 100, "这" * 59 + "…"),
        ("", ""),
    ],
)
def test_title_comes_from_the_first_question(store: Store, question: str, title: str) -> None:
    talk = store.new_conversation()
    store.add_question(talk.id, question, mode="auto")
    assert read(store, "SELECT title FROM conversations") == [(title,)]
    store.add_question(talk.id, "later", mode="auto")
    assert store.conversation(talk.id).conversation.title == (title or "later")
    assert store.new_conversation(question).title == title


def test_rename_survives_further_questions_and_blank_brings_the_first_back(store: Store) -> None:
    talk = store.new_conversation("first")
    store.add_question(talk.id, "first", mode="auto")
    assert store.rename(talk.id, "  my \n cat ").title == "my cat"
    store.add_question(talk.id, "second", mode="auto")
    assert read(store, "SELECT title FROM conversations") == [("my cat",)]
    assert store.rename(talk.id, "  ").title == "first"


def test_deleting_takes_what_hangs_on_it_and_only_unused_videos(store: Store) -> None:
    keep_video(store, SHA, "/videos/a.mp4")
    keep_video(store, OTHER, "/videos/b.mp4")
    doomed, kept = store.new_conversation("doomed"), store.new_conversation("kept")
    for sha in (SHA, OTHER, OTHER, None):
        store.begin_answer(store.add_question(doomed.id, "q", video=sha, mode="auto").id, mode="auto")
    answer = store.begin_answer(store.add_question(kept.id, "q", video=SHA, mode="auto").id, mode="auto")
    assert store.delete_conversation(doomed.id) == [Path("/videos/b.mp4")]
    assert read(store, "SELECT id FROM conversations") == [(kept.id,)]
    assert read(store, "SELECT conversation_id FROM questions") == [(kept.id,)]
    assert read(store, "SELECT id FROM answers") == [(answer.id,)]
    assert read(store, "SELECT sha256 FROM videos") == [(SHA,)]
    assert store.delete_conversation(doomed.id) == []
    assert store.delete_conversation(kept.id) == [Path("/videos/a.mp4")]


def test_every_connection_checks_foreign_keys(store: Store) -> None:
    """SQLite forgets the setting with each connection, and without it nothing is deleted along."""
    found: list[int] = []

    def look(reopened: Store) -> None:
        with reopened.transaction() as db:
            found.extend(db.conn.execute("PRAGMA foreign_keys").fetchone())

    for each in (store, Store(store.path)):
        look(each)
        thread = threading.Thread(target=look, args=(each,))
        thread.start()
        thread.join()
    assert found == [1, 1, 1, 1]


def test_what_was_deleted_elsewhere_is_said_and_not_resurrected(store: Store) -> None:
    talk = store.new_conversation("q")
    question = store.add_question(talk.id, "q", mode="auto")
    answer = store.begin_answer(question.id, mode="auto")
    store.delete_conversation(talk.id)
    assert not store.update_answer(answer.id, text="late")
    assert not store.finish_answer(answer.id, "stop", text="late")
    for late in (
        lambda: store.add_question(talk.id, "q", mode="auto"),
        lambda: store.begin_answer(question.id, mode="auto"),
        lambda: store.rename(talk.id, "x"),
        lambda: store.conversation(talk.id),
        lambda: export_conversation(store, talk.id),
    ):
        with pytest.raises(FinetuneError, match="deleted"):
            late()
    assert store.turns(talk.id) == []
    assert read(store, "SELECT count(*) FROM answers") == [(0,)]


def test_question_about_an_unknown_video_is_refused(store: Store) -> None:
    talk = store.new_conversation("q")
    with pytest.raises(FinetuneError, match="upload it again"):
        store.add_question(talk.id, "q", video=SHA, mode="auto")
    assert read(store, "SELECT count(*) FROM questions") == [(0,)]


def test_same_video_twice_keeps_the_first_unless_its_file_is_gone(store: Store, tmp_path: Path) -> None:
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    first.touch()
    store.add_video(SHA, name="one", path=first, probe={})
    assert store.add_video(SHA, name="two", path=second, probe={}).path == str(first)
    first.unlink()
    store.add_video(SHA, name="two", path=second, probe={"fps": 25})
    assert read(store, "SELECT name, path, probe FROM videos") == [("one", str(second), '{"fps": 25}')]
    assert store.video(OTHER) is None


HOSTILE = [
    "'; DROP TABLE answers; --",
    '" OR 1=1 --',
    "%_\\?:name",
    "猫は何をしますか 🐈‍⬛ \u202e\u0301",
    "nul\x00inside",
    "\ufeff \r\n\t\x1b[31m",
    "x" * 200_000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_comes_back_as_it_went_in(store: Store, text: str) -> None:
    store.add_video(SHA, name=text, path="/v.mp4", probe={text: text})
    talk = store.new_conversation(text, model=text, language=text)
    question = store.add_question(talk.id, text, video=SHA, mode=text, sampling={text: text})
    answer = store.begin_answer(question.id, mode=text)
    store.finish_answer(answer.id, "error", error=text, text=text, raw_text=text, adapter=text, usage={text: 1})
    row = read(store, "SELECT CAST(text AS BLOB), CAST(error AS BLOB) FROM answers")[0]
    assert [blob.decode() for blob in row] == [text, text]
    turn = Store(store.path).conversation(talk.id).turns[0]
    assert (turn.question.text, turn.question.sampling) == (text, {text: text})
    assert (turn.answers[0].text, turn.answers[0].usage) == (text, {text: 1})
    assert turn.video is not None and turn.video.probe == {text: text}
    for useless in (text, "../" + text):
        assert store.turns(useless) == [] and store.video(useless) is None
        assert store.delete_conversation(useless) == []


def test_halves_of_surrogate_pairs_are_joined_or_replaced(store: Store) -> None:
    talk = store.new_conversation("\ud83d\ude00 \ud83d")
    store.add_question(talk.id, "\ud83d\ude00 and \udc00", mode="auto", sampling={"x": "\ud800"})
    assert read(store, "SELECT text, sampling FROM questions") == [("😀 and \ufffd", '{"x": "\ufffd"}')]
    assert store.turns("\ud800") == []


def test_late_partial_text_does_not_undo_an_end(store: Store) -> None:
    question = store.add_question(store.new_conversation().id, "q", mode="auto")
    answer = store.begin_answer(question.id, mode="auto")
    assert store.update_answer(answer.id)
    store.update_answer(answer.id, text="partial")
    store.finish_answer(answer.id, "stopped")
    assert not store.update_answer(answer.id, text="late")
    assert read(store, "SELECT text, finish FROM answers") == [("partial", "stopped")]


def test_misuse_is_a_defect_not_a_sentence(store: Store) -> None:
    question = store.add_question(store.new_conversation().id, "q", mode="auto")
    answer = store.begin_answer(question.id, mode="auto")
    with pytest.raises(ValueError, match="running"):
        store.finish_answer(answer.id, "running")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="finish"):
        store.update_answer(answer.id, finish="stop")  # type: ignore[call-arg]
    with pytest.raises(ValueError):
        store.finish_answer(answer.id, "stop", timings={"total": float("nan")})
    assert read(store, "SELECT finish FROM answers") == [("running",)]


def test_a_transaction_is_all_or_nothing_also_inside_another(store: Store) -> None:
    with pytest.raises(RuntimeError), store.transaction():
        store.new_conversation("gone")
        raise RuntimeError
    with store.transaction():
        store.new_conversation("kept")
        with pytest.raises(RuntimeError), store.transaction():
            store.new_conversation("gone too")
            raise RuntimeError
        assert read(store, "SELECT count(*) FROM conversations") == [(0,)]  # others see nothing of it yet
    assert read(store, "SELECT title FROM conversations") == [("kept",)]


def test_export_is_json_with_everything_but_the_paths_of_videos(store: Store) -> None:
    keep_video(store)
    talk = store.new_conversation("一")
    for text in ("一", "二"):
        question = store.add_question(talk.id, text, video=SHA, end=3.0, mode="auto")
        store.finish_answer(store.begin_answer(question.id, mode="auto").id, "stop", text=f"{text}!")
    exported = json.loads(json.dumps(export_conversation(store, talk.id), allow_nan=False))
    assert exported["title"] == "一"
    assert [(t["question"]["text"], t["answers"][0]["text"]) for t in exported["turns"]] == [
        ("一", "一!"),
        ("二", "二!"),
    ]
    (video,) = exported["videos"]
    assert (video["sha256"], video["probe"]) == (SHA, {"codec": "h264"})
    assert "/videos/" not in json.dumps(exported)


def test_export_keeps_the_reasoning_without_its_pictures_of_the_video(store: Store) -> None:
    talk = store.new_conversation("What?")
    question = store.add_question(talk.id, "What?", mode="think_with_image")
    steps = [{"kind": "thought", "text": "closer"}, {"kind": "result", "image": "data:x", "frame": "data:y"}]
    answer = store.begin_answer(question.id, mode="think_with_image")
    store.finish_answer(answer.id, "stop", text="A cat", reasoning={"steps": steps}, raw_text="<think>closer")
    ((_, kept),) = store.turns(talk.id)
    assert kept is not None and kept.reasoning == {"steps": steps} and kept.raw_text == "<think>closer"
    (turn,) = export_conversation(store, talk.id)["turns"]
    assert turn["answers"][0]["reasoning"] == {"steps": [steps[0], {"kind": "result"}]}


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    with pytest.raises(FinetuneError, match="closed"):
        store.conversations()
