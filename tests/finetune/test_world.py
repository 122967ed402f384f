"""The world's truth against its pixels, its questions against hand-made scenes, its files against their pictures."""

from __future__ import annotations

import random
from pathlib import Path

import av
import numpy as np
import pytest

from finetune.errors import FinetuneError
from finetune.world.clips import encode_clip, sampled_times
from finetune.world.questions import VIDEO_KINDS, ask, draw, small_talk
from finetune.world.render import RGB, render, render_labels
from finetune.world.scene import UNSEEN, Scene, Thing, make_scene


def scene_of(*things: Thing, text: str = "", duration: float = 5.0, aspect: float = 1.0) -> Scene:
    return Scene(1, "test", duration, aspect, things, "black", "plain", text)


STAR = Thing("star", "red", True, 0.16, 0.25, 0.3, "right", dx=0.5)
HEART = Thing("heart", "green", False, 0.09, 0.75, 0.75, event="appears", at=3.2)
CIRCLE = Thing("circle", "white", False, 0.09, 0.3, 0.7, event="turns", at=2.1, turned="blue")


def answers(scene: Scene, kind: str, tries: int = 200) -> dict[str, str]:
    """Every question of a kind that a scene gives in its plain wording, with its answer."""
    rng = random.Random(0)
    made = [ask(scene, rng, kind, plain=True) for _ in range(tries)]
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


@pytest.mark.parametrize("seed", range(12))
def test_things_never_touch_nor_leave_the_picture(seed: int) -> None:
    scene = make_scene(seed, "train", 6.0, 1.6)
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
    from finetune.shape import SAMPLING

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


def test_questions_are_many_and_varied() -> None:
    asked = [q for seed in range(150) for q in draw(make_scene(seed), random.Random(seed), 12)]
    assert {q.kind for q in asked} == set(VIDEO_KINDS)
    assert len({q.text for q in asked if q.kind == "count"}) > 20
    assert all(q.answer and q.text for q in asked)


def test_small_talk_has_an_honest_answer() -> None:
    rng = random.Random(0)
    assert small_talk(rng, "foreign").answer == "I only know moving shapes."
    assert small_talk(rng, "no_clip", with_clip=False).answer == "Please add a clip first."
