"""What a run learns from: written once, traced to the rows it came from, and refused in a sentence where there is too
little. The store's lessons are given by hand here; how they are drawn from a store is tested with them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from finetune.__main__ import main
from finetune.errors import FinetuneError
from finetune.feedback import Runs, Store
from finetune.from_feedback import drawn, read_record, weigh
from finetune.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
NANO, DEMO, RECIPE = ROOT / "assets" / "keye-nano", ROOT / "assets" / "demo", ROOT / "recipes" / "feedback.toml"
CLIPS = sorted(DEMO.glob("*.mp4"))


@dataclass(frozen=True)
class Lesson:
    use: str
    question: str
    answer: str | None
    video: str | None
    source: str
    held_out: bool
    row: dict[str, Any]


def lesson(number: int, use: str = "example", held_out: bool = False, said: str | None = None) -> Lesson:
    said = said if said is not None else f"{number}."
    asked = [{"role": "user", "content": "<video>Which shelf?"}]
    row: dict[str, Any] = {"messages": asked}
    row["videos"] = [{"path": str(CLIPS[number % len(CLIPS)]), "max_frames": 2, "budget": 24}]
    if use == "example":
        row["messages"] = [*asked, {"role": "assistant", "content": said}]
    elif use == "pair":
        row |= {"chosen": said, "rejected": "Never."}
    else:
        row |= {"reference": said, "reward": "exact"}
    return Lesson(use, f"q{number}", f"a{number}", f"v{number}", "correction", held_out, row)


@pytest.fixture
def teach(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the store teach these."""

    def teach(*several: Lesson, gone: int = 0, excluded: Any = (), held_out: Any = ()) -> None:
        module: Any = ModuleType("finetune.feedback.lessons")
        left_out = [SimpleNamespace(why="video_gone") for _ in range(gone)]
        module.gather = lambda store: SimpleNamespace(lessons=list(several), left_out=left_out)

        def write_lessons(lessons: list[Lesson], folder: Path) -> None:
            for one in lessons:
                with (folder / f"{one.use}.jsonl").open("a") as file:
                    file.write(json.dumps(one.row) + "\n")

        module.write_lessons = write_lessons
        monkeypatch.setitem(sys.modules, "finetune.feedback.lessons", module)
        browse: Any = ModuleType("finetune.feedback.browse")
        browse.excluded = lambda store: frozenset(excluded)
        monkeypatch.setitem(sys.modules, "finetune.feedback.browse", browse)
        splits: Any = ModuleType("finetune.feedback.splits")
        splits.split_of = lambda store, video: "held_out" if video in held_out else "train"
        monkeypatch.setitem(sys.modules, "finetune.feedback.splits", splits)

    return teach


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "studio.sqlite"
    Store(path).close()
    return path


def recipe(*numbers: str) -> Any:
    return load_recipe(RECIPE, numbers, str(NANO))


def test_each_stage_gets_what_is_its_own_or_is_left_out_with_the_reason(
    store: Path, teach: Any, tmp_path: Path
) -> None:
    teach(
        *map(lesson, range(5)), lesson(5, held_out=True), *(lesson(n, "pair") for n in range(8)), lesson(9, "question")
    )
    feedback = weigh(recipe(), Store(store))
    assert [(share.stage, share.rows, share.use) for share in feedback.shares] == [
        ("sft", 5, "example"),
        ("mpo", 8, "pair"),
        ("rl", 1, "question"),
    ]
    assert feedback.left_out == {"rl": "It needs at least 8 questions with a known answer; there are 1."}
    out = tmp_path / "run"
    made = drawn(recipe(), out, store)
    assert [stage.name for stage in made.stages] == ["sft", "mpo"]
    assert made.stage("sft").parts["sft"].data == (str(out / "data" / "example.jsonl"),)
    lines = (out / "data" / "example.jsonl").read_text().splitlines()
    assert [json.loads(line)["messages"][1]["content"] for line in lines] == ["0.", "1.", "2.", "3.", "4."]
    record = read_record(out)
    assert record is not None
    assert {(one["question"], one["file"], one["line"]) for one in record["lessons"] if one["use"] == "example"} == {
        *((f"q{n}", "example.jsonl", n + 1) for n in range(5)),
        ("q5", "held_out.jsonl", 1),
    }
    asked = [json.loads(line) for line in (out / "data" / "held_out.jsonl").read_text().splitlines()]
    assert [row["messages"][1]["content"] for row in asked] == ["5."]


