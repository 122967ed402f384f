"""Reading answers out of texts: worked values of KC-MMBENCH.md §4 to §6 and properties of the rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.bench import answers
from finetune.bench.answers import NO, UNKNOWN, YES

PLAIN = st.text(alphabet=st.characters(exclude_characters="[]{}\n"))


@pytest.mark.parametrize(
    ("text", "published", "strict"),
    [
        ("否", NO, NO),
        ("否。", UNKNOWN, NO),  # P3: the Chinese full stop glues
        ("是", YES, YES),
        ("yes", YES, YES),  # H3
        ("Yes", UNKNOWN, YES),
        ("no", NO, NO),
        ("是 - 同一款水杯", YES, YES),  # S1
        ("两个商品不是同款, 否", NO, NO),  # S2: ASCII comma and space are deleted
        ("是，同一款", UNKNOWN, YES),  # S3: the full-width comma glues
        ("<think>点赞高…", UNKNOWN, UNKNOWN),  # H2
        ("<think>是 吗", YES, UNKNOWN),  # a cut thought is read by the published rule, and no answer
        ("是 否", UNKNOWN, UNKNOWN),
        ("是 否 yes", YES, UNKNOWN),  # the Chinese pair is a draw, the English one decides
        ("yes no 否", NO, UNKNOWN),
        ("是.", YES, YES),  # a period without digits beside it goes
        ("1.是", UNKNOWN, YES),  # one beside a digit stays
        ("是,", YES, YES),
        ("a, 是,b", UNKNOWN, YES),  # a comma beside a space anywhere is deleted everywhere: 是b
        ("1,2是;否", UNKNOWN, NO),  # digit,comma,digit makes every mark a deletion: 12是否
        ("不是。", UNKNOWN, NO),
        ("是否", UNKNOWN, UNKNOWN),
        ("", UNKNOWN, UNKNOWN),
    ],
)
def test_yes_and_no(text: str, published: str, strict: str) -> None:
    assert (answers.yes_no(text), answers.strict_yes_no(text)) == (published, strict)


def test_only_the_first_32_periods_are_deleted() -> None:
    assert answers.strip_marks("." * 40) == "." * 8


@given(st.text())
def test_strict_is_blind_to_case_and_outer_punctuation(text: str) -> None:
    assert answers.strict_yes_no(text) == answers.strict_yes_no(f"。“{text}”！")


@given(st.lists(st.sampled_from([YES, NO]), min_size=1), PLAIN, PLAIN)
def test_the_last_list_decides(items: list[str], before: str, after: str) -> None:
    truth, shown = "_".join(items), "，".join(items)
    assert answers.list_matches(truth, f"{before}[是，是，是，否]{before}[{shown}]{after}")
    assert not answers.list_matches(truth, f"[{shown}，是]")  # one too long
    assert not answers.list_matches(truth, shown)  # no brackets
    assert answers.strict_list(f"{before}[{shown}]") == items


@pytest.mark.parametrize(
    ("truth", "text", "matches"),
    [
        ("是_是_否", "[是，是，否]", True),  # T1
        ("是_否_否_是", "[是，否，否]", False),  # T2
        ("是_否_是", "第一个例子[是，是，是]，最终[是，否，是]", True),  # T3
        ("是_是", "结论：是，是", False),  # T4
        ("是_是", "[是，不是]", True),  # the quirk: 不是 reads as 是
        ("", "[]", True),
        ("x", "[y]", True),  # a truth without items matches an empty list
        ("是", "[是\n]", False),  # one line
        ("是_否", "[[是，否]", True),
        ("是_否", "[是，否]]", True),
    ],
)
def test_lists_as_published(truth: str, text: str, matches: bool) -> None:
    assert answers.list_matches(truth, text) is matches


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("[是，不是]", [YES, NO]),
        ("【是、否】", [YES, NO]),
        ("['是', '否']", [YES, NO]),
        ("[Yes, no]", [YES, NO]),
        ("[是，也许]", None),
        ("[]", None),
        ("是，否", None),
    ],
)
def test_lists_strictly(text: str, items: list[str] | None) -> None:
    assert answers.strict_list(text) == items


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("[视频2, 视频1, 视频3]", [2, 1, 3]),
        ("视频1和视频2相关，[视频 2，视频 1]", [2, 1]),
        ("[Video 3, Video 1]", [3, 1]),
        ("视频2、视频1", [2, 1]),
        ("[2, 1, 3]", [2, 1, 3]),
        ("none", None),
        ("", None),
    ],
)
def test_orders(text: str, order: list[int] | None) -> None:
    assert answers.video_order(text) == order


def test_attribute_maps_in_any_spelling() -> None:
    wanted = {"袖长": "长袖", "色": frozenset({"红", "蓝"})}
    assert answers.attributes('{"袖长": "长袖", "色": ["蓝", "红"]}') == wanted
    assert answers.attributes("结果：```json\n{'袖长': ' 长袖', '色': ['红', '蓝']}\n```") == wanted
    assert answers.attributes('{"袖长": "长袖"}') != wanted
    for nonsense in ("", "{", "}{", "{1, 2}", "{'a': __import__('os')}", "{" * 19_000 + "}" * 900, "{'a':1}" * 9000):
        assert answers.attributes(nonsense) is None


@given(st.dictionaries(st.text(min_size=1), st.text() | st.lists(st.text(), max_size=3), max_size=4))
def test_a_map_equals_itself_in_both_spellings(value: dict[str, str | list[str]]) -> None:
    import json

    as_json = answers.attributes(json.dumps(value, ensure_ascii=False))
    assert as_json is not None and as_json == answers.attributes(repr(value))


@pytest.mark.parametrize(
    ("text", "loose", "strict"),
    [
        ("B", "B", "B"),
        ("(C)", "C", "C"),
        ("D. a dog", "D", "D"),
        ("b", "", "B"),
        ("The best answer is: B", "B", "B"),
        ("Because it moves", "B", ""),  # the loose rule's quirk
        ("A man walks", "A", ""),
        ("The answer is a dog", "", ""),
        ("The answer is C because it moves", "C", "C"),
        ("Option A is wrong, the answer is B", "A", "B"),
        ("Answer: B, or option C", "A", ""),  # names two
        ("**B**", "B", "B"),
        ("答案是D", "D", "D"),
        ("<think>B", "B", ""),
        ("", "", ""),
    ],
)
def test_letters(text: str, loose: str, strict: str) -> None:
    assert (answers.first_letter(text, "ABCDE"), answers.strict_letter(text)) == (loose, strict)


def test_hostile_lengths_take_no_time() -> None:
    for piece in ("[", "]", "[是", "{", "(A", "answer is ", "视频", "* ", "1,", ". "):
        text = piece * 20_000
        answers.yes_no(text), answers.strict_yes_no(text), answers.list_matches("是", text), answers.strict_list(text)
        answers.video_order(text), answers.attributes(text), answers.strict_letter(text)
