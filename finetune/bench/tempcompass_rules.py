"""TempCompass's own matching rules, as its evaluation runs them without a language model."""

from __future__ import annotations

from engine.reasoning.final_answer import final_answer
from finetune.bench import answers
from finetune.bench.scorers import NO_TRUTH, NOTHING_FOUND, Prediction, Verdict

_HEADS = tuple(letter + mark for letter in "ABCD" for mark in ".)")


def score_choice(p: Prediction) -> Verdict:
    """The whole option, its letter alone, or an answer that begins with `B.` or `B)`; anything else is wrong."""
    text = final_answer(p.output)
    loose = text if text == p.answer or text in tuple("ABCD") else text[:1] if text[:2] in _HEADS else ""
    strict, truth = answers.strict_letter(text), answers.strict_letter(p.answer)
    if not truth:
        return Verdict(loose, strict, None, None, problem=NO_TRUTH)
    hit = bool(loose) and loose[0] == truth
    return Verdict(loose, strict, hit, strict == truth, problem="" if strict else NOTHING_FOUND)


def score_yes_no(p: Prediction) -> Verdict:
    """Published: how the answer begins, so that `not at all` is a no and `nobody` too; strict: a whole word."""
    text = final_answer(p.output)
    head = text.lower()
    loose = "yes" if head.startswith("yes") else "no" if head.startswith("no") else ""
    strict, truth = answers.strict_yes_no(text), answers.strict_yes_no(p.answer)
    if truth == answers.UNKNOWN:
        return Verdict(loose, strict, None, None, problem=NO_TRUTH)
    problem = NOTHING_FOUND if not loose or strict == answers.UNKNOWN else ""
    return Verdict(loose, strict, loose == p.answer, strict == truth, problem=problem)


def score_caption(p: Prediction) -> Verdict:
    """Published: the answer is exactly an option, its sentence or its label; strict also takes the label with marks
    or the letter alone."""
    text = final_answer(p.output)
    loose = _published_caption(text, p.question)
    label, _, sentence = p.answer.partition(": ")
    strict = _strict_caption(text, p.question)
    right = bool(loose) and loose in (p.answer, label, sentence, p.answer.partition(":")[0])
    return Verdict(loose, strict, right, strict == label, problem="" if strict else NOTHING_FOUND)


def _options(question: str) -> list[tuple[str, str]]:
    """(label, sentence) of each option in the question's lines after the first."""
    split = (line.partition(": ") for line in question.split("\n")[1:])
    return [(label, sentence) for label, colon, sentence in split if colon]


def _published_caption(text: str, question: str) -> str:
    named = ""
    after = text.split(") ")[1] if ") " in text else None
    for label, sentence in _options(question):
        if text == f"{label}: {sentence}":
            named = text
    for _, sentence in _options(question):
        if sentence in (text, after):
            named = sentence
    for label, _ in _options(question):
        if label in (text, text.replace(".", "")):
            named = label
    return named


def _strict_caption(text: str, question: str) -> str:
    """The label of the one option that the answer names by label, sentence or bare letter."""
    said = answers.words(text)
    named = []
    for label, sentence in _options(question):
        forms = (answers.words(label), answers.words(sentence), [*answers.words(label), *answers.words(sentence)])
        if said in forms or said == answers.words(label)[-1:]:
            named.append(label)
    return named[0] if len(named) == 1 else ""
