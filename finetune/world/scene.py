"""What there is to see: coloured shapes, how they move, what happens to them, and when. Pure numbers, no pixels."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from finetune.errors import FinetuneError

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
BACKGROUNDS = ("black", "grey", "brown", "navy", "teal")
MOTIONS = ("left", "right", "up", "down", "still")
WORDS = (
    "GO", "STOP", "HI", "HELLO", "SALE", "NEW", "WOW", "YES", "NO", "OK", "LIVE", "PLAY", "TOP", "HOT", "COOL", "FUN",
    "END", "BIG", "OPEN", "FREE", "LOVE", "KEYE", "NEWS", "GAME", "DAY", "SUN",
)  # fmt: skip
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ23456789"
"""Characters of made-up text. 0 and 1 are left out because they look like O and I."""

UNSEEN = frozenset({("purple", "star"), ("orange", "cross"), ("blue", "heart"), ("pink", "triangle")})
"""Pairs of colour and shape that no training scene holds."""

SMALL, BIG = (0.085, 0.10), (0.15, 0.175)
"""Radii, in units of the picture's shorter side."""

Split = Literal["train", "test", "unseen"]
Event = Literal["appears", "disappears", "turns"]


@dataclass(frozen=True)
class Thing:
    """One shape. Lengths are in units of the picture's shorter side, times in seconds."""

    shape: str
    colour: str
    big: bool
    radius: float
    x: float  # centre at time 0, from the left
    y: float  # from the top
    motion: str = "still"
    dx: float = 0.0  # how far it moves during the whole clip
    dy: float = 0.0
    event: Event | None = None
    at: float = 0.0  # when the event happens
    turned: str = ""  # its colour after `turns`

    def place(self, time: float, duration: float) -> tuple[float, float]:
        """Its centre `time` seconds into a clip of `duration` seconds."""
        part = min(max(time / duration, 0.0), 1.0) if duration else 0.0
        return self.x + self.dx * part, self.y + self.dy * part

    def visible(self, time: float) -> bool:
        if self.event == "appears":
            return time >= self.at
        return not (self.event == "disappears" and time >= self.at)

    def colour_at(self, time: float) -> str:
        return self.turned if self.event == "turns" and time >= self.at else self.colour


