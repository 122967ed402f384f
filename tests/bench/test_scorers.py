"""Every worked example of KC-MMBENCH.md §9, item by item and as scores, and the rules of the other tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.__main__ import main
from finetune.bench.score import notes, score_file
from finetune.bench.scorers import Prediction
from finetune.bench.tasks import task_named

ROOT = Path(__file__).resolve().parents[2]
BOX = "<think>…</think><answer>\\boxed{%s}</answer>"

# name, task, answer, raw output, judge's reply, right as published, right strictly
EXAMPLES = [
    ("P1", "Pornographic_Comment", "否", "<think>封面是街舞…</think><answer>\\boxed{否}</answer>", None, True, True),
    (
        "P2",
        "Pornographic_Comment",
        "否",
        "<analysis>…/no_think mode is more appropriate.</analysis>是",
        None,
        False,
        False,
    ),
    ("P3", "Pornographic_Comment", "否", "否。", None, False, True),
    ("P3 judged", "Pornographic_Comment", "否", "否。", "否", True, True),
    ("H1", "High_like", "是", "是", None, True, True),
    ("H2", "High_like", "是", "<think>点赞高…", None, False, False),
    ("H3", "High_like", "是", "yes", None, True, True),
    ("H3 capital", "High_like", "是", "Yes", None, False, True),
    ("S1", "SPU", "是", "是 - 同一款水杯", None, True, True),
    ("S2", "SPU", "否", "两个商品不是同款, 否", None, True, True),
    ("S3", "SPU", "是", "是，同一款", None, False, True),
    (
        "T1",
        "Hot_Videos_Aggregation",
        "是_是_否",
        "视频2同为龙舟赛，视频3是做饭：[是，是，否]",
        "[是，是，否]",
        True,
        True,
    ),
    ("T2", "Hot_Videos_Aggregation", "是_否_否_是", "…", "[是，否，否]", False, False),
    ("T3", "Hot_Videos_Aggregation", "是_否_是", "…", "第一个例子[是，是，是]，最终[是，否，是]", True, True),
    ("T4", "Hot_Videos_Aggregation", "是_是", "…", "结论：是，是", False, False),
    (
        "O1",
        "Collection_Order",
        "[视频2, 视频1, 视频3]",
        "<think>视频2是开头</think><answer>[视频2, 视频1, 视频3]</answer>",
        "回答正确",
        True,
        True,
    ),
    (
        "O2",
        "Collection_Order",
        "[视频3, 视频2, 视频1]",
        BOX % "[视频3, 视频1, 视频2]",
        "回答错误",
        False,
        False,
    ),
    ("O3", "Collection_Order", "[视频1, 视频2]", "…", "不能说回答正确", True, False),
    (
        "C1",
        "CPV",
        "{'袖长': '长袖', '领型': '圆领'}",
        '<think>…</think>{"袖长": "长袖", "领型": "圆领"}',
        "回答正确",
        True,
        True,
    ),
    ("C2", "CPV", "{'材质': '棉', '厚薄': '薄款'}", '{"材质": "棉"}', "回答错误", False, False),
    ("C3", "CPV", "{'颜色': '红'}", '{"颜色": "红"}', "Correct", False, False),
]


def one(task: str, answer: str, output: str, reply: str | None = None, question: str = "?") -> Prediction:
    return Prediction(task, "1", question, answer, output, reply)


@pytest.mark.parametrize(("name", "task", "answer", "raw", "reply", "published", "strict"), EXAMPLES)
def test_worked_examples(
    name: str, task: str, answer: str, raw: str, reply: str | None, published: bool, strict: bool
) -> None:
    known = task_named(task)
    assert known is not None
    verdict = known.scorer(one(task, answer, raw, reply))
    assert (verdict.published, verdict.strict) == (published, strict), verdict


def write(path: Path, rows: list[object]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(task: str, index: object, answer: str, output: str, **more: object) -> dict[str, object]:
    return {"task": task, "index": index, "question": "?", "answer": answer, "output": output, **more}


def worked_file(path: Path) -> Path:
    """The examples of §9 as a file; the alternatives of P3 and H3 left out, so that the scores are those of §9."""
    chosen = [e for e in EXAMPLES if " " not in e[0]]
    rows = [
        row(task, name, answer, raw, category=name[0], **({} if reply is None else {"judge_reply": reply}))
        for name, task, answer, raw, reply, _, _ in chosen
    ]
    return write(path, rows)


WORKED = {
    "Pornographic_Comment": (33.33, 66.67),
    "High_like": (66.67, 66.67),
    "SPU": (66.67, 100.0),
    "Hot_Videos_Aggregation": (50.0, 50.0),
    "Collection_Order": (66.67, 33.33),
    "CPV": (33.33, 33.33),
}


def test_scores_of_the_worked_examples(tmp_path: Path) -> None:
    summary = score_file(worked_file(tmp_path / "p.jsonl")).summary()
    for at, scoring in enumerate(("published", "strict")):
        expected = {task: both[at] for task, both in WORKED.items()}
        # the macro mean is of the exact shares, so it may differ from the mean of the rounded ones in the last digit
        assert summary[scoring].pop("macro") == pytest.approx(sum(expected.values()) / 6, abs=0.01)
        assert summary[scoring] == expected
    assert summary["unscored"] == 0
    assert summary["categories"]["SPU"] == {"S": {"published": 66.67, "strict": 100.0, "items": 3}}


def test_the_command_prints_one_object_and_writes_a_line_per_item(tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    run = subprocess.run(
        [sys.executable, "-m", "finetune", "score", str(worked_file(tmp_path / "p.jsonl")), "--items", str(items)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    printed = json.loads(run.stdout)
    assert set(printed) == {"published", "strict", "categories", "unscored"}
    assert printed["published"]["Hot_Videos_Aggregation"] == 50.0
    lines = [json.loads(line) for line in items.read_text("utf-8").splitlines()]
    truth = {e[0]: (e[5], e[6]) for e in EXAMPLES}
    assert len(lines) == 19
    for line in lines:
        assert (line["published"], line["strict"]) == truth[line["index"]]
    assert next(line for line in lines if line["index"] == "P1")["extracted"] == "否"


def test_without_a_judge_the_exact_variants_decide_and_say_so(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        [
            row("CPV", 1, "{'a': 'x', 'b': ['1', '2']}", '<think>…</think>{"b": ["2", "1"], "a": "x"}'),
            row("CPV", 2, "{'a': 'x', 'b': 'y'}", '{"a": "x"}'),
            row("Collection_Order", 1, "[视频2, 视频1]", "<answer>[视频2, 视频1]</answer>"),
            row("Collection_Order", 2, "[视频2, 视频1]", "[视频1, 视频2]"),
            row("Hot_Videos_Aggregation", 1, "是_否", "所以 [是，否]"),
            row("Hot_Videos_Aggregation", 2, "是_否", "是，否"),
        ],
    )
    tally = score_file(path)
    for scoring in ("published", "strict"):
        assert tally.summary()[scoring] == {
            "CPV": 50.0,
            "Collection_Order": 50.0,
            "Hot_Videos_Aggregation": 50.0,
            "macro": 50.0,
        }
    assert all(count.not_comparable == 2 for count in tally.tasks.values())
    assert sum("not comparable" in note for note in notes(tally)) == 3


def test_a_judge_that_fails_or_rambles_is_named(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        [
            row("CPV", 1, "{'a': 'x'}", '{"a": "x"}', judge_reply=""),
            row("CPV", 2, "{'a': 'x'}", '{"a": "x"}', judge_reply="maybe"),
            row("CPV", 3, "{'a': 'x'}", '{"a": "x"}', judge_reply="回答正确。"),
            row("SPU", 1, "是", "嗯", judge_reply="嗯嗯"),
        ],
    )
    tally = score_file(path)
    assert tally.summary()["published"] == {"CPV": 33.33, "SPU": 0.0, "macro": 16.67}
    assert tally.summary()["strict"] == {"CPV": 50.0, "SPU": 0.0, "macro": 25.0}  # the failure has no strict score
    assert tally.unscored == 1
    assert tally.problems[("CPV", "the judge failed")] == 1
    assert tally.problems[("CPV", "the judge's reply is no verdict")] == 1
    assert tally.problems[("SPU", "the judge's reply is no verdict")] == 1


def test_bad_lines_are_counted_and_named_and_score_nothing(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    good = json.dumps(row("SPU", 1, "是", "是"), ensure_ascii=False)
    bad = [
        "{not json",
        "[1]",
        json.dumps({"task": "SPU", "index": 2}),
        json.dumps(row("SPU", True, "是", "是")),
        json.dumps(row("Nonsense", 1, "是", "是")),
        json.dumps(row("SPU", 1, "是", "否")),  # the index again
        json.dumps({**row("SPU", 3, "是", "是"), "judge_reply": 5}),
    ]
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join([good, "", *bad]).encode() + b"\n\xff\xfe\n")
    items = tmp_path / "items.jsonl"
    tally = score_file(path, items)
    assert tally.summary()["published"] == {"SPU": 100.0, "macro": 100.0}
    assert tally.unscored == len(bad) + 1 == sum(tally.problems.values())
    assert len(items.read_text().splitlines()) == len(bad) + 2


def test_half_characters_are_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"task":"SPU","index":"\\ud800","question":"","answer":"是","output":"\\ud800 是"}\n')
    assert score_file(path, tmp_path / "items").summary()["published"]["SPU"] == 100.0


@pytest.mark.parametrize("content", [None, "", "\n\n"])
def test_nothing_to_score_is_one_sentence(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.jsonl"
    if content is not None:
        path.write_text(content)
    assert main(["score", str(path)]) == 2
    told = capsys.readouterr()
    assert told.out == "" and len(told.err.strip().splitlines()) == 1


CAPTIONS = "Which caption matches better?\nOption 1: A man runs.\nOption 2: A man sleeps."


@pytest.mark.parametrize(
    ("task", "answer", "output", "published", "strict"),
    [
        ("Video-MME", "B", "B", True, True),
        ("Video-MME", "B", "Because", True, False),
        ("Video-MME", "B", "The best answer is: B. dog", True, True),
        ("Video-MME", "A", "<think>B?</think><answer>\\boxed{A}</answer>", True, True),
        ("Video-MMMU", "H", "H", True, True),
        ("LongVideoBench", "E", "(E)", True, True),
        ("MMVU", "C", "no idea", False, False),
        ("MMVU open", "Dolly Zoom", "dolly zoom.", True, True),
        ("MMVU open", "Dolly Zoom", "a dolly", False, False),
        ("TempCompass multi-choice", "B. jumps", "B", True, True),
        ("TempCompass multi-choice", "B. jumps", "B) jumps", True, True),
        ("TempCompass multi-choice", "B. jumps", "The answer is B", False, True),
        ("TempCompass yes_no", "no", "Nobody moves", True, False),
        ("TempCompass yes_no", "yes", "Yes, it does.", True, True),
        ("TempCompass yes_no", "no", "It is: no", False, True),
        ("TempCompass caption_matching", "Option 2: A man sleeps.", "Option 2", True, True),
        ("TempCompass caption_matching", "Option 2: A man sleeps.", "A man sleeps.", True, True),
        ("TempCompass caption_matching", "Option 2: A man sleeps.", "option 2: a man sleeps", False, True),
        ("TempCompass caption_matching", "Option 2: A man sleeps.", "Option 1: A man runs.", False, False),
        ("TempCompass caption_matching", "Option 2: A man sleeps.", "sleeping", False, False),
        ("World", "A red star.", "a red star", True, True),
        ("World", "A red star.", "a blue star", False, False),
    ],
)
def test_public_tasks(task: str, answer: str, output: str, published: bool, strict: bool) -> None:
    known = task_named(task)
    assert known is not None
    verdict = known.scorer(one(task, answer, output, question=CAPTIONS))
    assert (verdict.published, verdict.strict) == (published, strict), verdict
