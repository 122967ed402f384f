"""The world's truth against its pixels, its questions against hand-made scenes, its files against their pictures."""

from __future__ import annotations

import random
from pathlib import Path

import av
import numpy as np
import pytest

from finetune.answers.scoring import read_box
from finetune.errors import FinetuneError
from finetune.world import phrases_zh
from finetune.world.clips import encode_clip, sampled_times
from finetune.world.questions import VIDEO_KINDS, Language, ask, draw, small_talk
from finetune.world.render import RGB, render, render_labels
from finetune.world.scene import (
    COLOURS,
    NEW_MOTIONS,
    NEW_SHAPES,
    UNSEEN,
    UNSEEN_TRIPLES,
    Camera,
    Scene,
    Thing,
    make_scene,
)


def scene_of(*things: Thing, text: str = "", duration: float = 5.0, aspect: float = 1.0) -> Scene:
    return Scene(1, "test", duration, aspect, things, "black", "plain", text)


STAR = Thing("star", "red", True, 0.16, 0.25, 0.3, "right", dx=0.5)
HEART = Thing("heart", "green", False, 0.09, 0.75, 0.75, event="appears", at=3.2)
CIRCLE = Thing("circle", "white", False, 0.09, 0.3, 0.7, event="turns", at=2.1, turned="blue")


def answers(scene: Scene, kind: str, tries: int = 200, language: Language = "en") -> dict[str, str]:
    """Every question of a kind that a scene gives in its plain wording, with its answer."""
    rng = random.Random(0)
    made = [ask(scene, rng, kind, plain=True, language=language) for _ in range(tries)]
    return {q.text: q.answer for q in made if q is not None}


def test_the_same_seed_gives_the_same_scene_and_pixels() -> None:
    a, b = make_scene(7, "train", 4.0, 1.5), make_scene(7, "train", 4.0, 1.5)
    assert a == b
    assert np.array_equal(render(a, [0.0, 2.5], 84, 126), render(b, [0.0, 2.5], 84, 126))
    assert make_scene(7, "test", 4.0, 1.5) != a
    assert make_scene(8, "train", 4.0, 1.5) != a


def test_training_never_sees_the_held_out_pairs() -> None:
    seen = set()
    for seed in range(1500):
        for thing in make_scene(seed, "train", 4.0).things:
            seen |= {(thing.colour, thing.shape), (thing.turned or thing.colour, thing.shape)}
    assert not seen & UNSEEN
    assert len(seen) == 8 * 6 - len(UNSEEN)
    for seed in range(0, 100, 2):  # those of an odd number hold a triple
        assert any((t.colour, t.shape) in UNSEEN for t in make_scene(seed, "unseen", 4.0).things)


def test_nothing_kept_back_is_in_any_training_scene() -> None:
    for seed in range(20_000):
        scene = make_scene(seed, "train", (0.0, 3.0, 5.0, 8.0)[seed % 4], (1.0, 1.78, 0.56)[seed % 3])
        for t in scene.things:
            assert (t.colour, t.shape) not in UNSEEN and (t.turned, t.shape) not in UNSEEN
            assert (t.colour, t.shape, t.motion) not in UNSEEN_TRIPLES
            assert t.shape not in NEW_SHAPES and t.motion not in NEW_MOTIONS


def test_triples_and_new_things_are_in_the_scenes_that_are_for_them() -> None:
    assert len(UNSEEN_TRIPLES) == 8 and not {(c, s) for c, s, _ in UNSEEN_TRIPLES} & UNSEEN
    for seed in range(1, 120, 2):
        things = make_scene(seed, "unseen", 5.0).things
        assert any((t.colour, t.shape, t.motion) in UNSEEN_TRIPLES for t in things)
        assert not any((t.colour, t.shape) in UNSEEN or (t.turned, t.shape) in UNSEEN for t in things)
    for duration in (0.0, 5.0):
        for seed in range(60):
            things = make_scene(seed, "new", duration).things
            assert any(t.shape in NEW_SHAPES or t.motion in NEW_MOTIONS for t in things)
            for split in ("test", "unseen"):
                things = make_scene(seed, split, duration).things  # type: ignore[arg-type]
                assert not any(t.shape in NEW_SHAPES or t.motion in NEW_MOTIONS for t in things)


