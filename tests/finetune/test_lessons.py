"""What the store teaches, row by row as worked out by hand, and that the trainer's own reader takes the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.data.jsonl import examples_of, load_rows
from finetune.data.rows import Footage, Row
from finetune.errors import FinetuneError
from finetune.feedback import Store
from finetune.feedback.browse import exclude, include
from finetune.feedback.comments import RoundClip
from finetune.feedback.lessons import USES, Lesson, gather, is_verifiable, lessons, write_lessons
from finetune.feedback.splits import set_share, set_side

SHA, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "studio.sqlite")
    for sha in (SHA, OTHER):
        (tmp_path / f"{sha[0]}.mp4").write_bytes(b"a film")
        store.add_video(sha, name="x.mp4", path=tmp_path / f"{sha[0]}.mp4", probe={})
    yield store
    store.close()


class Talk:
    """A conversation to be spoken of."""

    def __init__(self, store: Store) -> None:
        self.store, self.id = store, store.new_conversation("?").id

    def ask(self, text: str, **facts: Any) -> str:
        return self.store.add_question(self.id, text, **{"mode": "auto", "video": SHA, **facts}).id

    def answer(self, question: str, text: str, finish: Any = "stop", mode: str = "auto", **facts: Any) -> str:
        answer = self.store.begin_answer(question, mode=mode)
        self.store.finish_answer(answer.id, finish, text=text, **facts)
        return answer.id

    def first(self, text: str = "red", **facts: Any) -> tuple[str, str]:
        question = self.ask("What colour?")
        return question, self.answer(question, text, **facts)

    def draft(self, of: str, question: str, text: str) -> str:
        draft = self.answer(question, text)
        self.store.drafts.add(of, [draft])
        return draft


@pytest.fixture
def talk(store: Store) -> Talk:
    return Talk(store)


def rows(store: Store, use: str) -> list[dict[str, Any]]:
    return [lesson.row for lesson in lessons(store) if lesson.use == use]


def asked(tmp_path: Path, text: str = "What colour?") -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": f"<video>{text}"}],
        "videos": [{"path": str(tmp_path / "a.mp4")}],
        "mode": "auto",
    }


def test_nothing_said_teaches_nothing(store: Store, talk: Talk) -> None:
    talk.first()
    assert lessons(store) == []


def test_a_correction_is_an_example_a_pair_and_a_question(store: Store, talk: Talk, tmp_path: Path) -> None:
    question, answer = talk.first("red")
    store.votes.correct(answer, "blue")
    prompt = asked(tmp_path)
    told = [*prompt["messages"], {"role": "assistant", "content": "blue"}]
    assert lessons(store) == [
        Lesson("example", question, answer, SHA, "correction", False, {**prompt, "messages": told}),
        Lesson("pair", question, answer, SHA, "correction", False, {**prompt, "chosen": "blue", "rejected": "red"}),
        Lesson("question", question, answer, SHA, "correction", False, {**prompt, "reference": "blue"}),
    ]
    assert all(lesson.held_out for lesson in lessons(store, held_out=lambda video: video == SHA))
    store.votes.uncorrect(answer)
    assert lessons(store) == []


def test_a_good_answer_is_an_example_as_the_model_wrote_it_and_a_question(store: Store, talk: Talk) -> None:
    raw = "<think>It glows.</think><answer>red</answer>"
    _, answer = talk.first("red", mode="think", raw_text=raw)
    store.votes.vote(answer, "up")
    (example,), (question,) = rows(store, "example"), rows(store, "question")
    assert (example["messages"][-1]["content"], example["mode"]) == (raw, "think")
    assert (question["reference"], question["mode"], len(question["messages"])) == ("red", "think", 1)
    assert rows(store, "pair") == []
    store.votes.vote(answer, "down", reasons=["wrong"])  # a bad answer alone says nothing of a better one
    assert lessons(store) == []


def test_a_correction_takes_the_place_of_the_answer_alone(store: Store, talk: Talk) -> None:
    said = "<analysis>Simple. Therefore, /no_think mode is more appropriate.</analysis>"
    _, answer = talk.first("red", raw_text=f"{said}red")
    store.votes.correct(answer, "blue")
    (pair,) = rows(store, "pair")
    assert (pair["mode"], pair["chosen"], pair["rejected"]) == ("auto", f"{said}blue", f"{said}red")
    _, thought = talk.first("red", mode="think", raw_text="<think>It glows.</think><answer>red</answer>")
    store.votes.correct(thought, "blue")
    pair = rows(store, "pair")[-1]
    assert (pair["mode"], pair["chosen"], pair["rejected"]) == ("no_think", "blue", "red")
    assert (rows(store, "example")[-1]["mode"], rows(store, "question")[-1]["mode"]) == ("no_think", "think")


def test_an_answer_that_looked_through_tools_is_learnt_without_them(store: Store, talk: Talk) -> None:
    raw = '<think><tool_call>{"name": "zoom"}</tool_call>\n<sandbox_output>[image]</sandbox_output></think>red'
    _, answer = talk.first("red", mode="think_with_image", raw_text=raw, usage={"tool_calls": 1})
    store.votes.vote(answer, "up")
    (example,) = rows(store, "example")
    assert (example["messages"][-1]["content"], example["mode"]) == ("red", "no_think")


def test_of_several_corrections_of_a_question_the_newest_holds(store: Store, talk: Talk) -> None:
    question, one = talk.first("red")
    two = talk.draft(one, question, "green")
    store.votes.correct(one, "blue")
    store.votes.correct(two, "violet")
    assert [row["messages"][-1]["content"] for row in rows(store, "example")] == ["violet"]
    assert [row["reference"] for row in rows(store, "question")] == ["violet"]
    assert [(row["chosen"], row["rejected"]) for row in rows(store, "pair")] == [("violet", "red"), ("violet", "green")]
    store.votes.correct(one, "blue")  # said again: now it is the newest
    assert [row["reference"] for row in rows(store, "question")] == ["blue"]
    store.votes.uncorrect(one)
    assert [row["reference"] for row in rows(store, "question")] == ["violet"]


def test_of_a_correction_and_a_good_vote_on_one_answer_the_newer_holds(store: Store, talk: Talk) -> None:
    _, answer = talk.first("red")
    store.votes.correct(answer, "blue")
    store.votes.vote(answer, "up")
    assert [row["reference"] for row in rows(store, "question")] == ["red"] and rows(store, "pair") == []
    store.votes.correct(answer, "blue")
    assert [row["reference"] for row in rows(store, "question")] == ["blue"] and len(rows(store, "pair")) == 1


def test_a_picked_draft_is_an_example_and_pairs_but_no_reference(store: Store, talk: Talk) -> None:
    question, one = talk.first("red")
    two, three = talk.draft(one, question, "green"), talk.draft(one, question, "blue")
    store.drafts.pick(three)
    found = [(lesson.use, lesson.answer, lesson.source) for lesson in lessons(store)]
    assert found == [("example", three, "draft"), ("pair", three, "draft"), ("pair", three, "draft")]
    assert [(row["chosen"], row["rejected"]) for row in rows(store, "pair")] == [("blue", "red"), ("blue", "green")]
    assert rows(store, "example")[0]["messages"][-1]["content"] == "blue"
    store.votes.vote(three, "down")  # the best of three bad ones
    assert rows(store, "example") == [] and len(rows(store, "pair")) == 2
    assert gather(store).uses(two) == ["pair"]


def test_a_newer_pair_takes_the_place_of_one_that_says_the_opposite(store: Store, talk: Talk) -> None:
    question, one = talk.first("red")
    two = talk.draft(one, question, "green")
    store.drafts.pick(two)
    store.votes.vote(one, "up")
    store.votes.vote(two, "down")
    assert [(lesson.source, lesson.row["chosen"]) for lesson in lessons(store) if lesson.use == "pair"] == [
        ("vote", "red")
    ]


def test_a_comparison_across_modes_compares_the_answers_alone(store: Store, talk: Talk) -> None:
    question = talk.ask("What colour?", mode="think")
    left = talk.answer(question, "red", mode="think", raw_text="<think>Hm.</think><answer>red</answer>")
    right = talk.answer(question, "blue", mode="no_think", raw_text="blue")
    store.preferences.compare(question, left, right)
    store.preferences.prefer(left, right, source="compare")
    (pair,), (example,) = rows(store, "pair"), rows(store, "example")
    assert (pair["mode"], pair["chosen"], pair["rejected"]) == ("no_think", "red", "blue")
    assert (example["mode"], example["messages"][-1]["content"]) == ("think", "<think>Hm.</think><answer>red</answer>")
    store.preferences.prefer(left, right, source="compare", verdict="both_bad")
    assert lessons(store) == []


def test_the_clip_its_range_and_its_sampling_are_carried(store: Store, talk: Talk, tmp_path: Path) -> None:
    limits = {"fps": 4.0, "max_frames": 8, "budget": None}
    question = talk.ask("What colour?", start=1.5, end=3.0, sampling=limits)
    store.votes.vote(talk.answer(question, "red"), "up")
    (row,) = rows(store, "example")
    path = str(tmp_path / "a.mp4")
    assert row["videos"] == [{"path": path, "start": 1.5, "end": 3.0, "fps": 4.0, "max_frames": 8}]


def test_earlier_turns_stand_before_the_question_and_are_not_learnt(store: Store, talk: Talk, tmp_path: Path) -> None:
    talk.first("red")
    question = talk.ask("And then?")
    one = talk.answer(question, "green")
    store.drafts.pick(talk.draft(one, question, "it drops"))
    gone = talk.ask("Never answered?")
    talk.answer(gone, "", "error")
    elsewhere = talk.ask("And here?", video=OTHER)
    store.votes.correct(talk.answer(elsewhere, "a cat"), "a dog")
    row = rows(store, "example")[-1]
    assert row == {
        "messages": [
            {"role": "user", "content": "<video>What colour?"},
            {"role": "assistant", "content": "red"},
            {"role": "user", "content": "And then?"},
            {"role": "assistant", "content": "it drops"},
            {"role": "user", "content": "<video>And here?"},
            {"role": "assistant", "content": "a dog"},
        ],
        "videos": [{"path": str(tmp_path / "a.mp4")}, {"path": str(tmp_path / "b.mp4")}],
        "mode": "auto",
        "learn": "last",
    }
    assert [m["content"] for m in rows(store, "pair")[-1]["messages"]][-1] == "<video>And here?"


def test_a_conversation_about_videos_of_both_sides_is_on_neither(store: Store, talk: Talk) -> None:
    _, one = talk.first("red")
    store.votes.vote(one, "up")
    store.votes.vote(talk.answer(talk.ask("And here?", video=OTHER), "a cat"), "up")
    found = gather(store, held_out=lambda video: video == OTHER)
    assert [(lesson.answer, lesson.held_out) for lesson in found.lessons] == [(one, False)] * 2
    assert found.counts()["split"] == 2 and not found.measures(one)
    assert gather(store, held_out=lambda video: True).measures(one)


def test_an_excluded_answer_teaches_nothing_until_it_is_taken_back(store: Store, talk: Talk) -> None:
    question, one = talk.first("red")
    two = talk.draft(one, question, "green")
    store.votes.correct(one, "blue")
    store.votes.correct(two, "violet")
    before = lessons(store)
    assert [row["reference"] for row in rows(store, "question")] == ["violet"]
    exclude(store, [two])  # the older correction holds again, as if nobody had spoken of this answer
    found = gather(store)
    assert [(lesson.use, lesson.answer) for lesson in found.lessons] == [(use, one) for use in USES]
    assert [row["reference"] for row in rows(store, "question")] == ["blue"]
    assert [(row["chosen"], row["rejected"]) for row in rows(store, "pair")] == [("blue", "red")]
    assert found.uses(two) == [] and found.left_out == []
    exclude(store, [one])
    assert lessons(store) == []
    include(store, [one, two])
    assert lessons(store) == before
    store.votes.uncorrect(one)
    store.votes.uncorrect(two)
    store.drafts.pick(one)
    assert [lesson.use for lesson in lessons(store)] == ["example", "pair"]
    exclude(store, [two])  # as the worse one of a pair it teaches nothing either
    assert [(lesson.use, lesson.answer) for lesson in lessons(store)] == [("example", one)]


def test_the_split_of_the_store_decides_what_is_held_out(store: Store, talk: Talk) -> None:
    _, one = talk.first("red")
    store.votes.correct(one, "blue")
    store.votes.correct(talk.answer(talk.ask("And here?", video=OTHER), "a cat"), "a dog")
    other = Talk(store)
    store.votes.vote(other.answer(other.ask("What is it?", video=OTHER), "a cat"), "up")
    set_share(store, 0.0)
    assert [lesson.held_out for lesson in lessons(store)] == [False] * 8
    set_side(store, OTHER, "held_out")
    found = gather(store)
    assert [(lesson.video, lesson.held_out) for lesson in found.lessons] == [
        *[(SHA, False)] * 3,
        *[(OTHER, True)] * 2,
    ]
    assert found.counts()["split"] == 3  # the second question of the first conversation: it shows both videos
    set_share(store, 1.0)
    assert [lesson.held_out for lesson in lessons(store)] == [True] * 8
    assert not any(lesson.held_out for lesson in lessons(store, held_out=lambda video: False))  # whoever asks may say


def test_chosen_comments_are_lessons_of_the_whole_store(store: Store, talk: Talk, tmp_path: Path) -> None:
    question, answer = talk.first("red")
    store.votes.vote(answer, "up")

    def comment(*videos: str) -> tuple[str, str]:
        clips = [RoundClip(video) for video in videos]
        made = store.comments.begin("comment", "Write one.", clips, language="en", mode="no_think")
        good, bad = (
            store.comments.add_draft(made.id, finish="stop", fit=True, text=text) for text in ("So calm!", "Hm.")
        )
        store.comments.choose(good.id, "picked")
        store.comments.choose(bad.id, "rejected")
        return made.id, good.id

    one, two = comment(SHA), comment(OTHER)
    comment(SHA, OTHER)  # one side is learnt from and the other measured by: neither
    found = [lesson for lesson in lessons(store, lambda video: video == OTHER) if lesson.source == "comment"]
    assert [(lesson.use, lesson.question, lesson.answer, lesson.video, lesson.held_out) for lesson in found] == [
        ("example", *one, SHA, False),
        ("pair", *one, SHA, False),
        ("example", *two, OTHER, True),
        ("pair", *two, OTHER, True),
    ]
    prompt = [{"role": "user", "content": "<video>Write one."}]
    shown = {"videos": [{"path": str(tmp_path / "a.mp4")}], "mode": "no_think"}
    assert [lesson.row for lesson in found[:2]] == [
        {"messages": [*prompt, {"role": "assistant", "content": "So calm!"}], **shown},
        {"messages": prompt, **shown, "chosen": "So calm!", "rejected": "Hm."},
    ]
    alone = gather(store, conversation=talk.id).lessons
    assert {lesson.question for lesson in alone} == {question}  # a conversation has no comments


def test_what_cannot_teach_is_counted_with_its_reason(store: Store, talk: Talk, tmp_path: Path) -> None:
    _, cut = talk.first("red and", finish="length")
    store.votes.vote(cut, "up")
    question, one = talk.first("red")
    store.drafts.pick(talk.draft(one, question, "red"))
    marked = talk.ask("What is <video>?")
    store.votes.vote(talk.answer(marked, "a mark"), "up")
    lost = talk.ask("What is here?", video=OTHER)
    removed = talk.answer(lost, "a cat")
    store.votes.correct(removed, "a dog")
    (tmp_path / "b.mp4").unlink()
    found = gather(store)
    assert [(one.answer, one.why) for one in found.left_out if one.answer in (cut, removed)] == [
        (cut, "cut"),
        *[(removed, "video_gone")] * 3,
    ]
    assert found.counts() == {"cut": 1, "same": 1, "marks": 2, "video_gone": 3, "example": 1}
    assert found.why(cut) == "cut" and found.why(removed) == "video_gone" and found.uses(removed) == []


@pytest.mark.parametrize(
    ("text", "is_short"),
    [
        ("blue", True),
        ("A red circle moves left.", True),
        ("红色的圆向左移动。", True),
        ("<|box_start|>[[1, 2, 30, 40]]<|box_end|>", True),
        (json.dumps({"colour": "red", "moves": ["left", "right"], "note": "long " * 30}), True),
        ("one two three four five six seven eight nine ten eleven twelve thirteen", False),
        ("圆" * 81, False),
        ("red\nblue", False),
        ("{" + "not JSON " * 12, False),
        ("…", False),
    ],
)
def test_only_what_a_rule_can_check_is_a_reference(text: str, is_short: bool) -> None:
    assert is_verifiable(text) is is_short


def test_the_trainer_reads_what_is_written_and_learns_the_last_answer_only(
    store: Store, talk: Talk, tmp_path: Path
) -> None:
    talk.first("red")
    question = talk.ask("And then?", mode="think", start=0.5)
    answer = talk.answer(question, "it stops", mode="think", raw_text="<think>Hm.</think><answer>it stops</answer>")
    store.votes.vote(answer, "up")
    folder = tmp_path / "lessons"
    paths = write_lessons(lessons(store), folder)
    assert list(paths) == ["example", "question"] and sorted(p.name for p in folder.iterdir()) == [
        "example.jsonl",
        "question.jsonl",
    ]
    found, problems = load_rows([paths["example"]], lambda row: 7, tmp_path / "cache", "test")
    assert problems.counts == {} and len(found) == 1
    row: Row = found[0]
    assert (row.mode, row.last_only, row.answers) == ("think", True, 2) and examples_of(row) == [row]
    first, second = row.media
    assert isinstance(first, Footage) and isinstance(second, Footage)
    assert (first.clip.start, second.clip.start, second.clip.path) == (None, 0.5, tmp_path / "a.mp4")
    store.votes.revoke(answer)
    assert write_lessons(lessons(store), folder) == {} and list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(store: Store, talk: Talk, tmp_path: Path) -> None:
    store.votes.vote(talk.first("red")[1], "up")
    with pytest.raises(FinetuneError, match="cannot be written"):
        write_lessons(lessons(store), tmp_path / "a.mp4")


def test_a_row_that_does_not_know_what_is_learnt_is_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    file.write_text(json.dumps({"messages": turns, "learn": "some"}))
    with pytest.raises(FinetuneError, match="does not say which answers are learnt"):
        load_rows([file], lambda row: 7, tmp_path / "cache", "test")
