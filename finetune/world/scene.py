"""What there is to see: coloured shapes, how they move, what happens to them, and when. Pure numbers, no pixels."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Literal

from finetune.errors import FinetuneError

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
BACKGROUNDS = ("black", "grey", "brown", "navy", "teal")
MOTIONS = ("left", "right", "up", "down", "still")
TEXTURES = ("plain", "striped", "dotted")
"""What the surface of a thing looks like."""

NEW_SHAPES = ("ring",)
NEW_MOTIONS = ("zigzag",)  # to and fro sideways while it travels up or down
"""What only scenes of the split `new` hold: a shape and a motion kept back, to be learnt later from feedback."""

WORDS = (
    "GO", "STOP", "HI", "HELLO", "SALE", "NEW", "WOW", "YES", "NO", "OK", "LIVE", "PLAY", "TOP", "HOT", "COOL", "FUN",
    "END", "BIG", "OPEN", "FREE", "LOVE", "KEYE", "NEWS", "GAME", "DAY", "SUN",
)  # fmt: skip
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ23456789"
"""Characters of made-up text. 0 and 1 are left out because they look like O and I."""

UNSEEN = frozenset({("purple", "star"), ("orange", "cross"), ("blue", "heart"), ("pink", "triangle")})
"""Pairs of colour and shape that no training scene holds."""

UNSEEN_TRIPLES = frozenset(
    {
        ("red", "circle", "left"), ("blue", "triangle", "left"), ("yellow", "heart", "right"),
        ("pink", "cross", "right"), ("green", "square", "up"), ("orange", "circle", "up"),
        ("white", "star", "down"), ("purple", "square", "down"),
    }
)  # fmt: skip
"""Colours, shapes and motions that no training scene holds together, though it holds each two of them."""

SMALL, BIG = (0.085, 0.10), (0.15, 0.175)
"""Radii, in units of the picture's shorter side."""

Split = Literal["train", "test", "unseen", "new"]
Event = Literal["appears", "disappears", "turns"]

SWAY, SWING = 0.11, 3.0
"""How far a zigzag goes to either side, and the seconds from one turn to its next on the same side: slow enough to be
seen at one frame a second."""

PAN, SHAKE, ZOOM = 0.06, 0.012, 0.08
"""At most: how far the camera drifts during a clip, how far it trembles, by what part it zooms."""


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
    texture: str = "plain"
    sway: float = 0.0  # how far it goes to either side while it moves

    @property
    def resting(self) -> bool:
        return self.motion == "still"

    def place(self, time: float, duration: float) -> tuple[float, float]:
        """Its centre `time` seconds into a clip of `duration` seconds."""
        part = min(max(time / duration, 0.0), 1.0) if duration else 0.0
        sway = self.sway * math.sin(2 * math.pi * time / SWING) if self.sway else 0.0
        return self.x + self.dx * part + sway, self.y + self.dy * part

    def visible(self, time: float) -> bool:
        if self.event == "appears":
            return time >= self.at
        return not (self.event == "disappears" and time >= self.at)

    def colour_at(self, time: float) -> str:
        return self.turned if self.event == "turns" and time >= self.at else self.colour


