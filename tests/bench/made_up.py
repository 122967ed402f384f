"""Small made-up data in the layouts in which the benchmarks are published. Nothing in it is copied from them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from engine.runtime.base import Runtime
from finetune.bench.base import Item, rows
from finetune.bench.predictions import Predictions
from finetune.bench.registry import benchmark
from finetune.bench.run import Plan, run
from tests.media import make_clip

COLOURS = ("red", "blue", "green", "orange")


def picture(path: Path, number: int, size: tuple[int, int] = (112, 112)) -> Path:
    """A coloured disc on a plain ground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse((20, 20, size[0] - 20, size[1] - 20), fill=COLOURS[number % len(COLOURS)])
    image.save(path)
    return path


def table(path: Path, heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(heading)
        writer.writerows(rows)
    return path


KC_HEADING = ("index", "image_path", "question", "answer", "category")


def kc_mmbench(root: Path, each: int = 2, pictures: int = 4) -> Path:
    """All six tasks with `each` items, over a few pictures."""
    names = [picture(root / "images" / "made_up" / f"{n}.png", n).relative_to(root / "images") for n in range(pictures)]

    def several(count: int, at: int) -> str:
        return str([str(names[(at + k) % pictures]) for k in range(count)])

    rows: dict[str, list[list[Any]]] = {
        "CPV": [[n, names[n % pictures], "Colour of the disc as JSON?", "{'colour': 'red'}", "a"] for n in range(each)],
        "Video_Topic": [[n, several(3, n), "同一主题？", "是_是_否", ""] for n in range(each)],
        "Video_Order": [[n, several(3, n), "请排序", "[视频2, 视频1, 视频3]", ""] for n in range(each)],
        "PornComment": [[n, names[n % pictures], "评论：收藏了\n请判断", "否", "b"] for n in range(each)],
        "High_like": [[n, names[n % pictures], "高点赞率？", "是", "c"] for n in range(each)],
        "SPU": [[n, several(2, n), "同一商品？", "是", "d" if n % 2 else "e"] for n in range(each)],
    }
    for name, body in rows.items():
        table(
            root / "subsets" / f"{name}.tsv",
            (*KC_HEADING, "l2-category"),
            [[*row, f"l2 of {row[-1]}" if row[-1] else ""] for row in body],
        )
    return root


def clip(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_clip(path, frames=25, fps=10, size=(112, 112))


def video_mme(root: Path) -> Path:
    clip(root / "data" / "abc123.mp4")
    parquet(
        root / "videomme" / "test-00000-of-00001.parquet",
        [
            {
                "video_id": "001",
                "duration": "short",
                "domain": "Knowledge",
                "videoID": "abc123",
                "question_id": f"001-{n}",
                "task_type": "Counting Problem",
                "question": "How many discs?",
                "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."],
                "answer": "ABCD"[n % 4],
            }
            for n in range(3)
        ],
    )
    return root


def video_mmmu(root: Path) -> Path:
    clip(root / "Science" / "validation_Math_1.mp4")
    for track in ("Perception", "Comprehension", "Adaptation"):
        row = {"id": "validation_Math_1", "question": "What?", "options": ["4", "5", "6"], "answer": "B"}
        rows: list[dict[str, Any]] = [{**row, "question_type": "multiple-choice"}]
        if track == "Adaptation":
            rows.append({**row, "id": "validation_Math_2", "options": [], "answer": "42", "question_type": "open"})
        parquet(root / track / "test-00000-of-00001.parquet", rows)
    clip(root / "Science" / "validation_Math_2.mp4")
    return root


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet as files

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_table(pyarrow.Table.from_pylist(rows), path)


def tempcompass(root: Path) -> Path:
    clip(root / "videos" / "77.mp4")
    asked = {
        "multi-choice": ("What moves?\nA. a disc\nB. a star", "A. a disc"),
        "yes_no": ("Does it move?", "yes"),
        "caption_matching": ("Which fits?\nOption 1: It moves.\nOption 2: It rests.", "Option 2: It rests."),
    }
    for form, (question, answer) in asked.items():
        path = root / "questions" / f"{form}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"77": {"action": [{"question": question, "answer": answer}]}}))
    return root


def longvideobench(root: Path) -> Path:
    clip(root / "videos" / "long.mp4")
    row = {"video_id": "long", "question": "When?", "candidates": ["now", "later", "never"], "correct_choice": 1}
    more = {"id": "long_0", "video_path": "long.mp4", "duration_group": 15, "duration": 2.5}
    (root / "lvb_val.json").write_text(json.dumps([{**row, **more}]))
    return root


def mmvu(root: Path) -> Path:
    clip(root / "videos" / "Art" / "0.mp4")
    base = {"video": "https://huggingface.co/datasets/yale-nlp/MMVU/resolve/main/videos/Art/0.mp4"}
    rows = [
        {"question_type": "multiple-choice", "choices": {"A": "x", "B": "y", "C": "", "D": "", "E": ""}, "answer": "B"},
        {"question_type": "open-ended", "choices": dict.fromkeys("ABCDE", ""), "answer": "Dolly Zoom"},
    ]
    questions = [
        {"id": f"validation_{n}", "question": "Which?", "metadata": {"subject": "Art"}, **base, **row}
        for n, row in enumerate(rows)
    ]
    (root / "validation.json").write_text(json.dumps(questions))
    return root


MAKERS = {
    "kc-mmbench": kc_mmbench,
    "video-mme": video_mme,
    "video-mmmu": video_mmmu,
    "tempcompass": tempcompass,
    "longvideobench": longvideobench,
    "mmvu": mmvu,
}

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>=cmd()\u202e</style>'


def hostile(tmp_path: Path, nano: Runtime) -> tuple[Plan, Path]:
    """A run in which every text that comes from outside is hostile."""
    data, out = tmp_path / "data", tmp_path / "out"
    picture(data / "images" / "a.png", 0)
    body = [[EVIL + str(n), "a.png", EVIL, "是", EVIL] for n in range(3)] + [[EVIL, EVIL, "q", "是", ""]]
    table(data / "subsets" / "SPU.tsv", KC_HEADING, body)
    plan = Plan(benchmark("kc-mmbench"), data, max_tokens=1)
    assert run(plan, nano, out)
    with Predictions(out) as predictions:
        for row in rows(plan.benchmark, data):
            if isinstance(row, Item):
                record = predictions.get((row.task, row.index))
                assert record is not None
                predictions.add({**record, "output": EVIL, "judge_reply": EVIL, "finish": "length"})
    settings = json.loads((out / "settings.json").read_text())
    (out / "settings.json").write_text(json.dumps({**settings, "judge": EVIL, "model": EVIL}))
    return plan, out
