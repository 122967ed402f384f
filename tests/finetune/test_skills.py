"""What a model is asked for a comment or by a ready-made question, word for word, and how its answer is read."""

from __future__ import annotations

import pytest

from finetune.bench.tasks import task_named
from finetune.errors import FinetuneError
from finetune.writing.skills import SKILLS, Given, prompt, read, skill_of
from finetune.writing.wishes import Wishes

PUBLISHED_YES_NO = "\n请直接给出结论，回答是或者否，不需要做额外分析，并且不许回答不确定"
PUBLISHED_PHRASE = "\nAnswer the question using a single word or phrase."


def test_a_comment_is_asked_for_in_these_words() -> None:
    assert Wishes().prompt == (
        "Write one comment that a viewer would leave under this video.\nKeep it to 12 words or fewer.\n"
        "Language: English. Nothing but the comment."
    )
    assert Wishes("funny", "medium", "en", " A dog\n surfs ", "Look  at him!").prompt == (
        "Write one comment that a viewer would leave under this video.\nTone: funny.\nKeep it to 30 words or fewer.\n"
        "Title of the video: A dog surfs\nSaid in the video: Look at him!\nLanguage: English. Nothing but the comment."
    )
    assert Wishes("warm", "long", "zh", "小狗冲浪").prompt == (
        "以观众的身份，为这个视频写一条评论。\n语气：温暖友善。\n长度：不超过100个字。\n视频标题：小狗冲浪\n"
        "只写评论本身，用中文。"
    )


@pytest.mark.parametrize(
    "wrong",
    [{"tone": "angry"}, {"length": "epic"}, {"language": "fr"}, {"title": "x" * 201}, {"speech": "x" * 4001}],
)
def test_what_cannot_be_wished_is_one_sentence(wrong: dict[str, str]) -> None:
    with pytest.raises(FinetuneError, match=r"[a-z]\.$"):
        Wishes(**wrong)  # type: ignore[arg-type]


def test_ready_made_questions_end_in_the_published_form() -> None:
    assert prompt(SKILLS["like_rate"], 1, Given("它自己学会的"), "zh") == (
        "视频标题：它自己学会的\n请判断这个短视频能否获得高点赞率，即点赞数与播放量之比明显高于其他视频。"
        + PUBLISHED_YES_NO
    )
    assert prompt(SKILLS["same_product"], 2, Given(), "en") == (
        "Do these two videos show the same product: the same brand, model and make?\nAnswer yes or no only."
    )
    topic = prompt(SKILLS["same_topic"], 3, Given(), "zh")
    assert topic.startswith("这里有3个视频。") and topic.endswith("例如[是，是，否]。" + PUBLISHED_PHRASE)
    order = prompt(SKILLS["order"], 4, Given(), "en")
    assert order.startswith("These 4 videos") and order.endswith("[Video 1, Video 3, Video 2]." + PUBLISHED_PHRASE)
    typed = "袖长：短袖，长袖\n\n领型: 圆领、V领\n材质"
    asked = prompt(SKILLS["attributes"], 1, Given("圆领长袖T恤", dimensions=typed), "zh")
    assert "'袖长': ['短袖', '长袖']，'领型': ['圆领', 'V领']，'材质'。" in asked
    assert "{" not in prompt(SKILLS["attributes"], 1, Given(dimensions="size: {n}, {0}"), "en").replace(
        "'{n}', '{0}'", ""
    )


@pytest.mark.parametrize(
    ("name", "clips", "given", "words"),
    [
        ("same_product", 1, Given(), "wants 2 clips and there are 1"),
        ("same_topic", 7, Given(), "wants 2 to 6 clips and there are 7"),
        ("attributes", 1, Given(), "Name at least one attribute"),
        ("attributes", 1, Given(dimensions=": red, blue"), "names no attribute"),
        ("attributes", 1, Given(dimensions="x" * 2001), "2001 characters"),
        ("likes", 1, Given(title="x" * 201), "title has 201 characters"),
        ("dance", 1, Given(), "no skill 'dance'"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(name: str, clips: int, given: Given, words: str) -> None:
    with pytest.raises(FinetuneError, match=words):
        prompt(skill_of(name), clips, given, "en")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [  # the answers are the examples of KC-MMBENCH.md §9
        ("yes_no", "<think>封面是街舞…</think><answer>\\boxed{否}</answer>", False),
        ("yes_no", "是，同一款", True),
        ("yes_no", "Yes", True),
        ("yes_no", "<think>点赞高…", None),
        ("yes_no", "perhaps", None),
        ("list", "视频2同为龙舟赛，视频3是做饭：[是，是，否]", [True, True, False]),
        ("list", "结论：是，是", None),
        ("order", "<think>视频2是开头</think><answer>[视频2, 视频1, 视频3]</answer>", [2, 1, 3]),
        ("order", "[Video 3, Video 1, Video 2]", [3, 1, 2]),
        ("order", "who knows", None),
        ("attributes", '<think>…</think>{"袖长": "长袖", "领型": "圆领"}', {"袖长": "长袖", "领型": "圆领"}),
        ("attributes", "{'colours': ['red', 'blue']}", {"colours": "blue、red"}),
        ("attributes", "{}", None),
        ("attributes", "__import__('os').system('true')", None),
    ],
)
def test_answers_are_read_by_the_benchmarks_strict_rules(kind: str, text: str, value: object) -> None:
    assert read(kind, text).value == value  # type: ignore[arg-type]


def test_every_skill_is_one_of_the_benchmarks_tasks() -> None:
    for name, skill in SKILLS.items():
        assert skill.name == name and task_named(skill.task) is not None
        assert 1 <= skill.least <= skill.most and set(skill.ask) == {"en", "zh"}
