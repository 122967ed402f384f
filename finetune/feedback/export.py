"""A conversation as plain data, for a file the user takes along."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from finetune.feedback.rows import Answer
from finetune.feedback.store import Store


def export_conversation(store: Store, conversation: str) -> dict[str, Any]:
    """A conversation with its turns, what was thought of them and the facts of their videos, ready for JSON.

    Names and facts of the videos are included; their pictures and where they are kept on this machine are not.
    FinetuneError if the conversation was deleted."""
    history = store.conversation(conversation)
    videos = {turn.video.sha256: asdict(turn.video) for turn in history.turns if turn.video is not None}
    for video in videos.values():
        del video["path"]
        video["probe"].pop("path", None)
    return {
        **asdict(history.conversation),
        "videos": list(videos.values()),
        "turns": [
            {"question": asdict(turn.question), "answers": [_answer(answer) for answer in turn.answers]}
            for turn in history.turns
        ],
        "votes": [asdict(vote) for vote in store.votes.of_conversation(conversation).values()],
        "drafts": {
            question: [answer.id for answer in drafts.answers]
            for question, drafts in store.drafts.of_conversation(conversation).items()
        },
        "preferences": [asdict(preference) for preference in store.preferences.of_conversation(conversation)],
    }


def _answer(answer: Answer) -> dict[str, Any]:
    """Without the pictures that were looked at on the way: they are of the video."""
    row = asdict(answer)
    for step in (row["reasoning"] or {}).get("steps", ()):
        step.pop("image", None)
        step.pop("frame", None)
    return row
