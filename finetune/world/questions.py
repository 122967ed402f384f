"""Questions about a scene with their true answers, in English or in Chinese."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from finetune.world.kinds import PLACE_KINDS, Maker
from finetune.world.kinds_in_time import HOP, TIME_KINDS
from finetune.world.scene import Scene
from finetune.world.speech import SPEECH, Language


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: str
    language: Language = "en"


def ask(scene: Scene, rng: random.Random, kind: str, plain: bool = False, language: Language = "en") -> Question | None:
    """One question of this kind, None where the scene has no such question or its answer would be unclear.

    `plain` keeps the first phrasing and spelling of the kind. From the same random numbers comes the same question in
    either language."""
    say = SPEECH[language]
    made = MAKERS[kind](scene, rng, say)
    if made is None:
        return None
    words = {"video": say.video(scene, rng, plain), **made.words}
    phrases = say.phrases[made.phrases or kind]
    text = say.ask(phrases[0] if plain else rng.choice(phrases), words)
    return Question(kind, text if plain else say.vary(text, rng), made.answer, language)


def draw(
    scene: Scene, rng: random.Random, count: int, chinese: float = 0.0, mixture: Mapping[str, float] | None = None
) -> list[Question]:
    """`count` questions of kinds drawn by weight, a share `chinese` of them in Chinese; the same question may come
    twice in other words. `mixture` says how much more often than usual a kind is drawn."""
    kinds, weights = (PICTURE_KINDS, PICTURE_WEIGHTS) if scene.still else (VIDEO_KINDS, VIDEO_WEIGHTS)
    if mixture:
        weights = tuple(w * mixture.get(k, 1.0) for k, w in zip(kinds, weights, strict=True))
    out: list[Question] = []
    while len(out) < count:
        for kind in rng.choices(kinds, weights, k=count):
            question = ask(scene, rng, kind, language="zh" if chinese and rng.random() < chinese else "en")
            if question is not None:
                out.append(question)
    return out[:count]


def small_talk(rng: random.Random, kind: str, with_clip: bool = True, language: Language = "en") -> Question:
    """A greeting and the like, or a question about something that is no moving shape; without a clip, a question
    about shapes has one honest answer."""
    say = SPEECH[language]
    if kind == "no_clip" or (not with_clip and kind == "foreign" and rng.random() < 0.3):
        phrase = rng.choice(say.phrases[rng.choice(("list", "caption", "count", "text"))])
        text = say.ask(phrase, {"video": say.videos[0]})
        return Question("no_clip", say.vary(text, rng), say.answers["no_clip"], language)
    return Question(kind, say.vary(rng.choice(say.talk[kind]), rng), say.answers[kind], language)


MAKERS: dict[str, Maker] = {**PLACE_KINDS, "hop": HOP, **TIME_KINDS}

_VIDEO_WEIGHT = {
    **dict.fromkeys(MAKERS, 1.0),
    "motion": 3.0,
    "event": 2.0,
    "when": 2.0,
    "text": 2.0,
    "which": 1.5,
    "caption": 1.0,
    "list": 0.8,
    "where": 2.5,
    "side": 2.0,
    "height": 2.0,
    "has_text": 0.3,
    "background": 0.3,
    # these are refused by most scenes
    "order": 5.0,
    "hop": 3.0,
    "after": 2.5,
    "texture": 2.5,
    "box": 3.0,
    "more": 1.5,
}
_PICTURE_WEIGHT = {k: w for k, w in _VIDEO_WEIGHT.items() if k not in TIME_KINDS} | {"box": 1.2, "texture": 1.5}
VIDEO_KINDS, VIDEO_WEIGHTS = tuple(_VIDEO_WEIGHT), tuple(_VIDEO_WEIGHT.values())
PICTURE_KINDS, PICTURE_WEIGHTS = tuple(_PICTURE_WEIGHT), tuple(_PICTURE_WEIGHT.values())
