"""The published answer extraction: worked values of KC-MMBENCH.md §3 and §9, and properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.reasoning.final_answer import final_answer, is_unfinished


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        ("<think>封面是街舞…</think><answer>\\boxed{否}</answer>", "否"),  # P1
        ("<analysis>…/no_think mode is more appropriate.</analysis>是", "是"),  # P2
        ("否。", "否。"),  # P3
        ("<think>点赞高…", "<think>点赞高…"),  # H2: cut, left as it is
        ("<think>视频2是开头</think><answer>[视频2, 视频1, 视频3]</answer>", "[视频2, 视频1, 视频3]"),  # O1
        ("<think>…</think><answer>\\boxed{[视频3, 视频1, 视频2]}</answer>", "[视频3, 视频1, 视频2]"),  # O2
        ('<think>…</think>{"袖长": "长袖", "领型": "圆领"}', '{"袖长": "长袖", "领型": "圆领"}'),  # C1
        ("a } b 是", "a "),  # the brace scan without a box
        ("<answer>a } b 是</answer>", "a "),  # and inside an answer
        ("\\boxed{1} and \\boxed{2}", "2"),  # the last box
        ("\\boxed{\\frac{1}{2}} done", "\\frac{1}{2}"),  # balanced braces
        ("<answer>one</answer> no, <answer>two</answer>", "two"),  # the last complete answer
        ("<answer>one</answer> and <answer>tw", "one"),
        ("<answer>cut", "<answer>cut"),
        ("<think>a</think><think>b</think>  c \n", "c"),
        ("", ""),
        ("{open", "{open"),
    ],
)
def test_worked_values(raw: str, answer: str) -> None:
    assert final_answer(raw) == answer


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="<>{}\\")))
def test_thoughts_never_reach_the_answer(thought: str, answer: str) -> None:
    """Whatever stands in a closed thought, a plain answer after it comes out as it is, without outer space."""
    assert final_answer(f"<think>{thought}</think>{answer}") == answer.strip()


@given(st.text(alphabet=st.characters(exclude_characters="<>{}\\"), min_size=1))
def test_box_and_tags_hold_the_same_answer(answer: str) -> None:
    assert final_answer(f"<think>…</think><answer>{answer}</answer>") == answer
    assert final_answer(f"so \\boxed{{{answer}}}") == answer


def test_hostile_lengths_take_no_time() -> None:
    """Patterns that backtrack would not come back from these."""
    for piece in ("<answer>", "\\boxed{", "</answer>", "{", "<think>"):
        assert isinstance(final_answer(piece * 20_000), str)


@pytest.mark.parametrize(
    ("text", "unfinished"),
    [
        ("<think>a", True),
        ("<think>a</think>b", False),
        ("<think>a</think><answer>b", True),
        ("b", False),
        ("</think>b", False),
    ],
)
def test_unfinished(text: str, unfinished: bool) -> None:
    assert is_unfinished(text) is unfinished
