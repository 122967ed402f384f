"""Whether an answer is right: the published score of each task, and beside it a strict one. Pure functions.

`published` repeats the harness with its quirks (KC-MMBENCH.md §4 to §6, each public benchmark's own script); `strict`
leaves the known defects out. A task with a judge takes the judge's text where there is one; where there is none the
deterministic variants of §6 decide, and the verdict says that it cannot be compared with published scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.reasoning.final_answer import final_answer, is_unfinished
from finetune.answers.scoring import plain, right
from finetune.bench import answers
from finetune.bench.answers import RIGHT, UNKNOWN, WRONG


@dataclass(frozen=True)
class Prediction:
    """What a model said to one item. `output` is its raw text; `judge_reply` is the judge's text: None where no judge
    was asked, empty where it was asked and failed."""

    task: str
    index: str
    question: str
    answer: str  # the truth as the data holds it
    output: str
    judge_reply: str | None = None
    category: str = ""


@dataclass(frozen=True)
class Verdict:
    """`published` and `strict` are None where that scoring cannot say. `problem` names what went wrong on the way."""

    extracted: str
    extracted_strict: str
    published: bool | None
    strict: bool | None
    comparable: bool = True  # with scores that others publish
    problem: str = ""


Scorer = Callable[[Prediction], Verdict]

JUDGE_FAILED = "the judge failed"
JUDGE_UNCLEAR = "the judge's reply is no verdict"
NO_TRUTH = "the answer stored in the data cannot be read"
NOTHING_FOUND = "no answer was found in the output"


def score_yes_no(p: Prediction) -> Verdict:
    """§4: token match; the judge is only heard where that says Unknown."""
    text = final_answer(p.output)
    published, strict = answers.yes_no(text), answers.strict_yes_no(text)
    problem = ""
    if p.judge_reply is not None:
        reply = p.judge_reply
        if published == UNKNOWN:
            published = answers.yes_no(reply)
            problem = _judge_problem(reply, published != UNKNOWN)
        if strict == UNKNOWN and not is_unfinished(text):
            strict = answers.strict_yes_no(reply)
    truth = answers.strict_yes_no(p.answer)
    if truth == UNKNOWN:
        return Verdict(published, strict, p.answer == published, None, problem=NO_TRUTH)
    if UNKNOWN in (published, strict) and not problem:
        problem = NOTHING_FOUND
    return Verdict(published, strict, p.answer == published, truth == strict, problem=problem)


def score_list(p: Prediction) -> Verdict:
    """§5: the judge's rewriting, or without a judge the answer itself, must hold exactly the true list."""
    text = final_answer(p.output) if p.judge_reply is None else p.judge_reply
    items = answers.strict_list(text)
    truth = [answers.strict_yes_no(part) for part in p.answer.split("_")]
    published = answers.list_matches(p.answer, text)
    shown = "_".join(items) if items is not None else ""
    if UNKNOWN in truth:
        return Verdict(shown, shown, published, None, p.judge_reply is not None, NO_TRUTH)
    if p.judge_reply is None:
        return Verdict(shown, shown, published, items == truth, False, "" if items is not None else NOTHING_FOUND)
    if not text.strip():
        return Verdict("", "", False, None, problem=JUDGE_FAILED)
    return Verdict(shown, shown, published, items == truth, problem=_judge_problem(text, items is not None))


def score_order(p: Prediction) -> Verdict:
    """§6: the judge's verdict; without one the numbers of the videos must be the true ones in the true order."""
    text = final_answer(p.output)
    order = None if is_unfinished(text) else answers.video_order(text)
    shown = ", ".join(map(str, order)) if order else ""
    return _judged(p, shown, order, answers.video_order(p.answer))


def score_attributes(p: Prediction) -> Verdict:
    """§6: the judge's verdict; without one the same keys with the same values, lists as sets."""
    text = final_answer(p.output)
    found = None if is_unfinished(text) else answers.attributes(text)
    return _judged(p, text.strip() if found is not None else "", found, answers.attributes(p.answer))


def score_open(p: Prediction) -> Verdict:
    """An open-ended answer: the judge's verdict; without one every word must be the truth's."""
    text = final_answer(p.output)
    return _judged(p, text.strip(), plain(text) or None, plain(p.answer) or None)


def score_words(p: Prediction) -> Verdict:
    """Every word right, in order (the world's own questions); strict wants a finished answer too."""
    text = final_answer(p.output)
    hit = right(text, p.answer)
    return Verdict(text.strip(), text.strip(), hit, hit and not is_unfinished(text))


def letter_scorer(letters: str) -> Scorer:
    """Multiple choice among `letters`: the first of them that stands anywhere as a capital (Video-MME's script);
    strict wants it to be named as an option."""

    def score_letter(p: Prediction) -> Verdict:
        text = final_answer(p.output)
        loose, strict = answers.first_letter(text, letters), answers.strict_letter(text)
        truth = answers.strict_letter(p.answer)
        if not truth:
            return Verdict(loose, strict, None, None, problem=NO_TRUTH)
        problem = "" if strict and loose else NOTHING_FOUND
        return Verdict(loose, strict, loose == truth, strict == truth, problem=problem)

    return score_letter


def _judged(p: Prediction, shown: str, found: object, truth: object) -> Verdict:
    reply = p.judge_reply
    if reply is None:
        if truth is None:
            return Verdict(shown, shown, None, None, False, NO_TRUTH)
        hit = found is not None and found == truth
        return Verdict(shown, shown, hit, hit, False, "" if found is not None else NOTHING_FOUND)
    if not reply.strip():
        return Verdict(shown, shown, False, None, problem=JUDGE_FAILED)
    said = _said(reply)
    return Verdict(shown, shown, RIGHT in reply, said == RIGHT, problem="" if said else JUDGE_UNCLEAR)


def _said(reply: str) -> str:
    """回答正确 or 回答错误 where the reply says just that; empty where it merely contains the words."""
    words = answers.words(reply)
    return words[0] if len(words) == 1 and words[0] in (RIGHT, WRONG) else ""


def _judge_problem(reply: str, clear: bool) -> str:
    return "" if clear else JUDGE_UNCLEAR if reply.strip() else JUDGE_FAILED