@dataclass(frozen=True)
class Scene:
    """A clip (or, with duration 0, a picture). `things` are in order from left to right at the start."""

    seed: int
    split: Split
    duration: float  # seconds
    aspect: float  # width / height
    things: tuple[Thing, ...]
    background: str
    texture: str  # plain, gradient, noise, stripes
    text: str = ""
    text_top: bool = False

    @property
    def still(self) -> bool:
        return self.duration == 0

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in units of the shorter side."""
        return (self.aspect, 1.0) if self.aspect >= 1 else (1.0, 1.0 / self.aspect)


def make_scene(seed: int, split: Split = "train", duration: float = 4.0, aspect: float = 1.0, most: int = 3) -> Scene:
    """The scene number `seed` of a split; the same arguments always give the same scene.

    `duration` in seconds, 0 for a picture, else at least 2; `aspect` is width / height, 0.4 to 2.5; there are at most
    `most` things. Training scenes
    never hold a pair of UNSEEN, test scenes draw from all pairs, every `unseen` scene holds one of UNSEEN. The three
    splits draw from different random streams. Raises FinetuneError for other values."""
    if duration != 0 and not 2 <= duration <= 60:
        raise FinetuneError(f"A clip of the world lasts 2 to 60 seconds, not {duration:g}; give 0 for a picture.")
    if not 0.4 <= aspect <= 2.5:
        raise FinetuneError(f"The aspect ratio must lie between 0.4 and 2.5, not {aspect:g}.")
    rng = random.Random(f"{split}-{seed}-{duration:g}-{aspect:g}")
    text, text_top = _text(rng)
    wanted = min(rng.choices((1, 2, 3), (0.2, 0.4, 0.4))[0], most)
    kinds = _events(rng, wanted, duration)
    things: list[Thing] = []
    first_pair = rng.choice(sorted(UNSEEN)) if split == "unseen" else None
    tries = 0
    while len(things) < wanted and tries < 200:
        tries += 1
        pair = first_pair if first_pair and not things else _pair(rng, split, things)
        thing = _thing(rng, pair, kinds[len(things)], split, duration, aspect, text, text_top)
        if thing is not None and all(_apart(thing, other) for other in things):
            things.append(thing)
    return Scene(
        seed=seed,
        split=split,
        duration=duration,
        aspect=aspect,
        things=tuple(sorted(things, key=lambda t: t.x)),
        background=rng.choice(BACKGROUNDS),
        texture=rng.choice(("plain", "gradient", "noise", "stripes")),
        text=text,
        text_top=text_top,
    )


def _text(rng: random.Random) -> tuple[str, bool]:
    kind = rng.random()
    if kind < 0.6:
        return "", False
    if kind < 0.8:
        return rng.choice(WORDS), rng.random() < 0.5
    return "".join(rng.choices(LETTERS, k=rng.choice((2, 3, 3, 4)))), rng.random() < 0.5


def _events(rng: random.Random, count: int, duration: float) -> list[Event | None]:
    """What happens to each thing; something is always there from start to end unless there is one thing only."""
    kinds: list[Event | None] = [None] * count
    if duration == 0 or rng.random() < 0.35:
        return kinds
    number = 1 if count < 3 or rng.random() < 0.8 else 2
    for i in rng.sample(range(count), number):
        kinds[i] = rng.choice(("appears", "disappears", "turns"))
    return kinds


def _pair(rng: random.Random, split: Split, things: list[Thing]) -> tuple[str, str]:
    while True:
        colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
        # Repeats are made on purpose (so that counting by colour or shape means something), twins are not.
        if things and rng.random() < 0.25:
            shape = things[0].shape
        elif things and rng.random() < 0.2:
            colour = things[0].colour
        if any((t.colour, t.shape) == (colour, shape) for t in things):
            continue
        if split != "train" or (colour, shape) not in UNSEEN:
            return colour, shape


def _thing(
    rng: random.Random,
    pair: tuple[str, str],
    event: Event | None,
    split: Split,
    duration: float,
    aspect: float,
    text: str,
    text_top: bool,
) -> Thing | None:
    colour, shape = pair
    big = rng.random() < 0.5
    radius = rng.uniform(*(BIG if big else SMALL))
    width, height = (aspect, 1.0) if aspect >= 1 else (1.0, 1.0 / aspect)
    edge = radius + 0.02
    top = edge + (0.2 if text and text_top else 0.0)
    bottom = height - edge - (0.2 if text and not text_top else 0.0)
    x, y = rng.uniform(edge, width - edge), rng.uniform(top, bottom)
    if event is not None:
        at = _moment(rng, duration)
        turned = _other_colour(rng, colour, shape, split) if event == "turns" else ""
        return Thing(shape, colour, big, radius, x, y, event=event, at=at, turned=turned)
    motion = rng.choice(MOTIONS) if duration and rng.random() < 0.9 else "still"
    length = rng.uniform(0.28, 0.6)
    dx = {"left": -length, "right": length}.get(motion, 0.0)
    dy = {"up": -length, "down": length}.get(motion, 0.0)
    if not (edge <= x + dx <= width - edge and top <= y + dy <= bottom):
        return None
    return Thing(shape, colour, big, radius, x, y, motion, dx, dy)


def _moment(rng: random.Random, duration: float) -> float:
    """Early in a second, so that at two frames a second the first frame to show it lies in that second too."""
    return rng.randint(1, max(1, int(duration - 1.05))) + rng.uniform(0.05, 0.4)


def _other_colour(rng: random.Random, colour: str, shape: str, split: Split) -> str:
    while True:
        other = rng.choice(COLOURS)
        if other != colour and (split != "train" or (other, shape) not in UNSEEN):
            return other


def _apart(a: Thing, b: Thing) -> bool:
    """Whether two things never touch: the nearest point of their relative, straight path."""
    px, py = a.x - b.x, a.y - b.y
    vx, vy = a.dx - b.dx, a.dy - b.dy
    speed = vx * vx + vy * vy
    part = min(max(-(px * vx + py * vy) / speed, 0.0), 1.0) if speed else 0.0
    return (px + vx * part) ** 2 + (py + vy * part) ** 2 > (a.radius + b.radius + 0.03) ** 2