@dataclass(frozen=True)
class Camera:
    """How a clip is filmed. Lengths are in units of the picture's shorter side."""

    kind: Literal["none", "pan", "shake", "zoom"] = "none"
    dx: float = 0.0  # of a pan: how far everything drifts during the clip; of a shake: how far it trembles
    dy: float = 0.0
    zoom: float = 0.0  # by what part everything has grown at the end
    phase: float = 0.0  # of a shake

    def view(self, time: float, duration: float) -> tuple[float, float, float]:
        """How the world is seen: its scale about the middle of the picture, then its shift to the right and down."""
        if self.kind == "shake":
            turn = 3.4 * math.pi * time + self.phase
            return 1.0, self.dx * math.sin(turn), self.dy * math.sin(1.3 * turn + 1)
        part = min(max(time / duration, 0.0), 1.0) if duration else 0.0
        return 1 + self.zoom * part, self.dx * part, self.dy * part


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
    camera: Camera = Camera()

    @property
    def still(self) -> bool:
        return self.duration == 0

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in units of the shorter side."""
        return (self.aspect, 1.0) if self.aspect >= 1 else (1.0, 1.0 / self.aspect)

    def seen(self, thing: Thing, time: float) -> tuple[float, float, float]:
        """Where the camera sees a thing: its centre and its radius, in units of the shorter side."""
        x, y = thing.place(time, self.duration)
        if self.camera.kind == "none":
            return x, y, thing.radius
        scale, right, down = self.camera.view(time, self.duration)
        width, height = self.size
        return (
            width / 2 + (x - width / 2) * scale + right,
            height / 2 + (y - height / 2) * scale + down,
            thing.radius * scale,
        )


def make_scene(seed: int, split: Split = "train", duration: float = 4.0, aspect: float = 1.0, most: int = 4) -> Scene:
    """The scene number `seed` of a split; the same arguments always give the same scene.

    `duration` in seconds, 0 for a picture, else at least 2; `aspect` is width / height, 0.4 to 2.5; there are at most
    `most` things. Training scenes never hold a pair of UNSEEN nor one of UNSEEN_TRIPLES; test scenes draw from all.
    Every `unseen` scene holds one of UNSEEN, or, clips of an odd seed, one of UNSEEN_TRIPLES and no pair of UNSEEN;
    every `new` scene holds one of NEW_SHAPES or, clips only, one of NEW_MOTIONS. The splits draw from different random
    streams. Raises FinetuneError for other values."""
    if duration != 0 and not 2 <= duration <= 60:
        raise FinetuneError(f"A clip of the world lasts 2 to 60 seconds, not {duration:g}; give 0 for a picture.")
    if not 0.4 <= aspect <= 2.5:
        raise FinetuneError(f"The aspect ratio must lie between 0.4 and 2.5, not {aspect:g}.")
    rng = random.Random(f"{split}-{seed}-{duration:g}-{aspect:g}")
    text, text_top = _text(rng)
    camera = _camera(rng, duration)
    wanted = min(rng.choices((1, 2, 3, 4), (0.2, 0.35, 0.33, 0.12))[0], most)
    events = _events(rng, wanted, duration)
    wish = _first(rng, seed, split, duration)
    if wish and wish[2]:
        events[0] = (None, 0.0)
    known = split == "train" or (wish is not None and wish[2] != "" and split == "unseen")
    stage = _Stage(rng, known, duration, _room(aspect, text, text_top, camera))
    things: list[Thing] = []
    tries = 0
    while len(things) < wanted and (tries < 300 or not things):
        tries += 1
        colour, shape, motion = wish if wish and not things else (*stage.pair(things), "")
        thing = stage.thing(colour, shape, motion, *events[len(things)])
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
        camera=camera,
    )


def plainer(scene: Scene) -> Scene:
    """The same without patterns on its things, before a camera that stands still."""
    things = tuple(replace(thing, texture="plain") for thing in scene.things)
    return replace(scene, things=things, camera=Camera())


def _text(rng: random.Random) -> tuple[str, bool]:
    kind = rng.random()
    if kind < 0.6:
        return "", False
    if kind < 0.8:
        return rng.choice(WORDS), rng.random() < 0.5
    return "".join(rng.choices(LETTERS, k=rng.choice((2, 3, 3, 4)))), rng.random() < 0.5


def _camera(rng: random.Random, duration: float) -> Camera:
    kind = rng.random()
    if duration == 0 or kind < 0.8:
        return Camera()
    if kind < 0.88:
        angle, length = rng.uniform(0, 2 * math.pi), rng.uniform(PAN / 2, PAN)
        return Camera("pan", length * math.cos(angle), length * math.sin(angle))
    if kind < 0.94:
        return Camera("shake", SHAKE, SHAKE, phase=rng.uniform(0, 2 * math.pi))
    return Camera("zoom", zoom=rng.choice((-1, 1)) * rng.uniform(ZOOM / 2, ZOOM))


def _room(aspect: float, text: str, text_top: bool, camera: Camera) -> tuple[float, float, float, float]:
    """Left, top, right and bottom within which a thing must stay, so that the camera keeps it in the picture and off
    the text."""
    width, height = (aspect, 1.0) if aspect >= 1 else (1.0, 1.0 / aspect)
    x = 0.02 + abs(camera.dx) + abs(camera.zoom) * width / 2
    y = 0.02 + abs(camera.dy) + abs(camera.zoom) * height / 2
    above, below = (0.2 if text and text_top else 0.0), (0.2 if text and not text_top else 0.0)
    return x, y + above, width - x, height - y - below


def _events(rng: random.Random, count: int, duration: float) -> list[tuple[Event | None, float]]:
    """What happens to each thing, and when. Two things happen in seconds of their own, and something is always there
    from start to end unless there is one thing only."""
    events: list[tuple[Event | None, float]] = [(None, 0.0)] * count
    if duration == 0 or rng.random() < 0.35:
        return events
    last = max(1, int(duration - 1.05))
    number = 2 if count > 1 and last > 1 and rng.random() < (0.3 if count == 2 else 0.4) else 1
    kinds: tuple[Event, ...] = ("appears", "disappears", "turns")
    chosen, seconds = rng.sample(range(count), number), rng.sample(range(1, last + 1), number)
    for n, (i, second) in enumerate(zip(chosen, seconds, strict=True)):
        kind = "turns" if n == 1 and count == 2 else rng.choice(kinds)
        # Early in a second, so that at two frames a second the first frame to show it lies in that second too.
        events[i] = (kind, second + rng.uniform(0.05, 0.4))
    return events


def _first(rng: random.Random, seed: int, split: Split, duration: float) -> tuple[str, str, str] | None:
    """Colour, shape and motion ("" for any) of the thing that makes a scene one of its split."""
    if split == "unseen":
        if duration and seed % 2:
            return rng.choice(sorted(UNSEEN_TRIPLES))
        return (*rng.choice(sorted(UNSEEN)), "")
    if split == "new":
        if duration and rng.random() < 0.5:
            return rng.choice(COLOURS), rng.choice(SHAPES), rng.choice(NEW_MOTIONS)
        return rng.choice(COLOURS), rng.choice(NEW_SHAPES), ""
    return None


@dataclass(frozen=True)
class _Stage:
    """Where and from what the things of a scene are made; `known`: only of what training shows."""

    rng: random.Random
    known: bool
    duration: float
    room: tuple[float, float, float, float]

    def pair(self, things: list[Thing]) -> tuple[str, str]:
        """Colour and shape of one more thing. Repeats are made on purpose (so that counting by colour or shape means
        something), twins are not."""
        rng = self.rng
        while True:
            colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
            if things and things[0].shape in SHAPES and rng.random() < 0.25:
                shape = things[0].shape
            elif things and rng.random() < 0.2:
                colour = things[0].colour
            if any((t.colour, t.shape) == (colour, shape) for t in things):
                continue
            if not self.known or (colour, shape) not in UNSEEN:
                return colour, shape

    def thing(self, colour: str, shape: str, wish: str, event: Event | None, at: float) -> Thing | None:
        """A thing somewhere; None where it would leave the room. `wish` is its motion, "" for any."""
        rng = self.rng
        big = rng.random() < 0.5
        radius = rng.uniform(*(BIG if big else SMALL))
        texture = rng.choices(TEXTURES, (0.8, 0.1, 0.1))[0]
        motion = wish or (rng.choice(MOTIONS) if self.duration and not event and rng.random() < 0.9 else "still")
        sway = SWAY if motion == "zigzag" else 0.0
        left, top, right, bottom = self.room
        left, top, right, bottom = left + radius + sway, top + radius, right - radius - sway, bottom - radius
        x, y = rng.uniform(left, right), rng.uniform(top, bottom)
        if event is not None:
            turned = self._other_colour(colour, shape) if event == "turns" else ""
            return Thing(shape, colour, big, radius, x, y, event=event, at=at, turned=turned, texture=texture)
        length = rng.uniform(0.28, 0.6)
        if motion == "zigzag" and rng.random() < 0.5:
            length = -length
        dx = {"left": -length, "right": length}.get(motion, 0.0)
        dy = {"up": -length, "down": length, "zigzag": length}.get(motion, 0.0)
        if not (left <= x + dx <= right and top <= y + dy <= bottom):
            return None
        if self.known and not wish and (colour, shape, motion) in UNSEEN_TRIPLES:
            return None
        return Thing(shape, colour, big, radius, x, y, motion, dx, dy, texture=texture, sway=sway)

    def _other_colour(self, colour: str, shape: str) -> str:
        while True:
            other = self.rng.choice(COLOURS)
            if other != colour and (not self.known or (other, shape) not in UNSEEN):
                return other


def _apart(a: Thing, b: Thing) -> bool:
    """Whether two things never touch: the nearest point of their relative, straight path."""
    px, py = a.x - b.x, a.y - b.y
    vx, vy = a.dx - b.dx, a.dy - b.dy
    speed = vx * vx + vy * vy
    part = min(max(-(px * vx + py * vy) / speed, 0.0), 1.0) if speed else 0.0
    return (px + vx * part) ** 2 + (py + vy * part) ** 2 > (a.radius + b.radius + a.sway + b.sway + 0.03) ** 2
