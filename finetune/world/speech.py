"""How things are named and answers are said, in English and in Chinese.

Every answer of a kind begins, as far as the language allows, with a token of its own: where two answers share their
first word, the more frequent one wins whatever the pixels say."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from finetune.world import phrases as english
from finetune.world import phrases_zh as chinese
from finetune.world.scene import Scene, Thing

Language = Literal["en", "zh"]


def timestamp(seconds: float) -> str:
    """The whole second as minutes and seconds."""
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


class Speech(ABC):
    """One language. Words of the scene go in (`red`, `star`, `left`, `appears`), words of the language come out."""

    phrases: Mapping[str, tuple[str, ...]]
    answers: Mapping[str, str]
    talk: ClassVar[Mapping[str, tuple[str, ...]]]
    videos: tuple[str, ...]
    pictures: tuple[str, ...]
    still: str  # the answer to where something goes that stays
    no_text: str
    equal: str

    @abstractmethod
    def vary(self, question: str, rng: random.Random) -> str:
        """The question as it may be typed."""

    @abstractmethod
    def sentence(self, text: str) -> str:
        """With its capital and its mark."""

    # -- questions

    @abstractmethod
    def ask(self, phrase: str, words: dict[str, str]) -> str:
        """Fill a phrase; {the} may begin it."""

    @abstractmethod
    def named(self, shape: str = "", colour: str = "", style: int = 0) -> str:
        """Something by its shape, its colour, or both, without an article; `style` 0 to 2 chooses among words."""

    @abstractmethod
    def the(self, noun: str) -> str: ...

    @abstractmethod
    def a(self, noun: str) -> str: ...

    @abstractmethod
    def group(self, shape: str = "", colour: str = "") -> str:
        """All of one shape or of one colour."""

    @abstractmethod
    def beside(self, side: str, noun: str) -> str:
        """The shape to the left, to the right, above or below another; `noun` names that one with its article."""

    @abstractmethod
    def doer(self, does: str) -> str:
        """The shape that does something."""

    @abstractmethod
    def join(self, parts: Sequence[str]) -> str: ...

    @abstractmethod
    def does(self, thing: Thing) -> str:
        """What a thing does, as the end of a sentence."""

    @abstractmethod
    def does_roughly(self, event: str, infinitive: bool = False) -> str:
        """What a thing does that appears, disappears or turns, without the colour."""

    @abstractmethod
    def first(self, first: bool) -> str: ...

    # -- answers

    @abstractmethod
    def colour(self, colour: str) -> str: ...

    @abstractmethod
    def shape(self, shape: str) -> str: ...

    @abstractmethod
    def number(self, number: int) -> str: ...

    @abstractmethod
    def truth(self, truth: bool, there: bool = False) -> str:
        """Yes or no; `there`: to whether something is there."""

    @abstractmethod
    def no_shape(self, shape: str) -> str: ...

    @abstractmethod
    def corner(self, top: bool, left: bool) -> str: ...

    @abstractmethod
    def direction(self, motion: str) -> str:
        """Where something moves."""

    @abstractmethod
    def side(self, side: str) -> str:
        """left, right, above or below."""

    @abstractmethod
    def word(self, word: str) -> str:
        """A size, texture, background, or `middle`, as an answer."""

    @abstractmethod
    def thing_does(self, thing: Thing) -> str: ...

    @abstractmethod
    def caption(self, things: Sequence[Thing]) -> str: ...

    @abstractmethod
    def time(self, seconds: float) -> str: ...

    def video(self, scene: Scene, rng: random.Random, plain: bool) -> str:
        words = self.pictures if scene.still else self.videos
        return words[0] if plain else rng.choice(words)


class English(Speech):
    phrases = english.PHRASES
    answers = english.ANSWERS
    talk: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "greeting": english.GREETINGS,
        "who": english.WHO,
        "thanks": english.THANKS,
        "foreign": english.FOREIGN,
    }
    videos = ("video", "video", "clip")
    pictures = ("picture", "image", "picture", "photo", "video")
    still = "Nowhere, it stays still."
    no_text = "There is no text."
    equal = "Equal."
    numbers = (
        "Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve",
    )  # fmt: skip

    def vary(self, question: str, rng: random.Random) -> str:
        return english.vary(question, rng)

    def sentence(self, text: str) -> str:
        return f"{text[0].upper()}{text[1:]}."

    def ask(self, phrase: str, words: dict[str, str]) -> str:
        text = phrase.format(**words)
        return text[0].upper() + text[1:]

    def named(self, shape: str = "", colour: str = "", style: int = 0) -> str:
        if shape:
            return f"{colour} {shape}" if colour else shape
        return f"{colour} {('shape', 'one', 'object')[style]}"

    def the(self, noun: str) -> str:
        return f"the {noun}"

    def a(self, noun: str) -> str:
        return ("an " if noun[0] in "aeiou" else "a ") + noun

    def group(self, shape: str = "", colour: str = "") -> str:
        return (f"{shape}es" if shape == "cross" else f"{shape}s") if shape else f"{colour} shapes"

    def beside(self, side: str, noun: str) -> str:
        return f"the shape {side} {noun}" if side in ("above", "below") else f"the shape {side} of {noun}"

    def doer(self, does: str) -> str:
        return f"the shape that {does}"

    def join(self, parts: Sequence[str]) -> str:
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

    def does(self, thing: Thing) -> str:
        if thing.event == "turns":
            return f"turns {thing.turned}"
        if thing.event is not None:
            return thing.event
        if thing.motion == "zigzag":
            return "moves in a zigzag"
        return "stays still" if thing.resting else f"moves {thing.motion}"

    def does_roughly(self, event: str, infinitive: bool = False) -> str:
        if event == "turns":
            return "change colour" if infinitive else "changes colour"
        return event.removesuffix("s") if infinitive else event

    def first(self, first: bool) -> str:
        return "first" if first else "last"

    def colour(self, colour: str) -> str:
        return self.sentence(colour)

    def shape(self, shape: str) -> str:
        return self.sentence(shape)

    def number(self, number: int) -> str:
        return f"{self.numbers[number]}."

    def truth(self, truth: bool, there: bool = False) -> str:
        return "Yes." if truth else "No."

    def no_shape(self, shape: str) -> str:
        return f"There is no {shape}."

    def corner(self, top: bool, left: bool) -> str:
        return f"{'Top' if top else 'Bottom'} {'left' if left else 'right'}."

    def direction(self, motion: str) -> str:
        return self.sentence("in a zigzag" if motion == "zigzag" else motion)

    def side(self, side: str) -> str:
        return self.sentence(side)

    def word(self, word: str) -> str:
        return self.sentence("in the middle" if word == "middle" else word)

    def thing_does(self, thing: Thing) -> str:
        return self.sentence(f"{self.named(thing.shape, thing.colour)} {self.does(thing)}")

    def caption(self, things: Sequence[Thing]) -> str:
        return self.sentence(self.join([f"{self.a(self.named(t.shape, t.colour))} {self.does(t)}" for t in things]))

    def time(self, seconds: float) -> str:
        return f"At {timestamp(seconds)}."


class Chinese(Speech):
    phrases = chinese.PHRASES
    answers = chinese.ANSWERS
    talk: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "greeting": chinese.GREETINGS,
        "who": chinese.WHO,
        "thanks": chinese.THANKS,
        "foreign": chinese.FOREIGN,
    }
    videos = ("视频", "视频", "短片")
    pictures = ("图片", "图像", "图片", "照片", "画面")
    still = "不动。"
    no_text = "没有文字。"
    equal = "一样多。"

    def vary(self, question: str, rng: random.Random) -> str:
        return chinese.vary(question, rng)

    def sentence(self, text: str) -> str:
        return f"{text}。"

    def ask(self, phrase: str, words: dict[str, str]) -> str:
        return phrase.format(**words)

    def named(self, shape: str = "", colour: str = "", style: int = 0) -> str:
        if not shape:
            return chinese.COLOURS[colour] + ("图形", "的图形", "的那个")[style]
        if not colour:
            return chinese.SHAPES[shape]
        return chinese.COLOURS[colour] + ("", "的", "的")[style] + chinese.SHAPES[shape]

    def the(self, noun: str) -> str:
        return noun

    def a(self, noun: str) -> str:
        return noun

    def group(self, shape: str = "", colour: str = "") -> str:
        return chinese.SHAPES[shape] if shape else f"{chinese.COLOURS[colour]}图形"

    def beside(self, side: str, noun: str) -> str:
        return f"{noun}{chinese.SIDES[side]}的图形"

    def doer(self, does: str) -> str:
        return f"{does}的图形"

    def join(self, parts: Sequence[str]) -> str:
        return parts[0] if len(parts) == 1 else f"{'、'.join(parts[:-1])}和{parts[-1]}"

    def does(self, thing: Thing) -> str:
        if thing.event == "turns":
            return f"变成{chinese.COLOURS[thing.turned]}"
        if thing.event is not None:
            return chinese.EVENTS[thing.event]
        return "不动" if thing.resting else f"{chinese.DIRECTIONS[thing.motion]}移动"

    def does_roughly(self, event: str, infinitive: bool = False) -> str:
        return chinese.EVENTS[event]

    def first(self, first: bool) -> str:
        return "最先" if first else "最后"

    def colour(self, colour: str) -> str:
        return f"{chinese.COLOURS[colour]}。"

    def shape(self, shape: str) -> str:
        return f"{chinese.SHAPES[shape]}。"

    def number(self, number: int) -> str:
        return f"{chinese.NUMBERS[number]}。"

    def truth(self, truth: bool, there: bool = False) -> str:
        if there:
            return "有。" if truth else "没有。"
        return "是的。" if truth else "不是。"

    def no_shape(self, shape: str) -> str:
        return f"没有{chinese.SHAPES[shape]}。"

    def corner(self, top: bool, left: bool) -> str:
        return f"{'左' if left else '右'}{'上' if top else '下'}角。"

    def direction(self, motion: str) -> str:
        return f"{chinese.DIRECTIONS[motion]}。"

    def side(self, side: str) -> str:
        return f"{chinese.SIDES[side]}。"

    def word(self, word: str) -> str:
        return f"{(chinese.TEXTURES | chinese.BACKGROUNDS | chinese.SIZES)[word]}。"

    def thing_does(self, thing: Thing) -> str:
        return self.sentence(self.named(thing.shape, thing.colour) + self.does(thing))

    def caption(self, things: Sequence[Thing]) -> str:
        return self.sentence("，".join(self.named(t.shape, t.colour) + self.does(t) for t in things))

    def time(self, seconds: float) -> str:
        return f"在{timestamp(seconds)}。"


SPEECH: dict[Language, Speech] = {"en": English(), "zh": Chinese()}
