"""Every benchmark end to end on made-up data in its published layout, with the real keye-nano; and broken data."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from engine.runtime.base import Runtime
from engine.video.types import Clip
from finetune.bench.base import Flaw, Item, inside, rows, with_options
from finetune.bench.registry import BENCHMARKS, benchmark
from finetune.bench.report import write_report
from finetune.bench.run import Plan, run
from finetune.bench.score import score_file
from finetune.errors import FinetuneError
from tests.bench import made_up

ITEMS = {"kc-mmbench": 12, "video-mme": 3, "video-mmmu": 4, "tempcompass": 3, "longvideobench": 1, "mmvu": 2}


@pytest.mark.parametrize("name", sorted(ITEMS))
def test_end_to_end(name: str, tmp_path: Path, nano: Runtime) -> None:
    data = tmp_path / "data"
    data.mkdir()
    made_up.MAKERS[name](data)
    plan, out = Plan(benchmark(name), data, max_tokens=4), tmp_path / "out"
    assert run(plan, nano, out, parallel=2)
    facts = write_report(plan, nano.info(), out)
    assert facts["items"] == facts["answered"] == ITEMS[name] and facts["unscored"] == 0
    assert sum(task["published"]["items"] for task in facts["tasks"].values()) == ITEMS[name]
    assert set(facts["tasks"]) == set(BENCHMARKS[name].tasks)
    # The predictions file is in the form of `python -m finetune score`, and that says the same.
    summary = score_file(out / "predictions.jsonl").summary()
    for scoring in ("published", "strict"):
        told = {task: both[scoring]["percent"] for task, both in facts["tasks"].items()}
        assert {**told, "macro": facts["macro"][scoring]["percent"]} == summary[scoring]
    with (out / "items.csv").open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.DictReader(file))) == ITEMS[name]
    if name != "kc-mmbench":  # videos: the report states how many frames the model got
        assert facts["frames"]["fewest"] >= 4 and facts["frames"]["most"] <= nano.info().sampling.max_frames


def test_the_world_needs_no_data(tmp_path: Path, nano: Runtime) -> None:
    plan = Plan(benchmark("world"), tmp_path / "clips", mode="auto", limit=3, max_tokens=4)
    assert run(plan, nano, tmp_path / "out", parallel=2)
    facts = write_report(plan, nano.info(), tmp_path / "out")
    assert facts["answered"] == 3 and len(list((tmp_path / "clips").iterdir())) == 1  # three questions about one clip


def items(name: str, data: Path) -> list[Item]:
    return [row for row in rows(benchmark(name), data) if isinstance(row, Item)]


def test_prompts_are_the_published_ones(tmp_path: Path) -> None:
    for name, make in made_up.MAKERS.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name)
    kc = {item.task: item for item in items("kc-mmbench", tmp_path / "kc-mmbench")}
    suffix = "\n请直接给出结论，回答是或者否，不需要做额外分析，并且不许回答不确定"
    assert kc["Pornographic_Comment"].prompt == "评论：收藏了\n请判断" + suffix
    assert kc["SPU"].prompt == "同一商品？" + suffix and len(kc["SPU"].media) == 2
    for task in ("CPV", "Hot_Videos_Aggregation", "Collection_Order"):
        assert kc[task].prompt == kc[task].question + "\nAnswer the question using a single word or phrase."
    assert kc["CPV"].category == "a"
    mme = items("video-mme", tmp_path / "video-mme")[1]
    assert mme.prompt == (
        "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
        "letter (A, B, C, or D) of the correct option.\nHow many discs?\nA. One.\nB. Two.\nC. Three.\nD. Four.\n"
        "The best answer is:"
    )
    assert (mme.answer, mme.category) == ("B", "short")
    learnt = {item.index: item for item in items("video-mmmu", tmp_path / "video-mmmu")}
    assert learnt["Perception/validation_Math_1"].prompt == (
        "What?\nA. 4\nB. 5\nC. 6\nPlease ignore the Quiz question in last frame of the video."
    )
    assert learnt["Adaptation/validation_Math_2"].task == "Video-MMMU open"
    long = items("longvideobench", tmp_path / "longvideobench")[0]
    assert long.answer == "B" and long.prompt.startswith("Question: When?\nA. now\nB. later\nC. never\nAnswer with")
    assert long.media == (Clip(tmp_path / "longvideobench" / "videos" / "long.mp4"),)
    assert [i.prompt for i in items("tempcompass", tmp_path / "tempcompass")][1] == (
        "Does it move?\nPlease answer yes or no:"
    )
    assert items("mmvu", tmp_path / "mmvu")[0].question == "Which?\nA: x\nB: y"


def test_options_keep_letters_they_have() -> None:
    assert with_options("q", ["A. x", "B. y"]) == "q\nA. x\nB. y"
    assert with_options("q", ["x", "B. y"]) == "q\nA. x\nB. B. y"


def test_broken_rows_are_named_one_by_one(tmp_path: Path) -> None:
    made_up.kc_mmbench(tmp_path, each=1)
    (tmp_path / "secret.png").write_bytes((tmp_path / "images/made_up/0.png").read_bytes())
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    good = "made_up/0.png"
    body = [
        [1, good, "q", "是", ""],
        [1, good, "q", "否", ""],  # the index again
        [3, "gone.png", "q", "是", ""],
        [4, "../secret.png", "q", "是", ""],
        [5, "link.png", "q", "是", ""],
        [6, str(tmp_path / "secret.png"), "q", "是", ""],
        [7, "[__import__('os')]", "q", "是", ""],
        [8, "[]", "q", "是", ""],
        [9, good, "q", "", ""],
        [10, good, "q"],
        ["", good, "q", "是", ""],
    ]
    path = made_up.table(tmp_path / "subsets" / "SPU.tsv", made_up.KC_HEADING, body)
    path.write_bytes(path.read_bytes() + "12\tmade_up/0.png\t问题\t是\t\n".encode("gb18030"))
    (tmp_path / "subsets" / "CPV.tsv").unlink()
    found = list(rows(benchmark("kc-mmbench"), tmp_path))
    flaws = {row.index: row.problem for row in found if isinstance(row, Flaw) and row.task == "SPU"}
    assert [row.index for row in found if isinstance(row, Item) and row.task == "SPU"] == ["1"]
    assert flaws["1"] == "the index was there before"
    assert flaws["3"] == "a media file is missing: gone.png"
    for index in ("4", "5", "6"):
        assert flaws[index].startswith("a media file lies outside the data folder")
    assert flaws["7"] == flaws["8"] == "image_path is neither a name nor a list of names"
    assert flaws["9"] == "the row has no answer"
    assert "fields" in flaws["row 10"] and flaws["row 11"] == "the row has no index"
    assert flaws["row 12"] == "the row is not UTF-8"
    assert [row.problem for row in found if row.task == "CPV" and isinstance(row, Flaw)] == [
        "the table is missing: CPV.tsv"
    ]


def test_broken_media_and_rows_are_unscored_and_in_the_report(tmp_path: Path, nano: Runtime) -> None:
    data = made_up.kc_mmbench(tmp_path / "data", each=2)
    (data / "images/made_up/0.png").write_bytes(b"no picture")
    (data / "images/made_up/1.png").unlink()
    plan, out = Plan(benchmark("kc-mmbench"), data, max_tokens=2), tmp_path / "out"
    assert run(plan, nano, out)
    facts = write_report(plan, nano.info(), out)
    assert facts["answered"] == 0 and facts["unscored"] == facts["items"] == 12
    problems = {(p["task"], p["problem"]): p["items"] for p in facts["problems"]}
    assert problems["CPV", "the media cannot be read"] == problems["CPV", "a media file is missing"] == 1
    assert facts["macro"]["published"]["percent"] is None
    html = (out / "report.html").read_text()
    assert "0.png cannot be read as a picture" in html and "12 items have no answer" in html


@pytest.mark.parametrize("name", sorted(ITEMS))
def test_an_empty_folder_and_nonsense_files_are_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="must hold"):
        list(rows(benchmark(name), tmp_path))
    made_up.MAKERS[name](tmp_path)
    for path in tmp_path.rglob("*"):
        if path.suffix in (".json", ".tsv", ".parquet"):
            path.write_bytes(b"\xff\xfe\x00nonsense")
    try:  # of several tables each is a flaw, so that one bad one does not keep the others from being measured
        found = list(rows(benchmark(name), tmp_path))
    except FinetuneError as error:
        assert len(BENCHMARKS[name].tasks) < 3 and str(error).count("\n") == 0
    else:
        assert found and all(isinstance(row, Flaw) and "cannot be read" in row.problem for row in found)


def test_one_bad_table_leaves_the_others(tmp_path: Path) -> None:
    made_up.kc_mmbench(tmp_path, each=1)
    (tmp_path / "subsets" / "SPU.tsv").write_bytes("index\timage_path\tquestion\tanswer\n".encode("utf-16"))
    found = list(rows(benchmark("kc-mmbench"), tmp_path))
    assert [row.task for row in found if isinstance(row, Flaw)] == ["SPU"] and len(found) == 6


def test_rows_that_an_open_quote_swallows_are_named(tmp_path: Path) -> None:
    made_up.kc_mmbench(tmp_path, each=1)
    lines = ["\t".join(made_up.KC_HEADING), *(f"{n}\tmade_up/0.png\tq\t是\t" for n in range(1, 6))]
    lines[2] = lines[2].replace("\tq\t", '\t"q\t')
    (tmp_path / "subsets" / "SPU.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    found = [row for row in rows(benchmark("kc-mmbench"), tmp_path) if row.task == "SPU"]
    assert isinstance(found[0], Item) and isinstance(found[1], Flaw) and len(found) == 2
    assert found[1].problem == "the row has 3 fields and the heading 5: lines 3 to 6"


@pytest.mark.parametrize("value", [[], {}, [None], [1], [[]], {"77": 5}, {"77": {"action": [5, {"question": 1}]}}])
def test_json_of_another_shape_gives_flaws_or_one_sentence(value: object, tmp_path: Path) -> None:
    for name, file in (
        ("longvideobench", "lvb_val.json"),
        ("mmvu", "validation.json"),
        ("tempcompass", "questions/yes_no.json"),
    ):
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value))
        try:
            assert all(isinstance(row, Flaw) for row in rows(benchmark(name), tmp_path))
        except FinetuneError as error:
            assert str(error).count("\n") == 0


def test_inside_follows_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "out.png").touch()
    for name in ("", "\0", "x" * 2000, "../out.png", str(tmp_path / "out.png"), "a/../../out.png", "."):
        assert isinstance(inside(tmp_path / "root", name), str)


def test_without_pyarrow_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.video_mme(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FinetuneError, match="make setup"):
        list(rows(benchmark("video-mme"), tmp_path))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(FinetuneError, match="kc-mmbench"):
        benchmark("imagenet")
