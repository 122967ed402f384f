"""Saying what an answer is worth: votes with their reasons, moments of the video, corrections, and further drafts.

What is shown is in `app.said`; the store has it (finetune.feedback.votes and drafts) before the page shows it."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from app.errors import AppError
from app.jobs import Job
from app.studio import ClipChoice, Limits, Manner, Studio, Turn
from engine.reasoning.modes import mode_of
from finetune.feedback import REASONS, Vote

DRAFTS = 2
"""Further answers that are written at once."""

MOST_DRAFTS = 7  # answers of one question, the first one counted
TEMPERATURE = 1.0
"""At which drafts are drawn, whatever the model's own: they are to differ."""

# The chat is drawn anew as answers grow, so its buttons are listened to from outside of it; once, however often this
# component is mounted. What is typed as a correction is kept by the browser tab until the store has it.
_SAY_JS = """
window.keyeSay?.abort();
window.keyeSay = new AbortController();
const typed = box => 'keye-correction-' + box.dataset.correction;
const restore = box => {
  const kept = sessionStorage.getItem(typed(box));
  if (kept === null) return;
  if (kept === box.defaultValue) { sessionStorage.removeItem(typed(box)); return; }
  if (box.value !== kept) box.value = kept;
  const fold = box.closest('details');
  if (fold && !box.dataset.found) { box.dataset.found = 'yes'; fold.open = true; }
};
document.addEventListener('click', event => {
  const button = event.target.closest('#ks-chat [data-say]');
  if (!button || button.disabled) return;
  const data = {...button.dataset};
  if (data.say === 'mark') data.value = document.querySelector('#ks-player video')?.currentTime ?? null;
  if (data.say === 'correct') data.value = button.closest('details').querySelector('textarea').value;
  if (data.say === 'uncorrect') sessionStorage.removeItem('keye-correction-' + data.answer);
  trigger(data.say === 'again' ? 'submit' : 'select', data);
}, {signal: window.keyeSay.signal});
document.addEventListener('input', event => {
  const box = event.target;
  if (box.dataset?.correction) sessionStorage.setItem(typed(box), box.value);
}, {signal: window.keyeSay.signal});
window.keyeSayWatch?.disconnect();
window.keyeSayWatch = new MutationObserver(changes => {
  if (changes.some(change => change.target.closest?.('#ks-chat') || change.target.querySelector?.('#ks-chat')))
    document.querySelectorAll('#ks-chat [data-correction]').forEach(restore);
});
window.keyeSayWatch.observe(document.body, {subtree: true, childList: true});
"""


class VotesPane:
    """Call `build` inside the page; its one component hears what is clicked under the answers: `select` what is said,
    `submit` that further drafts are wanted."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.listener: gr.HTML

    def build(self) -> None:
        self.listener = gr.HTML("", js_on_load=_SAY_JS, elem_id="ks-listener")

    def say(self, conversation: str | None, clip: ClipChoice | None, data: Any) -> None:
        """Keep what was clicked. Saying the same once more takes it back. The sentence of an AppError or FinetuneError
        says why something cannot be kept; `data` comes from the browser: it may be anything."""
        said = {key: str(value) for key, value in data.items()} if isinstance(data, dict) else {}
        what, answer, value = (said.get(key, "") for key in ("say", "answer", "value"))
        turn = self._turn(conversation, answer)
        votes, drafts = self.studio.store.votes, self.studio.store.drafts
        known = turn.said.get(answer)
        vote = known.vote if known is not None else None
        if what in ("up", "down"):
            if vote is not None and vote.value == what:
                votes.revoke(answer)
            else:
                votes.vote(answer, "up" if what == "up" else "down", moments=vote.moments if vote else ())
        elif what == "reason" and value in REASONS:
            kept = set(vote.reasons) if vote is not None else set()
            votes.vote(answer, "down", reasons=sorted(kept ^ {value}), moments=vote.moments if vote else ())
        elif what == "mark":
            self._mark(turn, vote, clip, value)
        elif what == "unmark" and vote is not None:
            moments = [at for at in vote.moments if f"{at:g}" != value]
            votes.vote(answer, vote.value, reasons=vote.reasons, moments=moments)
        elif what == "correct":
            votes.correct(answer, value)
        elif what == "uncorrect":
            votes.uncorrect(answer)
        elif what == "pick" and turn.drafts is not None and turn.drafts.picked == answer:
            drafts.unpick(turn.question.id)
        elif what == "pick":
            drafts.pick(answer)

    def again(self, conversation: str | None, data: Any) -> tuple[Job, ...]:
        """Begin further drafts of an answer, drawn afresh in its mode and within its limits. AppError where it cannot
        be answered again."""
        turn = self._turn(conversation, str(data.get("answer", "")) if isinstance(data, dict) else "")
        question, studio = turn.question, self.studio
        assert conversation is not None and turn.answer is not None
        studio.check_idle(conversation)
        before = turn.drafts.answers if turn.drafts is not None else (turn.answer,)
        if len(before) + DRAFTS > MOST_DRAFTS:
            raise AppError(f"There are {len(before)} answers to this question; choose one of them, or ask anew.")
        if question.video is None:
            raise AppError("This question has no video any more; ask it anew.")
        studio.video(question.video)
        turns = studio.turns(conversation)
        earlier = turns[: next(at for at, one in enumerate(turns) if one.question.id == question.id)]
        decoding = before[0].decoding or {}
        manner = Manner(
            mode_of(before[0].mode).name, decoding.get("max_tokens"), decoding.get("think_budget"), TEMPERATURE
        )
        with studio.store.transaction():
            answers = [studio.store.begin_answer(question.id, mode=manner.mode) for _ in range(DRAFTS)]
            studio.store.drafts.add(before[0].id, [answer.id for answer in answers])
        clip = ClipChoice(question.video, question.start, question.end)
        limits = Limits(**question.sampling)
        return studio.begin(conversation, earlier, question.text, clip, limits, [manner] * DRAFTS, answers)

    def _mark(self, turn: Turn, vote: Vote | None, clip: ClipChoice | None, value: str) -> None:
        """The player's time is a moment of the video that the answer is about."""
        if vote is None:
            raise AppError("Vote on the answer first, then mark the moments that your vote is about.")
        if clip is None or clip.sha256 != turn.question.video:
            raise AppError("The player shows another video than this answer is about; ask or vote about that one.")
        try:
            at = float(value)
        except ValueError:
            at = math.nan
        if not 0 <= at <= self.studio.video(clip.sha256).duration + 1:
            raise AppError("The player has no video to mark a moment of; wait until it is shown.")
        moments = (*vote.moments, at)
        self.studio.store.votes.vote(vote.answer, vote.value, reasons=vote.reasons, moments=moments)

    def _turn(self, conversation: str | None, answer: str) -> Turn:
        for turn in self.studio.turns(conversation) if conversation else ():
            mine = turn.drafts.answers if turn.drafts is not None else (turn.answer,)
            if turn.comparison is None and answer in {one.id for one in mine if one is not None}:
                return turn
        raise AppError("There is no such answer in this conversation any more; reload the page.")
