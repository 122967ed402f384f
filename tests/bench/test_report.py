"""Counting, intervals, and reports over hostile text."""

from __future__ import annotations

import csv
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pytest

from engine.runtime.base import Runtime
from finetune.bench.figures import MACRO, published_figures
from finetune.bench.registry import BENCHMARKS, benchmark
from finetune.bench.report import write_report
from finetune.bench.run import Plan, run
from finetune.bench.scorers import Prediction, Verdict
from finetune.bench.tally import Tally
from tests.bench import made_up


def tally(**tasks: tuple[int, int]) -> Tally:
    """A tally with (right, total) of each task, the same under both scorings."""
    made = Tally()
    for name, (right, total) in tasks.items():
        for number in range(total):
            made.add(Prediction(name, str(number), "", "", ""), Verdict("", "", number < right, number < right))
    return made


def test_the_headline_is_the_mean_of_tasks_not_of_items() -> None:
    made = tally(A=(8, 10), B=(0, 2))
    assert made.macro("published") == pytest.approx(40.0)
    assert made.all_items("strict").percent == pytest.approx(100 * 8 / 12)
    assert tally().macro("published") is None


def test_the_interval_of_the_headline() -> None:
    # One task: Wilson's own values for 8 of 10. Four alike: half as wide on either side.
    assert tally(A=(8, 10)).macro_interval("published") == pytest.approx((49.02, 94.33), abs=0.02)
    four = tally(A=(8, 10), B=(8, 10), C=(8, 10), D=(8, 10)).macro_interval("published")
    assert four == pytest.approx((80 - 30.98 / 2, 80 + 14.33 / 2), abs=0.02)
    # Two unlike, by hand: Wilson of 8/10 is 0.4902 to 0.9433, of 0/10 is 0 to 0.2775; the mean is 0.4.
    low, high = 0.4 - math.hypot(0.8 - 0.4902, 0) / 2, 0.4 + math.hypot(0.9433 - 0.8, 0.2775) / 2
    assert tally(A=(8, 10), B=(0, 10)).macro_interval("strict") == pytest.approx((100 * low, 100 * high), abs=0.02)


def test_a_thousand_missing_files_are_one_problem() -> None:
    made = Tally()
    for number in range(1000):
        made.leave_out("A", f"a media file is missing: {number}.png")
    assert dict(made.problems) == {("A", "a media file is missing"): 1000} and made.unscored == 1000


def test_published_figures_are_those_of_the_paper() -> None:
    kc = published_figures("kc-mmbench")
    assert set(kc) == {*BENCHMARKS["kc-mmbench"].tasks, MACRO}
    for model in ("MiMo-VL 7B", "InternVL3 8B", "Qwen2.5-VL 7B", "Qwen2.5-VL 3B", "Keye-VL-8B auto"):
        values = [row[model] for task, row in kc.items() if task != MACRO]
        assert sum(values) / 6 == pytest.approx(kc[MACRO][model], abs=0.06)  # the mean of what is printed
    assert published_figures("mmvu")[MACRO]["Keye-VL-8B think"] == 66.1
    assert published_figures("world") == {}


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_nothing_hostile_gets_out_of_its_place(tmp_path: Path, nano: Runtime) -> None:
    plan, out = made_up.hostile(tmp_path, nano)
    facts = write_report(plan, nano.info(), out)
    html = (out / "report.html").read_text("utf-8")
    tags = Tags(html).found
    names = {tag for tag, _ in tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "base", "form", "svg", "a"}
    assert sum(tag == "style" for tag, _ in tags) == 1
    for tag, attributes in tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        if "src" in attributes:
            assert (attributes["src"] or "").startswith("data:image/jpeg;base64,")
    assert any("default-src 'none'" in (a.get("content") or "") for tag, a in tags if tag == "meta")
    assert sum(tag == "img" for tag, _ in tags) == 3  # the pictures of the three wrong answers, and no other
    assert html.count("&lt;script&gt;alert(1)") >= 6  # shown as it is
    assert facts["answered"] == 3 and facts["cut_at_the_token_limit"] == 3


def test_spreadsheets_get_no_formulas(tmp_path: Path, nano: Runtime) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    made_up.picture(data / "images" / "a.png", 0)
    made_up.table(data / "subsets" / "SPU.tsv", made_up.KC_HEADING, [["=1+1", "a.png", "+q\n二", "是", "@c"]])
    plan = Plan(benchmark("kc-mmbench"), data, max_tokens=1)
    assert run(plan, nano, out)
    write_report(plan, nano.info(), out)
    with (out / "items.csv").open(encoding="utf-8-sig", newline="") as file:
        row = next(r for r in csv.DictReader(file) if r["task"] == "SPU")
    assert (row["index"], row["question"], row["category"]) == ("'=1+1", "'+q\n二", "'@c")


def test_the_report_names_every_number_of_the_run(tmp_path: Path, nano: Runtime) -> None:
    data, out = made_up.kc_mmbench(tmp_path / "data", each=2), tmp_path / "out"
    plan = Plan(benchmark("kc-mmbench"), data, mode="no_think", limit=2, max_tokens=2)
    assert run(plan, nano, out)
    facts = write_report(plan, nano.info(), out)
    assert facts == json.loads((out / "report.json").read_text("utf-8"))
    html = (out / "report.html").read_text("utf-8")
    for words in ("no_think", "greedy", "at most 2 new tokens", "no judge", "first 2 of each task", "12", "†", "84.4"):
        assert words in html
    assert facts["categories"]["SPU"].keys() == {"d", "e", "l2 of d", "l2 of e"}
    assert facts["tasks"]["SPU"]["comparable"] and not facts["tasks"]["CPV"]["comparable"]


def test_a_partial_set_of_tasks_is_said_to_be_one(tmp_path: Path, nano: Runtime) -> None:
    data, out = made_up.kc_mmbench(tmp_path / "data", each=1), tmp_path / "out"
    for name in ("CPV", "Video_Topic", "Video_Order"):
        (data / "subsets" / f"{name}.tsv").unlink()
    plan = Plan(benchmark("kc-mmbench"), data, max_tokens=1)
    assert run(plan, nano, out)
    facts = write_report(plan, nano.info(), out)
    assert facts["missing_tasks"] == ["CPV", "Hot_Videos_Aggregation", "Collection_Order"]
    assert "Not measured: CPV" in (out / "report.html").read_text("utf-8")