def test_scenes_hold_one_to_four_things_some_with_a_pattern_some_filmed_with_a_camera_that_moves() -> None:
    scenes = [make_scene(seed, "train", 5.0) for seed in range(2000)]
    shares = [np.mean([len(s.things) == n for s in scenes]) for n in (1, 2, 3, 4)]
    assert shares == pytest.approx([0.2, 0.35, 0.33, 0.12], abs=0.04)
    assert np.mean([t.texture == "plain" for s in scenes for t in s.things]) == pytest.approx(0.8, abs=0.03)
    assert np.mean([s.camera.kind == "none" for s in scenes]) == pytest.approx(0.8, abs=0.03)
    assert all(make_scene(seed, "train", 0.0).camera.kind == "none" for seed in range(300))
    assert max(len(make_scene(seed, most=2).things) for seed in range(200)) == 2


def filmed(seed: int, kind: str) -> Scene:
    """A test scene with such a camera, the first from `seed` on."""
    return next(s for s in (make_scene(n, "test", 5.0, 1.5) for n in range(seed, 10_000)) if s.camera.kind == kind)


def middle(labels: np.ndarray, thing: int) -> np.ndarray:
    ys, xs = np.nonzero(labels == thing + 1)
    return np.array([xs.mean(), ys.mean()])


@pytest.mark.parametrize("kind", ["pan", "shake", "zoom"])
def test_a_camera_changes_pixels_but_no_answer(kind: str) -> None:
    ways = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}
    seen = 0
    for seed in range(0, 3000, 150):
        scene = filmed(seed, kind)
        first, last = render_labels(scene, [0.0, 4.99], 300, 450)
        for k, thing in enumerate(scene.things):
            for labels in render_labels(scene, list(np.linspace(0, 5, 11)), 300, 450):
                ys, xs = np.nonzero(labels == k + 1)
                assert not len(xs) or (xs.min() > 0 and xs.max() < 449 and ys.min() > 0 and ys.max() < 299)
            if thing.event is not None:
                continue
            moved = (middle(last, k) - middle(first, k)) / 300
            if thing.motion == "still":
                assert np.abs(moved).max() < 0.13  # the camera alone
            else:
                axis, sign = ways[thing.motion]
                assert moved[axis] * sign > 0.15
                seen += 1
    assert seen > 5


def test_the_text_stands_still_before_a_camera_that_moves_and_the_background_does_not() -> None:
    things = (Thing("star", "red", False, 0.09, 0.5, 0.4),)
    scene = Scene(1, "test", 4.0, 1.0, things, "teal", "stripes", "HI", False, Camera("pan", 0.06, 0.0))
    first, last = render(scene, [0.0, 4.0], 200, 200)
    white = [(frame[160:195] > 235).all(2) for frame in (first, last)]
    assert white[0].sum() > 50 and np.array_equal(*white)
    assert np.abs(first[:60].astype(int) - last[:60]).mean() > 2
    # the backdrop of the beginning, 12 pixels to the right
    assert np.abs(first[5:50, 20:150].astype(int) - last[5:50, 32:162]).mean() < 1.5


