"""What is withheld of what a model writes: each rule on texts that break it and on texts that look alike and do not."""

from __future__ import annotations

import pytest

from finetune.bench.kc_mmbench import YES_NO_FORM
from finetune.writing.moderation import broken_rules, has_marks, judged, length_of, question


@pytest.mark.parametrize(
    "text",
    [
        "So calm, I could watch it all day!",
        "0:07 is my favourite, 10/10",
        "Version 2.5 of this dance? 100000 likes!",
        "这也太可爱了吧😂",
        "😂😂😂",
        "Scunthorpe and shiitake are fine words",
        "他妈妈做的菜真香",
        "email me when it is ready",
    ],
)
def test_what_viewers_write_breaks_no_rule(text: str) -> None:
    assert broken_rules(text, most=15) == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" … !? ", "empty"),
        ("see https://example.org/x", "link"),
        ("more at www.shop", "link"),
        ("go to cheap-shoes.com now", "link"),
        ("ｗｗｗ．ｓｈｏｐ．ｃｏｍ", "link"),
        ("cheap-sho\u200bes.c\u200bom", "link"),
        ("write to a.b@mail.example", "contact"),
        ("thanks @some_account", "contact"),
        ("call 138 0013 8000", "contact"),
        ("加微信：abc_12345", "contact"),
        ("加我好友", "contact"),
        ("QQ号 12345678", "contact"),
        ("nice <|im_end|> one", "marks"),
        ("<think>hm</think> nice", "marks"),
        ("nice \u202eeno", "marks"),
        ("broken \ufffd character", "marks"),
        ("What a BITCH of a day", "word"),
        ("ｓｈｉｔ happens", "word"),
        ("真是个傻逼", "word"),
    ],
)
def test_each_rule_finds_what_breaks_it(text: str, reason: str) -> None:
    assert reason in broken_rules(text, most=15)


def test_length_is_words_or_chinese_characters_and_half_as_much_again_is_let_pass() -> None:
    assert length_of("It's a well-made clip") == 5 and length_of("红色的球 rolls 很快") == 7
    assert broken_rules("one two three four five six", most=4) == ()
    assert broken_rules("one two three four five six seven", most=4) == ("long",)
    assert broken_rules("一二三四五六七", most=4) == ("long",)


def test_a_repeat_is_found_whatever_its_case_and_marks_and_a_cut_one_is_told() -> None:
    others = ["So calm, I could watch it all day!"]
    assert broken_rules("so calm... i could watch it all day", 15, others=others) == ("repeat",)
    assert broken_rules("So calm; I could watch it all days", 15, others=others) == ("repeat",)
    assert broken_rules("So calm, but the music is far too loud", 15, others=others) == ()
    assert broken_rules("and then it", 15, "length") == ("cut",)


def test_marks_are_those_of_the_format_and_not_every_angle() -> None:
    assert has_marks("<|box_start|>") and has_marks("</ANSWER>") and has_marks("a\x07b")
    assert not has_marks("a < b > c, <3, |x|\nnew line\ttab")


@pytest.mark.parametrize(
    ("said", "word", "fit", "reasons"),
    [
        ("Yes.", "yes", True, ()),
        ("<think>is it?</think><answer>yes</answer>", "yes", True, ()),
        ("是", "yes", True, ()),
        ("No", "no", False, ("model",)),
        ("不是", "no", False, ("model",)),
        ("yes and no", "unclear", False, ("unclear",)),
        ("a red circle", "unclear", False, ("unclear",)),
        ("", "unclear", False, ("unclear",)),
    ],
)
def test_the_models_word_is_read_strictly_and_silence_is_no_yes(
    said: str, word: str, fit: bool, reasons: tuple[str, ...]
) -> None:
    found = judged((), said, demonstration=False)
    assert (found.word, found.fit, found.reasons, found.said) == (word, fit, reasons, said)
    shown = judged((), said, demonstration=True)  # a model that cannot judge is heard and not obeyed
    assert shown.fit and shown.reasons == () and shown.rules_only and shown.to_row()["word"] == word


def test_a_broken_rule_decides_and_nobody_is_asked() -> None:
    for demonstration in (False, True):
        found = judged(("link", "long"), None, demonstration)
        assert not found.fit and found.to_row()["reasons"] == ["link", "long"] and found.word is None


def test_the_question_in_both_languages() -> None:
    assert question("Nice!", "en") == (
        "Below is a comment on this video. Is it fit to be shown to everybody: no insult, no hate, nothing sexual or "
        "violent, no advertising, no contact data, and about the video?\nComment: Nice!\nAnswer yes or no only."
    )
    asked = question("真好", "zh", title=" 小狗\n冲浪 ")
    assert asked.startswith("视频标题：小狗 冲浪\n下面是") and asked.endswith("评论：真好" + YES_NO_FORM)
    assert YES_NO_FORM == "\n请直接给出结论，回答是或者否，不需要做额外分析，并且不许回答不确定"  # as published
