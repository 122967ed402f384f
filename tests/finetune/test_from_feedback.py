"""What a run learns from: written once, traced to the rows it came from, and refused in a sentence where there is too
little. Every store here was filled as a person would fill it: questions, answers, votes and corrections."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.__main__ import main
from finetune.errors import FinetuneError
from finetune.feedback import Runs
from finetune.feedback.browse import exclude
from finetune.feedback.splits import set_side
from finetune.loop.from_feedback import drawn, read_record, weigh
from finetune.recipe import load_recipe
from tests.finetune.collected import Collected

ROOT = Path(__file__).resolve().parents[2]
NANO, DEMO, RECIPE = ROOT / "assets" / "keye-nano", ROOT / "assets" / "demo", ROOT / "recipes" / "feedback.toml"
CLIPS = sorted(DEMO.glob("*.mp4"))[:6]
LONG = "It is the {}th shelf, and on it there lies a thing that nobody in the whole house has ever used."
"""Too many words for an answer that is checked by rule, so that reinforcement cannot ask for it."""


class Taught(Collected):
    """A store about the demo clips, the last of which is held out. Every word is said of an answer of its own, in a
    conversation of its own, and gives the id of the question."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.clips = [self.video(clip) for clip in CLIPS]
        for sha in self.clips:
            set_side(self.store, sha, "train")
        set_side(self.store, self.clips[-1], "held_out")
        self.answers: dict[str, str] = {}  # the last one of each question

    def asked(self, clip: int, *said: str) -> str:
        """A question about a clip that the model answered so, one answer after the other."""
        talk = self.store.new_conversation("Which shelf?")
        limits = {"fps": None, "max_frames": 2, "budget": 24}
        question = self.store.add_question(
            talk.id, "Which shelf?", mode="no_think", video=self.clips[clip], sampling=limits
        )
        for text in said:
            answer = self.store.begin_answer(question.id, mode="no_think")
            self.store.finish_answer(answer.id, "stop", text=text, raw_text=text)
            self.answers[question.id] = answer.id
        return question.id

    def up(self, said: str, clip: int = 0) -> str:
        """A right answer: an example, and a question for reinforcement where it is short."""
        question = self.asked(clip, said)
        self.store.votes.vote(self.answers[question], "up")
        return question

    def correct(self, better: str, clip: int = 0) -> str:
        """A corrected answer: an example and a pair, and a question for reinforcement where it is short."""
        question = self.asked(clip, "Never.")
        self.store.votes.correct(self.answers[question], better)
        return question


@pytest.fixture
def taught(tmp_path: Path) -> Iterator[Taught]:
    taught = Taught(tmp_path / "studio")
    yield taught
    taught.store.close()


@pytest.fixture
def store(taught: Taught) -> Path:
    return taught.folder / "studio.sqlite"


def recipe(*numbers: str) -> Any:
    return load_recipe(RECIPE, numbers, str(NANO))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_each_stage_gets_what_is_its_own_or_is_left_out_with_the_reason(
    taught: Taught, store: Path, tmp_path: Path
) -> None:
    told = [LONG.format(n) for n in range(5)]
    corrected = [taught.correct(better, clip) for clip, better in enumerate(told)]
    right = taught.up("Two.", 1)
    kept = taught.correct("Four.", -1)
    wanted = recipe("mpo.least=5", "rl.least=8")
    feedback = weigh(wanted, taught.store)
    assert [(share.stage, share.rows, share.use) for share in feedback.shares] == [
        ("sft", 6, "example"),
        ("mpo", 5, "pair"),
        ("rl", 1, "question"),
    ]
    assert feedback.shares[0].sources == {"correction": 5, "vote": 1}
    assert feedback.left_out == {"rl": "It needs at least 8 questions with a known answer; there are 1."}
    out = tmp_path / "run"
    made = drawn(wanted, out, store)
    assert [stage.name for stage in made.stages] == ["sft", "mpo"]
    assert made.stage("sft").parts["sft"].data == (str(out / "data" / "example.jsonl"),)
    assert [row["messages"][-1]["content"] for row in lines(out / "data" / "example.jsonl")] == [*told, "Two."]
    pairs = lines(out / "data" / "pair.jsonl")
    assert [(row["chosen"], row["rejected"]) for row in pairs] == [(better, "Never.") for better in told]
    record = read_record(out)
    assert record is not None
    examples = [one for one in record["lessons"] if one["use"] == "example"]
    assert {(one["question"], one["answer"], one["file"], one["line"]) for one in examples} == {
        *((q, taught.answers[q], "example.jsonl", n) for n, q in enumerate([*corrected, right], 1)),
        (kept, taught.answers[kept], "held_out.jsonl", 1),
    }
    assert [row["messages"][-1]["content"] for row in lines(out / "data" / "held_out.jsonl")] == ["Four."]


def test_what_a_run_learns_from_stays_what_it_was(taught: Taught, store: Path, tmp_path: Path) -> None:
    numbers = recipe("sft.least=4", "mpo.least=4", "rl.least=8")
    for n in range(4):
        taught.up(LONG.format(n))
    first = drawn(numbers, tmp_path / "run", store)
    before = (tmp_path / "run" / "data" / "lessons.json").read_bytes()
    for n in range(4):
        taught.correct(LONG.format(n))
    assert drawn(numbers, tmp_path / "run", None) == first
    assert (tmp_path / "run" / "data" / "lessons.json").read_bytes() == before
    assert [stage.name for stage in first.stages] == ["sft"]
    assert [stage.name for stage in drawn(numbers, tmp_path / "other", store).stages] == ["sft", "mpo"]
    (tmp_path / "run" / "data" / "lessons.json").write_text("{")
    with pytest.raises(FinetuneError, match="is damaged"):
        drawn(numbers, tmp_path / "run", store)


