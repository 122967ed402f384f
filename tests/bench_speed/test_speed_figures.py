"""The arithmetic of the measurements, against values worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import report
from bench.__main__ import main
from bench.figures import (
    Line,
    Run,
    Series,
    at_least,
    at_most,
    cpu_seconds,
    from_json,
    not_measured,
    seconds,
    share_of,
    times_faster,
    to_json,
)
from bench.rows import NAMES, row
from bench.worker import Worker, WorkerError, alternate


def test_median_and_spread() -> None:
    odd = Series((3.0, 1.0, 2.0, 10.0, 4.0))
    assert (odd.median, odd.spread) == (3.0, (1.0, 10.0))
    assert Series((4.0, 1.0, 2.0, 8.0)).median == 3.0
    runs = [Run(2.0, 3.0), Run(1.0, 1.5)]
    assert seconds(runs).values == (2.0, 1.0) and cpu_seconds(runs).values == (3.0, 1.5)


def test_a_ratio_is_that_of_the_medians() -> None:
    ours, theirs = Series((1.0, 2.0, 9.0)), Series((8.0, 7.0, 9.0))
    faster = times_faster("a", ours, theirs, 4.0)
    assert faster.figure == 4.0 and faster.reached is True
    assert times_faster("a", ours, theirs, 4.5).reached is False
    share = share_of("a", ours, theirs, 0.2)
    assert share.figure == 0.25 and share.reached is False


def test_a_goal_is_reached_at_its_limit_and_nothing_is_said_without_one() -> None:
    assert at_most(1.15).reached(1.15) and not at_most(1.15).reached(1.16)
    assert at_least(4.0).reached(4.0) and not at_least(4.0).reached(3.99)
    assert not_measured("a", "no GPU here", at_least(3)).reached is None
    assert Line("a", figure=1.0).reached is None


def test_lines_come_back_from_json() -> None:
    line = share_of("a", Series((1.0, 2.0)), Series((2.0, 4.0)), 0.5, "note", unit="CPU s")
    assert from_json(json.loads(json.dumps(to_json(line)))) == line
    missing = not_measured("b", "nothing here")
    assert from_json(json.loads(json.dumps(to_json(missing)))) == missing


def test_works_take_turns_after_warming_up() -> None:
    seen: list[str] = []

    def work(name: str) -> Run:
        seen.append(name)
        return Run(float(len(seen)), 0.0)

    made = alternate([lambda: work("a"), lambda: work("b")], runs=2)
    assert "".join(seen) == "ababab"
    assert [[run.seconds for run in runs] for runs in made] == [[3.0, 5.0], [4.0, 6.0]]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (1234.5, "1,234"), (99.96, "100"), (1.1549, "1.15"), (0.00012, "0.00012")]
)
def test_numbers_have_three_figures(value: float, text: str) -> None:
    assert report.number(value) == text


def test_a_table_says_what_was_reached_and_what_was_not_measured() -> None:
    lines = [
        share_of("slow", Series((2.0, 3.0, 4.0)), Series((2.0, 2.0, 2.0)), 1.15),
        not_measured("GPU", "no GPU here", at_least(3)),
    ]
    rows = report.table(lines).splitlines()[2:]
    assert rows[0] == "| slow | 3 s (2–4) | 2 s (2–2) | **1.5 ×** | ≤ 1.15 × | no |"
    assert "no GPU here" in rows[1] and rows[1].endswith("| – |")


def test_the_report_and_the_history_are_written(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    found = report.machine()
    measured = [(row("decode"), [share_of("a", Series((1.0,)), Series((2.0,)), 1.15)])]
    report.write(tmp_path, found, measured)
    report.write(tmp_path, found, measured)
    text = (tmp_path / "BENCHMARKS.md").read_text("utf-8")
    assert "## decode" in text and "Tried and dropped" in text and found["processor"] in text
    history = [json.loads(line) for line in (tmp_path / "bench" / "history.jsonl").read_text("utf-8").splitlines()]
    assert len(history) == 2 and history[0]["rows"]["decode"][0]["reached"] is True


def test_every_row_says_what_it_is() -> None:
    for name in NAMES:
        found = row(name)
        assert found.name == name
        assert all((found.what, found.against, found.goal, found.how))


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(WorkerError, match="no attribute"):
        Worker("bench.figures:nothing")


def test_wrong_arguments_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["nothing"], ["--runs", "0"], ["decode", "--write"]):
        with pytest.raises(SystemExit):
            main(arguments)
    assert "there is no row nothing" in capsys.readouterr().err