@pytest.mark.parametrize("texture", ["striped", "dotted"])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_pattern_is_seen_at_the_models_size_and_leaves_the_colour(texture: str, colour: str) -> None:
    for radius in (0.09, 0.16):
        things = (Thing("square", colour, radius > 0.1, radius, 0.5, 0.5, texture=texture),)
        scene = Scene(1, "test", 0.0, 1.0, things, "black", "plain")
        frame = render(scene, [0.0], 112, 112)[0].astype(float)
        inside = frame[render_labels(scene, [0.0], 112, 112)[0] == 1]
        light = inside.mean(1)
        assert (light > 0.85 * np.mean(RGB[colour])).mean() > 0.25  # the colour itself
        assert (light < 0.6 * np.mean(RGB[colour])).mean() > 0.1  # the marks
        nearest = min(COLOURS, key=lambda c: np.abs(np.median(inside[light > np.median(light)], 0) - RGB[c]).sum())
        assert nearest == colour


@pytest.mark.parametrize("seed", range(12))
def test_things_never_touch_nor_leave_the_picture(seed: int) -> None:
    scene = make_scene(seed, "train" if seed % 2 else "new", 6.0, 1.6)
    for time in np.linspace(0, 6, 25):
        labels = render_labels(scene, [time], 200, 320)[0]
        border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        assert not border.any()
        for i, a in enumerate(scene.things):
            for b in scene.things[i + 1 :]:
                (ax, ay), (bx, by) = a.place(time, 6.0), b.place(time, 6.0)
                assert np.hypot(ax - bx, ay - by) > a.radius + b.radius


def test_a_thing_has_its_colour_at_its_place_at_its_time() -> None:
    scene = scene_of(STAR, HEART, CIRCLE)
    frames = render(scene, [0.0, 5.0, 3.0, 3.4, 2.0, 2.2], 200, 200)

    def close(frame: int, x: float, y: float, colour: str) -> bool:
        return np.abs(frames[frame][round(y * 200), round(x * 200)].astype(int) - RGB[colour]).max() <= 15

    assert close(0, 0.25, 0.3, "red") and not close(0, 0.75, 0.3, "red")
    assert close(1, 0.75, 0.3, "red") and not close(1, 0.25, 0.3, "red")
    assert not close(2, 0.75, 0.75, "green") and close(3, 0.75, 0.75, "green")
    assert close(4, 0.3, 0.7, "white") and close(5, 0.3, 0.7, "blue")