def test_held_out_questions_are_asked_with_their_truth_and_once(taught: Taught, store: Path, tmp_path: Path) -> None:
    for n in range(4):
        taught.up(f"{n}.")
    taught.correct("Seven.", -1)  # an example, a pair and a question, all of them of one question
    preferred = taught.asked(-1, "Eight.", "Nine.")
    talk = taught.store.conversations()[0].id
    (turn,) = taught.store.conversation(talk).turns
    taught.store.preferences.prefer(turn.answers[0].id, turn.answers[1].id, source="compare")
    taught.store.votes.vote(turn.answers[0].id, "down")  # better than the other, and wrong all the same
    assert turn.question.id == preferred
    drawn(recipe("sft.least=4"), tmp_path, store)
    (row,) = lines(tmp_path / "data" / "held_out.jsonl")
    assert row["messages"][-1] == {"role": "assistant", "content": "Seven."} and "reference" not in row
    assert "Seven." not in "".join(path.read_text() for path in (tmp_path / "data").glob("[epq]*.jsonl"))


def test_too_little_is_refused_before_anything_begins(taught: Taught, store: Path, tmp_path: Path) -> None:
    for n in range(3):
        taught.store.votes.vote(taught.answers[taught.asked(n, "One.")], "down")
    with pytest.raises(FinetuneError, match="nothing to learn from yet: votes alone teach no better answer"):
        drawn(recipe(), tmp_path / "run", store)
    for n in range(4):
        taught.up("One.", n)
    for sha in taught.clips[1:4]:
        (taught.videos / f"{sha}.mp4").unlink()
    with pytest.raises(FinetuneError, match="4 SFT examples; there are 1 besides 3 whose video was deleted"):
        drawn(recipe("sft.least=4"), tmp_path / "run", store)
    (taught.videos / f"{taught.clips[0]}.mp4").unlink()
    with pytest.raises(FinetuneError, match="nothing to learn from: the videos of all 4 answers were deleted"):
        drawn(recipe(), tmp_path / "run", store)
    assert not (tmp_path / "run" / "data").exists()
    with pytest.raises(FinetuneError, match="There is no store"):
        drawn(recipe(), tmp_path / "run", tmp_path / "none.sqlite")


def test_few_rows_and_rows_that_all_say_the_same_are_warned_of(taught: Taught) -> None:
    said = [taught.up("Yes.") for _ in range(10)]
    same = weigh(recipe(), taught.store).shares[0].warning
    assert same is not None and same.startswith("All 10 rows teach the same answer")
    taught.store.votes.revoke(taught.answers[said[0]])
    taught.up("No.")
    sft = weigh(recipe(), taught.store).shares[0]
    assert sft.reason is None and sft.warning == "10 SFT examples are few: it learns these and little beyond them."
    for n in range(22):
        taught.up(f"{n}.")
    assert weigh(recipe(), taught.store).shares[0].warning is None


def test_what_is_excluded_is_not_learnt_and_a_held_out_video_is_only_asked_about(
    taught: Taught, tmp_path: Path
) -> None:
    said = [taught.up("One.", clip) for clip in range(len(CLIPS))]
    exclude(taught.store, [taught.answers[said[1]]])
    set_side(taught.store, taught.clips[2], "held_out")
    feedback = weigh(recipe("sft.least=4"), taught.store)
    learnt = {one.question for one in feedback.lessons}
    assert learnt == {said[0], *said[3:-1]} and {one.question for one in feedback.held_out} == {said[2], said[-1]}
    assert feedback.shares[0].reason == f"It needs at least 4 SFT examples; there are {len(learnt)}."


def test_a_full_disk_leaves_nothing_half(taught: Taught, store: Path, tmp_path: Path) -> None:
    for n in range(4):
        taught.up(f"{n}.")
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(FinetuneError, match="cannot be written"):
        drawn(recipe("sft.least=4"), tmp_path / "run", store)
    assert (tmp_path / "run").read_text().startswith("a file")


def test_the_shell_learns_from_feedback_and_the_run_knows_from_which(
    taught: Taught, store: Path, tmp_path: Path
) -> None:
    said = [taught.up(f"{n}.", n) for n in range(4)]
    taught.up("Four.", -1)
    numbers = [
        *("sft.least=4", "sft.steps=2", "sft.replay=0", "sft.batch_tokens=300", "rl.least=9", "threads=1"),
        f"sft.cache={tmp_path / 'frames'}",
    ]
    where = ["--store", str(store), "--model", str(NANO), "--out", str(tmp_path / "run")]
    assert main(["run", str(RECIPE), *numbers, *where]) == 0
    runs = Runs(store)
    (run,) = runs.list()
    assert run.status == "done" and [stage["name"] for stage in run.recipe["stages"]] == ["sft"]
    asked = [metric.figures["held_out"]["of"] for metric in runs.metrics(run.id) if "held_out" in metric.figures]
    assert asked == [1, 1]  # before and after
    assert runs.result(run.id) == tmp_path / "run" / "sft" / "model"
    runs.close()
    record = read_record(tmp_path / "run")
    assert record is not None
    assert [one["question"] for one in record["lessons"] if one["file"] == "example.jsonl"] == said
