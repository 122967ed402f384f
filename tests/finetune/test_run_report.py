"""The report of a run: its figures from what lies in the folder, whatever is missing, broken or hostile."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from finetune.answers.scoring import wilson
from finetune.errors import FinetuneError
from finetune.measuring.groups import GROUPS
from finetune.reports.curves import Line, chart, thinned, thousands, ticks
from finetune.reports.run_report import write_report
from tests.finetune.made_up_run import answers, evaluation, made_up_run, measure


def report(folder: Path) -> tuple[dict[str, Any], str]:
    html = write_report(folder)
    return json.loads((folder / "report.json").read_text("utf-8")), html.read_text("utf-8")


def test_a_finished_run(tmp_path: Path) -> None:
    recipe = made_up_run(tmp_path / "nano")
    facts, html = report(tmp_path / "nano")
    assert facts["finished"] and facts["problems"] == []
    assert [s["title"] for s in facts["stages"]][:4] == ["stage0", "stage1", "stage2.one", "stage2.two"]
    assert facts["after"] == {name: name for name in ("stage1", "stage2", "stage3", "sft")}
    assert list(facts["checks"])[-5:-1] == ["stage3.general", "stage3.seeing", "stage3.time", "stage3"]
    steps = sum(part.steps for stage in recipe.stages for part in stage.parts.values())
    assert facts["totals"] == {
        "steps": steps,
        "seconds": steps * 1.5,
        "processor_seconds": pytest.approx(steps * 2.9),
        "examples": steps * 150,
        "tokens": steps * 7_000,
    }
    for words in ("python -m finetune run recipes/nano.toml", "0.1.0 (19a3f63)", "seed 0", "keye-nano, random weights"):
        assert words in html
    assert html.count("<svg") >= 8


def test_every_share_has_the_interval_of_its_counts(tmp_path: Path) -> None:
    made_up_run(tmp_path / "nano")
    facts, html = report(tmp_path / "nano")
    written = json.loads((tmp_path / "nano/stage3/evaluation.json").read_text("utf-8"))
    for kind, row in written["kinds"].items():
        found = facts["checks"]["stage3"]["kinds"][kind]
        assert (found["questions"], found["right"]) == (row["questions"], row["right"])
        assert (found["low"], found["high"]) == pytest.approx(wilson(row["right"], row["questions"]), abs=5e-5)
        assert f"{100 * row['right'] / row['questions']:.1f}" in html
    shares = [row["right"] / row["questions"] for row in written["kinds"].values()]
    average = facts["checks"]["stage3"]["mean_of_kinds"]
    assert average["accuracy"] == pytest.approx(sum(shares) / len(shares), abs=5e-5)
    assert average["low"] < average["accuracy"] < average["high"]
    # the blind baseline was measured after the last stage only, and is that of the table
    assert facts["baselines"]["blind_of"] == "stage3"
    assert facts["baselines"]["kinds"]["colour"] == {"blind": pytest.approx(0.1275), "floor": 0.17}
    assert set(facts["checks"]["stage3"]["groups"]) == set(GROUPS)
    assert facts["baselines"]["groups"]["video"]["blind"] is not None
    assert facts["baselines"]["groups"]["chinese"]["blind"] is None  # nothing is asked blind in Chinese
    for words in (*GROUPS.values(), "In Chinese, by kind of question"):
        assert words in html


def test_merged_against_annealed_is_paired_where_the_questions_are_the_same(tmp_path: Path) -> None:
    made_up_run(tmp_path / "nano")
    facts, html = report(tmp_path / "nano")
    ours, theirs = facts["checks"]["stage3"], facts["checks"]["stage3.time"]
    found = facts["merged"]["stage3"]["stage3.time"]
    assert found["paired"] and "paired: both answered the same questions" in html
    expected = ours["mean_of_kinds"]["accuracy"] - theirs["mean_of_kinds"]["accuracy"]
    assert found["difference"] == pytest.approx(expected, abs=2e-4)
    (tmp_path / "nano/stage3/time/answers.jsonl").unlink()
    facts, html = report(tmp_path / "nano")
    apart = facts["merged"]["stage3"]["stage3.time"]
    assert not apart["paired"] and "unpaired elsewhere" in html
    assert apart["difference"] == pytest.approx(found["difference"], abs=1e-4)
    # in the made-up answers the worse model is right only where the better one is, so that pairing tells more
    assert apart["high"] - apart["low"] > found["high"] - found["low"]


def test_answers_that_do_not_fit_the_counts_are_not_paired(tmp_path: Path) -> None:
    made_up_run(tmp_path / "nano")
    facts = evaluation(0.9, "other", False)
    measure(tmp_path / "nano/stage3/time", facts, keep=True)
    path = tmp_path / "nano/stage3/time/answers.jsonl"
    path.write_text("".join(json.dumps({**line, "answer": "no"}) + "\n" for line in answers(facts)), "utf-8")
    found, _ = report(tmp_path / "nano")
    assert not found["merged"]["stage3"]["stage3.time"]["paired"]
    assert found["merged"]["stage3"]["stage3.general"]["paired"]


def test_a_resumed_stage_counts_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lines = [{"stage": "sft", "step": s, "of": 200, "loss": float(s), "minutes": s / 25} for s in (25, 50, 75, 100)]
    lines += [{"stage": "sft", "step": s, "of": 200, "loss": -float(s), "minutes": s / 25} for s in (75, 100, 125)]
    half = json.dumps({"stage": "sft", "step": 150})[:-7]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n" + half, "utf-8")
    facts, html = report(folder)
    assert [(p["step"], p["loss"]) for p in facts["curves"]["sft"]] == [
        (25, 25.0), (50, 50.0), (75, -75.0), (100, -100.0), (125, -125.0),
    ]  # fmt: skip
    (stage,) = facts["stages"]
    assert (stage["steps"], stage["of"], stage["seconds"], stage["done"]) == (125, 200, 300.0, False)
    assert "sft is at step 125 of 200" in html and facts["problems"] == []


def test_a_stopped_run_shows_what_there_is(tmp_path: Path) -> None:
    made_up_run(tmp_path / "nano")
    for part in ("seeing", "time"):
        for path in (tmp_path / "nano/stage3" / part).iterdir():
            path.unlink()
    (tmp_path / "nano/stage3/evaluation.json").unlink()
    for path in (tmp_path / "nano/sft").iterdir():
        path.unlink()
    lines = (tmp_path / "nano/log.jsonl").read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not any(name in line for name in ("stage3.seeing", "stage3.time", '"sft"'))]
    (tmp_path / "nano/log.jsonl").write_text("".join(kept), "utf-8")
    facts, html = report(tmp_path / "nano")
    assert not facts["finished"] and "stage3.seeing is not begun; 2 more to come" in html
    assert list(facts["after"]) == ["stage1", "stage2"] and "stage3.general" in facts["checks"]
    assert facts["merged"] == {} and facts["baselines"]["blind_of"] is None
    assert "The blind baseline was not measured." in html


def test_nothing_but_a_recipe(tmp_path: Path) -> None:
    made_up_run(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "a/recipe.json").rename(tmp_path / "b/recipe.json")
    facts, html = report(tmp_path / "b")
    assert not facts["finished"] and "Nothing has been measured yet." in html and "not recorded" in html
    assert facts["totals"]["steps"] == 0


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "x").mkdir()
    with pytest.raises(FinetuneError, match=r"There is no run in .*; give the folder"):
        write_report(tmp_path / "x")


def test_what_the_modes_were_worth_after_each_stage(tmp_path: Path) -> None:
    made_up_run(tmp_path / "nano")
    counts = {"no_think": (50, 40, 2.0), "think": (50, 45, 30.5)}
    rows = {mode: {"questions": n, "right": hits, "tokens": tokens} for mode, (n, hits, tokens) in counts.items()}
    told = {
        "groups": {"steps": rows, "no group": rows},
        "repeating": {"think": {"questions": 100, "right": 3}, "no_think": {"questions": 3, "right": 100}},
        "auto_thinks": {"steps": {"questions": 50, "right": 49}, "simple": "often"},
    }
    (tmp_path / "nano/sft/modes.json").write_text(json.dumps(told), "utf-8")
    facts, html = report(tmp_path / "nano")
    (found,) = facts["modes"].values()
    assert found["right"].keys() == {"several steps"} and found["auto_thinks"].keys() == {"several steps"}
    low, high = wilson(45, 50)
    thought = found["right"]["several steps"]["think"]
    assert (thought["accuracy"], thought["tokens"]) == (0.9, 30.5)
    assert (thought["low"], thought["high"]) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert found["repeating"] == {"think": found["repeating"]["think"]}  # more than were asked makes no sense
    assert found["repeating"]["think"]["accuracy"] == 0.03
    assert "<h2>The modes</h2>" in html and "went round in circles" in html and "30 tokens" in html


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("sft/modes.json", '{"groups": {"steps": 5}, "repeating": [], "auto_thinks": null}'),
        ("stage3/evaluation.json", "{"),
        ("stage3/evaluation.json", "[1]"),
        ("stage3/evaluation.json", '{"kinds": {"colour": {"questions": -1, "right": 5}, "b": 3, "c": {"right": "x"}}}'),
        ("stage3/evaluation.json", '{"kinds": {"colour": {"questions": 1e999, "right": NaN}}, "groups": 7}'),
        ("stage3/time/answers.jsonl", '{"kind": 1}\n{'),
        ("stage1/done.json", "\x00\x01"),
        ("stage1/done.json", '{"seconds": "long", "steps": [], "examples": -4, "note": {}}'),
        ("machine.json", "nothing"),
        ("machine.json", '{"command": {"a": 1}, "gpus": [[[]]], "cores": null}'),
        ("log.jsonl", '5\n{"stage": 1}\n{"stage": "a", "step": "b"}\n{"stage": "stage1", "step": 1, "right": []}\n'),
        ("log.jsonl", '{"stage": "stage1", "step": 1, "loss": NaN, "right": {"a": "b"}}\n' + "[" * 100_000),
        ("recipe.json", '{"name": 5, "stages": [1, {"name": 2}, {"name": "x", "parts": 3}], "model": [], "seed": {}}'),
        ("recipe.json", "["),
    ],
)
def test_a_broken_file_does_not_break_the_report(tmp_path: Path, file: str, content: str) -> None:
    made_up_run(tmp_path / "nano")
    (tmp_path / "nano" / file).write_bytes(content.encode())
    facts, html = report(tmp_path / "nano")
    assert "</html>" in html and all(p.endswith(".") and "\n" not in p for p in facts["problems"])
    if content in ("{", "[1]", "[", "\x00\x01", "nothing"):
        (problem,) = facts["problems"]
        assert Path(file).name in problem and "was left out" in problem


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_nothing_hostile_gets_out_of_its_place(tmp_path: Path) -> None:
    made_up_run(tmp_path / "nano")
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    folder = tmp_path / "nano"
    facts = evaluation(0.9, "x", True)
    facts["kinds"][evil] = facts["kinds"]["colour"]
    facts["groups"][evil] = facts["groups"]["video"]
    measure(folder / "stage3", facts, keep=False)
    recipe = json.loads((folder / "recipe.json").read_text("utf-8"))
    recipe["name"] = evil
    recipe["model"] = {"path": evil}
    recipe["stages"][1]["kind"] = evil
    recipe["stages"].append({"name": "../../etc", "kind": "sft", "parts": {"../passwd": {}}})
    (folder / "recipe.json").write_text(json.dumps(recipe), "utf-8")
    (folder / "machine.json").write_text(json.dumps({"command": evil, "code": evil, evil: evil}), "utf-8")
    (folder / "stage1/done.json").write_text(json.dumps({"note": evil}), "utf-8")
    line = {"stage": evil.replace(".", ""), "step": 1, "loss": 1.0, "right": {evil: 0.5}}
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n" + json.dumps({**line, "stage": "../x"}) + "\n")
    found, html = report(folder)
    tags = Tags(html).found
    assert not {tag for tag, _ in tags} & {"script", "iframe", "object", "embed", "link", "img", "form", "a", "base"}
    assert not any(name.startswith("on") or name in ("src", "href") for _, attributes in tags for name in attributes)
    assert any("default-src 'none'" in (a.get("content") or "") for tag, a in tags if tag == "meta")
    assert "&lt;script&gt;alert(1)" in html
    assert not any(".." in stage["title"] for stage in found["stages"])


def test_axes_have_round_numbers() -> None:
    assert ticks(0, 1000, 4) == [0, 250, 500, 750, 1000]
    assert ticks(0.13, 0.92, 4) == [0.2, 0.4, 0.6, 0.8]
    assert ticks(3, 3, 4) == [3]
    assert [thousands(v) for v in (750, 1200, 36_680_000, 600e9)] == ["750", "1.2k", "36.7M", "600B"]


def test_curves_of_odd_data_are_drawn_or_left_out() -> None:
    assert chart([Line("a", [])], "nothing") == ""
    for points in ([(0.0, 0.0)], [(1.0, 5.0), (2.0, 5.0)], [(0.0, -1e300), (1.0, 1e300)], [(1.0, 1e-9), (2.0, 1e9)]):
        drawn = chart([Line("a", points)], "odd")
        assert drawn.startswith("<svg") and "nan" not in drawn and "inf" not in drawn
    many = [(float(n), float(n % 2)) for n in range(10_000)]
    assert len(thinned(many)) == 240 and all(0.4 < y < 0.6 for _, y in thinned(many))
