"""What the Comment and Skills tabs show, without the page."""

from __future__ import annotations

from dataclasses import replace

from app.commenting import Now
from app.drafts import answer_html, clips_html, comments_html, found_html, progress_html
from app.i18n import LANGUAGES
from finetune.feedback.comments import Draft, Round
from finetune.writing.skills import SKILLS, read
from tests.app.test_views import HOSTILE, Tags

DRAFT = Draft(
    *("d1", "r1", "So calm!", "So calm!", "stop", None, True, {"reasons": []}),
    *("keye-nano", None, None, None, None, None, None, "2025-01-01T00:00:00.000Z"),
)
ROUND = Round("r1", "comment", "en", {}, "Write one.", "no_think", {}, 2, "2025-01-01T00:00:00.000Z", (), (DRAFT,))


def withheld(*reasons: str, said: str | None = None, text: str = "see x.com") -> Draft:
    return replace(DRAFT, id="d2", text=text, fit=False, moderation={"reasons": list(reasons), "said": said})


def test_a_comment_has_its_three_choices_and_says_what_is_kept() -> None:
    open_, picked = (
        comments_html(replace(ROUND, drafts=(replace(DRAFT, choice=choice),)), None, "en")  # type: ignore[arg-type]
        for choice in (None, "picked")
    )
    assert open_.count('aria-pressed="false"') == 3 and "Not chosen yet." in open_
    assert picked.count('aria-pressed="true"') == 1 and "Will be learnt as an example" in picked
    edited = comments_html(replace(ROUND, drafts=(replace(DRAFT, choice="edited", edited="Better!"),)), None, "zh")
    assert 'data-best="Better!"' in edited and "已保存" in edited and "So calm!" not in edited


def test_what_was_withheld_is_folded_with_its_reasons_and_never_a_card() -> None:
    shown = comments_html(replace(ROUND, drafts=(DRAFT, withheld("link", "long"))), None, "en")
    assert shown.count("<article") == 1 and "Withheld: 1" in shown
    assert "it holds a link · it is much longer than asked for" in shown
    said = comments_html(replace(ROUND, drafts=(withheld("model", said="No."),)), None, "en")
    assert "the model said: No." in said and "None of these comments may be shown" in said and "<article" not in said
    demo = replace(DRAFT, moderation={"reasons": [], "said": "a star", "rules_only": True})
    assert "the rules alone decided" in comments_html(replace(ROUND, drafts=(demo,)), None, "en")


def test_progress_says_which_comment_and_how_it_ended() -> None:
    writing = progress_html(ROUND, Now(doing="writing", number=2, pieces=17), "en")
    assert "Comment 2 of 2: writing · 17 tokens" in writing and "width:50%" in writing
    assert "So calm" not in writing  # what was not judged is not told
    assert "Comment 2 of 2: checking" in progress_html(ROUND, Now(doing="judging", number=2, pieces=17), "en")
    assert "Looking at the video" in progress_html(ROUND, Now(doing="decoding"), "en")
    assert "Ended after 1 of 2." in progress_html(ROUND, Now(running=False), "en")
    assert "已结束：写了 1 / 2 条。" in progress_html(ROUND, None, "zh")  # as after a new start
    failed = replace(DRAFT, finish="error", error="The disk is full; make room and start again.", fit=False)
    assert "The disk is full" in progress_html(replace(ROUND, drafts=(failed,)), None, "en")
    assert progress_html(replace(ROUND, wanted=1), None, "en") == "" == progress_html(None, None, "en")


def test_answers_are_shown_as_they_were_read() -> None:
    shown = {
        '[{"x": 1}]': ("attributes", "<td>x</td><td>1</td>"),
        "[是，否]": ("list", "Video 1: Yes</li>"),
        "[Video 2, Video 1]": ("order", 'Video 2</li><li class="kd-place">Video 1'),
        "No.": ("yes_no", ">No</p>"),
        "who knows": ("yes_no", "No clear answer"),
    }
    for text, (kind, html) in shown.items():
        assert html in found_html(read(kind, text), "en")  # type: ignore[arg-type]


def test_an_answer_is_shown_with_its_thought_folded_and_its_choice() -> None:
    thought = replace(DRAFT, text="yes", raw_text="<think>dogs</think>yes", moderation=None)
    made = replace(ROUND, skill="likes", wanted=1, drafts=(thought,))
    html = answer_html(made, None, "en")
    assert ">Yes</p>" in html and "&lt;think&gt;dogs" in html and "Correct it" in html
    stopped = replace(made, drafts=(replace(thought, finish="stopped", fit=False),))
    assert "stopped" in answer_html(stopped, None, "en") and "Correct it" not in answer_html(stopped, None, "en")
    growing = replace(made, drafts=())
    assert "yes bec" in answer_html(growing, Now(text="yes bec"), "en") and answer_html(growing, None, "en") == ""


def test_nothing_a_model_or_a_person_wrote_acts_on_the_page() -> None:
    evil = replace(DRAFT, id=HOSTILE, text=HOSTILE, choice="edited", edited=HOSTILE)
    made = replace(ROUND, id=HOSTILE, drafts=(evil, withheld("model", said=HOSTILE, text=HOSTILE)))
    pages = [comments_html(made, None, "en"), clips_html([(HOSTILE, "data:image/jpeg;base64,")], "en")]
    pages.append(progress_html(made, Now(running=False, error=HOSTILE), "en"))
    for name in SKILLS:
        said = f"<think>{HOSTILE}</think>{{'{HOSTILE[:28]}': '<b>'}}"
        answer = replace(DRAFT, text=HOSTILE, raw_text=said, moderation=None)
        pages.append(answer_html(replace(made, skill=name, drafts=(answer,)), None, "en"))
        pages.append(answer_html(replace(made, skill=name, drafts=()), Now(text=HOSTILE), "en"))
        pages.append(found_html(read(SKILLS[name].kind, said), "en"))
    for page in pages:
        found = Tags(page)
        assert "script" not in {tag for tag, _ in found.tags}
        assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
        assert all((a["src"] or "").startswith("data:") for tag, a in found.tags if tag == "img")
    assert HOSTILE in Tags(pages[0]).words


def test_both_languages_say_everything() -> None:
    for lang in LANGUAGES:
        for doing in ("loading", "decoding", "writing", "judging"):
            assert progress_html(ROUND, Now(doing=doing, number=1, pieces=1), lang)
        for reason in ("empty", "cut", "long", "marks", "link", "contact", "word", "repeat", "model", "unclear"):
            assert comments_html(replace(ROUND, drafts=(withheld(reason),)), None, lang)