def test_what_a_run_learns_from_stays_what_it_was(store: Path, teach: Any, tmp_path: Path) -> None:
    teach(*map(lesson, range(4)))
    first = drawn(recipe(), tmp_path / "run", store)
    before = (tmp_path / "run" / "data" / "lessons.json").read_bytes()
    teach(*map(lesson, range(6)), *(lesson(n, "pair") for n in range(9)))
    assert drawn(recipe(), tmp_path / "run", None) == first
    assert (tmp_path / "run" / "data" / "lessons.json").read_bytes() == before
    assert len(drawn(recipe(), tmp_path / "other", store).stages) == 2
    (tmp_path / "run" / "data" / "lessons.json").write_text("{")
    with pytest.raises(FinetuneError, match="is damaged"):
        drawn(recipe(), tmp_path / "run", store)


def test_held_out_questions_are_asked_with_their_truth_and_once(store: Path, teach: Any, tmp_path: Path) -> None:
    kept = [lesson(7, use, held_out=True) for use in ("question", "example", "pair")]
    teach(*map(lesson, range(4)), *kept, lesson(8, "pair", held_out=True))
    drawn(recipe(), tmp_path, store)
    (row,) = [json.loads(line) for line in (tmp_path / "data" / "held_out.jsonl").read_text().splitlines()]
    assert row["messages"][-1] == {"role": "assistant", "content": "7."} and "reference" not in row
    assert "7." not in (tmp_path / "data" / "example.jsonl").read_text()


def test_too_little_is_refused_before_anything_begins(store: Path, teach: Any, tmp_path: Path) -> None:
    teach()
    with pytest.raises(FinetuneError, match="nothing to learn from yet: votes alone teach no better answer"):
        drawn(recipe(), tmp_path / "run", store)
    teach(lesson(0), gone=3)
    with pytest.raises(FinetuneError, match="4 SFT examples; there are 1 besides 3 whose video was deleted"):
        drawn(recipe(), tmp_path / "run", store)
    assert not (tmp_path / "run" / "data").exists()
    with pytest.raises(FinetuneError, match="There is no store"):
        drawn(recipe(), tmp_path / "run", tmp_path / "none.sqlite")


def test_few_rows_and_rows_that_all_say_the_same_are_warned_of(store: Path, teach: Any) -> None:
    teach(*map(lesson, range(10)))
    sft = weigh(recipe(), Store(store)).shares[0]
    assert sft.reason is None and sft.warning == "10 SFT examples are few: it learns these and little beyond them."
    teach(*(lesson(n, said="Yes.") for n in range(40)))
    told = weigh(recipe(), Store(store)).shares[0].warning
    assert told is not None and told.startswith("All 40 rows teach the same answer")
    teach(*map(lesson, range(40)))
    assert weigh(recipe(), Store(store)).shares[0].warning is None


def test_a_row_whose_video_was_deleted_is_left_out(store: Path, teach: Any, tmp_path: Path) -> None:
    lost = lesson(3)
    lost.row["videos"][0]["path"] = str(tmp_path / "gone.mp4")
    teach(*map(lesson, (0, 1, 2, 4)), lost)
    feedback = weigh(recipe(), Store(store))
    assert feedback.gone == 1 and [one.question for one in feedback.lessons] == ["q0", "q1", "q2", "q4"]


def test_what_is_excluded_is_not_learnt_and_a_held_out_video_is_only_asked_about(store: Path, teach: Any) -> None:
    teach(*map(lesson, range(6)), excluded=["a1"], held_out=["v2", "v3"])
    feedback = weigh(recipe(), Store(store))
    assert [one.question for one in feedback.lessons] == ["q0", "q4", "q5"]
    assert [one.question for one in feedback.held_out] == ["q2", "q3"]
    assert feedback.shares[0].reason == "It needs at least 4 SFT examples; there are 3."


def test_a_full_disk_leaves_nothing_half(store: Path, teach: Any, tmp_path: Path) -> None:
    teach(*map(lesson, range(4)))
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(FinetuneError, match="cannot be written"):
        drawn(recipe(), tmp_path / "run", store)
    assert (tmp_path / "run").read_text().startswith("a file")


def test_the_shell_learns_from_feedback_and_the_run_knows_from_which(store: Path, teach: Any, tmp_path: Path) -> None:
    teach(*map(lesson, range(4)), lesson(4, held_out=True))
    numbers = ["sft.steps=2", "sft.replay=0", "sft.batch_tokens=300", "threads=1", f"sft.cache={tmp_path / 'frames'}"]
    where = ["--store", str(store), "--model", str(NANO), "--out", str(tmp_path / "run")]
    assert main(["run", str(RECIPE), *numbers, *where]) == 0
    runs = Runs(store)
    (run,) = runs.list()
    assert run.status == "done" and [stage["name"] for stage in run.recipe["stages"]] == ["sft"]
    asked = [metric.figures["held_out"]["of"] for metric in runs.metrics(run.id) if "held_out" in metric.figures]
    assert asked == [1, 1]  # before and after
    assert runs.result(run.id) == tmp_path / "run" / "sft" / "model"
    runs.close()