def test_a_file_holds_what_was_drawn(tmp_path: Path) -> None:
    scene = scene_of(STAR, HEART, duration=4.0)
    path = encode_clip(scene, tmp_path / "clip.mp4", (128, 128), fps=10)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        pictures = [(float(f.time or 0), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    assert len(pictures) == 40
    assert [t for t, _ in pictures[:3]] == pytest.approx([0.0, 0.1, 0.2])
    for time, picture in pictures[::7]:
        x, y = STAR.place(time, 4.0)
        assert np.abs(picture[round(y * 128), round(x * 128)].astype(int) - RGB["red"]).max() < 45
    there = [np.abs(p[96, 96].astype(int) - RGB["green"]).max() < 45 for _, p in pictures]
    assert there == [i >= 32 for i in range(40)]  # it appears at 3.2 s, ten frames a second


def test_files_and_scenes_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="even"):
        encode_clip(make_scene(1), tmp_path / "a.mp4", (127, 127))
    with pytest.raises(FinetuneError, match="aspect"):
        encode_clip(make_scene(1), tmp_path / "a.mp4", (256, 128))
    with pytest.raises(FinetuneError, match="picture"):
        encode_clip(make_scene(1, duration=0), tmp_path / "a.mp4", (128, 128))
    with pytest.raises(FinetuneError, match="seconds"):
        make_scene(1, duration=1.0)
    with pytest.raises(FinetuneError, match="aspect"):
        make_scene(1, aspect=3.0)


def test_sampled_times_are_those_of_the_video_path(tmp_path: Path) -> None:
    from engine.video import Clip, Sampling, sample
    from finetune.nano.shape import SAMPLING

    sampling = Sampling(**SAMPLING)
    path = encode_clip(scene_of(STAR, duration=5.0), tmp_path / "clip.mp4", (112, 112), fps=24)
    frames = sample(Clip(path), sampling, cache=None)
    times, fps = sampled_times(5.0, 24, sampling)
    assert frames.times == pytest.approx(tuple(times), abs=1e-3)
    assert frames.fps == pytest.approx(fps)
    assert frames.tokens == (16,) * 10


def test_answers_of_a_scene_worked_out_by_hand() -> None:
    scene = scene_of(STAR, HEART, text="K7B")
    assert answers(scene, "count") == {"How many shapes are there?": "Two."}
    assert answers(scene, "colour")["What colour is the star?"] == "Red."
    assert answers(scene, "shape")["What shape is the green shape?"] == "Heart."
    assert answers(scene, "motion")["Which way does the star move?"] == "Right."
    assert answers(scene, "when")["When does the heart appear?"] == "At 0:03."
    assert answers(scene, "which")["Which shape appears?"] == "Green heart."
    assert answers(scene, "where") == dict.fromkeys(answers(scene, "where"), "Bottom right.")
    assert answers(scene, "text") == {"What does the text say?": "K7B"}
    assert answers(scene, "bigger") == dict.fromkeys(answers(scene, "bigger"), "Star.")
    assert answers(scene, "caption") == {
        "What happens in this video?": "A red star moves right and a green heart appears."
    }
    exists = answers(scene, "exists", 800)
    assert exists["Is there a red star?"] == "Yes." and exists["Is there a star?"] == "Yes."
    assert exists["Is there a green star?"] == "No." and exists["Is there a circle?"] == "No."


def test_answers_at_the_end_of_a_clip() -> None:
    gone = Thing("cross", "pink", True, 0.16, 0.7, 0.3, event="disappears", at=1.2)
    scene = scene_of(CIRCLE, gone)
    assert answers(scene, "count")["How many shapes are there?"] == "Two."
    assert answers(scene, "count_end") == {"How many shapes are there at the end?": "One."}
    assert answers(scene, "becomes") == {"What colour does the circle turn?": "Blue."}
    # A thing of two colours has no one colour, and is not called by either.
    assert not any("circle" in q and a in ("White.", "Blue.") for q, a in answers(scene, "colour").items())
    assert not any("white" in q or "blue" in q for q in answers(scene, "shape"))


def test_a_thing_is_never_named_ambiguously() -> None:
    red_star = Thing("star", "red", True, 0.16, 0.25, 0.3)
    blue_star = Thing("star", "blue", False, 0.09, 0.7, 0.7)
    for kind in ("colour", "size", "where", "motion", "event"):
        assert not any(" the star" in q for q in answers(scene_of(red_star, blue_star), kind))


RED_STAR = Thing("star", "red", True, 0.16, 0.2, 0.3, texture="striped")
BLUE_STAR = Thing("star", "blue", False, 0.09, 0.5, 0.3, event="disappears", at=1.2)
RED_CROSS = Thing("cross", "red", False, 0.09, 0.8, 0.35)
GREEN_HEART = Thing("heart", "green", False, 0.09, 0.8, 0.8, event="turns", at=3.1, turned="pink")
FOUR = (RED_STAR, BLUE_STAR, RED_CROSS, GREEN_HEART)


def test_answers_of_several_steps_worked_out_by_hand() -> None:
    scene = scene_of(*FOUR)
    assert answers(scene, "order") == {
        "What happens first?": "Blue star disappears.",
        "What happens last?": "Green heart turns pink.",
    }
    assert answers(scene, "texture", 900)["Is the red star plain, striped or dotted?"] == "Striped."
    assert answers(scene, "texture", 900)["Is the cross plain, striped or dotted?"] == "Plain."
    sums = answers(scene, "sum", 900)
    assert sums["How many stars and crosses are there together?"] == "Three."
    assert sums["How many red shapes and blue shapes are there together?"] == "Three."
    assert not any("green" in q or "pink" in q for q in sums)  # the heart has been both
    assert answers(scene, "after") == dict.fromkeys(answers(scene, "after"), "Three.")
    assert "How many shapes are left after the blue star disappears?" in answers(scene, "after")
    hops = answers(scene, "hop", 2000)
    assert hops["What shape is the shape that turns pink?"] == "Heart."
    assert hops["What colour is the shape that disappears?"] == "Blue."
    assert hops["What colour is the shape left of the blue star?"] == "Red."
    assert "What shape is the shape right of the blue star?" not in hops  # there are two
    more = answers(scene, "more", 900)
    assert more["Are there more stars or more crosses?"] == "Stars."
    assert more["Are there more blue shapes or more red shapes?"] == "Red."
    assert more["Are there more hearts or more crosses?"] == "Equal."


def test_events_of_one_second_have_no_order_and_later_ones_no_clear_after() -> None:
    soon = Thing("heart", "green", False, 0.09, 0.8, 0.8, event="appears", at=1.3)
    assert answers(scene_of(BLUE_STAR, soon), "order") == {}
    later = Thing("heart", "green", False, 0.09, 0.8, 0.8, event="appears", at=2.3)
    asked = answers(scene_of(BLUE_STAR, later), "after")
    assert asked and not any("disappears" in question for question in asked)


def test_a_box_is_that_of_what_is_drawn() -> None:
    height, found = 1200, 0
    for seed in range(60):
        scene = make_scene(seed, "new" if seed % 3 == 0 else "test", 0.0 if seed % 2 else 5.0, (1.0, 1.5)[seed % 4 > 1])
        width = round(height * scene.aspect)
        labels = render_labels(scene, [0.0], height, width)[0]
        for question, answer in answers(scene, "box").items():
            box = read_box(answer)
            assert box is not None and all(number % 10 == 0 for number in box)
            boxes = []
            for k in range(len(scene.things)):
                ys, xs = np.nonzero(labels == k + 1)
                if len(xs):
                    edges = (xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height)
                    boxes.append(np.abs(np.array(edges) * 1000 - box).max())
            assert min(boxes) < 5 + 2, question  # half of ten, and a pixel or two
            found += 1
    assert found > 30


def test_boxes_are_asked_only_of_what_rests_before_a_camera_that_rests() -> None:
    assert answers(scene_of(STAR, HEART, CIRCLE), "box") == {}
    still = Scene(1, "test", 4.0, 1.0, (RED_CROSS,), "black", "plain")
    assert answers(still, "box")["Where exactly is the cross?"].startswith("<|box_start|>[[7")
    assert answers(Scene(1, "test", 4.0, 1.0, (RED_CROSS,), "black", "plain", camera=Camera("pan", 0.05)), "box") == {}


def test_chinese_answers_worked_out_by_hand() -> None:
    scene = scene_of(*FOUR, text="K7B")

    def chinese(kind: str) -> dict[str, str]:
        return answers(scene, kind, 900, "zh")

    assert chinese("count") == {"有几个图形？": "四个。"}
    assert chinese("colour")["十字形是什么颜色？"] == "红色。"
    assert chinese("order")["最先发生了什么？"] == "蓝色星形消失。"
    assert chinese("hop")["变成粉色的图形是什么形状？"] == "心形。"
    assert chinese("sum")["星形和十字形一共有几个？"] == "三个。"
    assert chinese("text") == {"文字写的是什么？": "K7B"}
    assert chinese("when")["心形什么时候改变颜色？"] == "在0:03。"
    assert chinese("caption") == {
        "视频里发生了什么？": "红色星形不动，蓝色星形消失，红色十字形不动，绿色心形变成粉色。"
    }
    assert answers(scene_of(STAR, HEART), "motion", 200, "zh")["星形向哪个方向移动？"] == "向右。"


def test_chinese_answers_are_the_english_ones_one_to_one() -> None:
    """From the same random numbers comes the same question; every answer has one translation, in both directions."""
    to_chinese: dict[tuple[str, str], set[str]] = {}
    to_english: dict[tuple[str, str], set[str]] = {}
    for seed in range(400):
        scene = make_scene(seed, "new" if seed % 5 == 0 else "test", 5.0)
        for kind in VIDEO_KINDS:
            made = [ask(scene, random.Random(seed), kind, language=language) for language in ("en", "zh")]  # type: ignore[arg-type]
            assert (made[0] is None) == (made[1] is None)
            if made[0] is None or made[1] is None:
                continue
            english, chinese = made[0].answer, made[1].answer
            assert made[1].language == "zh"
            to_chinese.setdefault((kind, english), set()).add(chinese)
            to_english.setdefault((kind, chinese), set()).add(english)
            if kind in ("box", "text") and scene.text:
                assert english == chinese or kind == "box"
            # each colour of the one is named in the other, as often
            if kind in ("colour", "which", "list", "caption", "order"):
                for colour, word in phrases_zh.COLOURS.items():
                    assert english.lower().split().count(colour) + sum(
                        part.startswith(colour) and part != colour for part in english.lower().split()
                    ) == chinese.count(word), (english, chinese)
            if kind != "text":
                assert not any(letter.isascii() and letter.isalpha() for letter in chinese) or kind == "box"
    assert all(len(several) == 1 for several in (*to_chinese.values(), *to_english.values()))


def test_a_new_concept_has_answers() -> None:
    ring = Thing("ring", "red", True, 0.16, 0.3, 0.4)
    zigzag = Thing("star", "blue", False, 0.09, 0.75, 0.7, "zigzag", dy=-0.4, sway=0.11)
    scene = scene_of(ring, zigzag)
    assert answers(scene, "shape")["What shape is the red shape?"] == "Ring."
    assert answers(scene, "motion")["Which way does the star move?"] == "In a zigzag."
    assert answers(scene, "which")["Which shape moves in a zigzag?"] == "Blue star."
    assert answers(scene, "motion", 200, "zh")["星形向哪个方向移动？"] == "曲折。"
    labels = render_labels(scene, list(np.arange(10) / 2), 200, 200)
    xs = [middle(frame, 1)[0] / 200 for frame in labels]
    assert np.ptp(xs) > 0.15 and len(set(np.sign(np.diff(xs)))) > 1  # to and fro
    assert labels[0][80, 60] == 0 and labels[0][80, 60 + 23] == 1  # the ring has a hole


def test_questions_are_many_and_varied() -> None:
    asked = [q for seed in range(150) for q in draw(make_scene(seed), random.Random(seed), 12)]
    assert {q.kind for q in asked} == set(VIDEO_KINDS)
    assert len({q.text for q in asked if q.kind == "count"}) > 20
    assert all(q.answer and q.text for q in asked)


def test_small_talk_has_an_honest_answer() -> None:
    rng = random.Random(0)
    assert small_talk(rng, "foreign").answer == "I only know moving shapes."
    assert small_talk(rng, "no_clip", with_clip=False).answer == "Please add a clip first."
    assert small_talk(rng, "foreign", language="zh").answer == "我只认识会动的图形。"


def test_a_file_is_the_same_whatever_lies_in_memory(tmp_path: Path) -> None:
    rng = random.Random(0)
    scene = make_scene(random.Random("0-stage2.videos-0-0").getrandbits(44) + 2, "train", 4.0, 1.0)
    seen = set()
    for number in range(6):
        freed = [
            np.random.default_rng(number).integers(0, 255, rng.randrange(1000, 900_000), np.uint8) for _ in range(40)
        ]
        rng.shuffle(freed)
        del freed[:30]
        seen.add(encode_clip(scene, tmp_path / f"{number}.mp4", (224, 224), 25, 25).read_bytes())
    assert len(seen) == 1
