"""Every sentence that the storeys below can put on the page has its Chinese."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from app.i18n import translate

ROOT = Path(__file__).resolve().parents[2]
TABLE: dict[str, str] = json.loads((ROOT / "assets" / "sentences.zh.json").read_text(encoding="utf-8"))
SPOKEN = (
    *sorted((ROOT / "engine" / "video").glob("*.py")),
    *sorted((ROOT / "engine" / "runtime").glob("*.py")),
    *sorted((ROOT / "engine" / "sound").glob("*.py")),
    ROOT / "engine" / "keye" / "loading.py",
    ROOT / "engine" / "pictures.py",
    *(ROOT / "engine" / "reasoning" / f"{name}.py" for name in ("loop", "sandbox")),
    ROOT / "app" / "studio.py",
    ROOT / "app" / "hearing.py",
    ROOT / "app" / "library.py",
    ROOT / "app" / "compare.py",
    ROOT / "app" / "votes.py",
    *sorted((ROOT / "finetune" / "feedback").glob("*.py")),
    *(
        ROOT / "finetune" / "bench" / f"{name}.py"
        for name in ("background", "predictions", "registry", "run", "tables")
    ),
    ROOT / "app" / "bench.py",
    ROOT / "app" / "commenting.py",
    ROOT / "finetune" / "writing" / "skills.py",
    ROOT / "finetune" / "writing" / "wishes.py",
    ROOT / "app" / "promote.py",
    ROOT / "finetune" / "loop" / "serving.py",
    ROOT / "app" / "dataset.py",
    *(ROOT / "app" / f"{name}.py" for name in ("tuner", "tuning", "tuning_views")),
    *(ROOT / "finetune" / "loop" / f"{name}.py" for name in ("queue", "from_feedback")),
    ROOT / "finetune" / "planning" / "estimate.py",
    ROOT / "finetune" / "training" / "shortage.py",
    ROOT / "finetune" / "reports" / "run_record.py",
)
"""The files whose sentences reach the page."""
ASKING = ("skills.py", "wishes.py")
"""Those of them that also hold what a model is asked, which is said in the language of the question: of these, what is
raised."""


def sentences(file: Path) -> list[str]:
    """The literals of a file that are sentences, `{}` where a value is filled in; no docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skip = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    skip |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    out = []
    roots: list[ast.AST] = [tree]
    if file.name in ASKING:
        roots = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    for node in (node for root in roots for node in ast.walk(root)):
        if id(node) in skip:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        else:
            continue
        if text.endswith(".") and text.count(" ") >= 3:
            out.append(text)
    return out


@pytest.mark.parametrize("file", SPOKEN, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_no_sentence_of_the_page_is_english_only(file: Path) -> None:
    assert [text for text in sentences(file) if text not in TABLE] == []


def test_the_files_are_really_read() -> None:
    assert sum(len(sentences(file)) for file in SPOKEN) > 80


@pytest.mark.parametrize("english", TABLE)
def test_a_filled_sentence_is_told_from_all_others(english: str) -> None:
    chinese = TABLE[english]
    values = [f"W{number}" for number in range(english.count("{}"))]
    assert {int(n) for n in re.findall(r"{(\d+)}", chinese)} <= set(range(len(values)))
    filled = english
    for value in values:
        filled = filled.replace("{}", value, 1)
    assert translate(filled, "zh") == chinese.format(*values)
    assert translate(filled, "en") == filled


def test_what_is_filled_in_is_translated_where_it_is_a_phrase() -> None:
    note = "60 frames of 280×504 would cost 10,800 tokens; to keep 4,096 only 22 frames are taken."
    assert translate(note, "zh") == "60 帧 280×504 需要 10,800 个 token；为保持在 4,096 以内，只取 22 帧。"
    odd = "Loading x.mp4 is a folder; give a video file."
    assert translate(odd, "zh") == "Loading x.mp4 是文件夹，请提供视频文件。"
    ended = "SGLang ended and is started again. The disk is full; make room and start again."
    assert translate(ended, "zh") == "SGLang 已退出，正在重新启动。磁盘已满，请腾出空间后重新启动。"
    assert translate("Nobody knows this sentence.", "zh") == "Nobody knows this sentence."
