"""Shuffled frames and related videos: the answers are checked against what the files show."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from finetune.data.items import Item, Medium
from finetune.data.order import FRAMES, groups_of, related, reorder
from finetune.data.rowfile import to_row, with_frame_limits
from finetune.errors import FinetuneError
from tests.media import index_of, make_clip


def video(name, **facts):
    return Item(name, (Medium(name, "video"),), **facts)


def test_the_answer_is_the_true_order(tmp_path):
    out = tmp_path / "out"
    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b.mp4"):
        make_clip(tmp_path / "in" / name, frames=60, size=(160, 160))  # every frame carries its number
    items = [video("a.mp4"), video("b.mp4"), video("a.mp4", text="the same file again")]
    made, report = reorder(items, tmp_path / "in", out)
    assert len(made) == 2 and report.came == 2
    for example in made:
        row = to_row(example)
        shown = [index_of(np.asarray(Image.open(out / name))) for name in row["images"]]
        answer = [int(number) for number in row["messages"][1]["content"].split(", ")]
        assert sorted(answer) == [1, 2, 3, 4, 5, 6]
        in_order = [shown[number - 1] for number in answer]
        assert in_order == [5, 15, 25, 35, 45, 55]  # the middle of each sixth
        assert row["messages"][0]["content"].startswith("Frame 1: <image>\nFrame 2: <image>\n")
    again, _ = reorder(items, tmp_path / "in", out)
    assert again == made
    other, _ = reorder(items, tmp_path / "in", out, seed=1)
    assert [example.turns[1] for example in other] != [example.turns[1] for example in made]


def test_videos_without_one_order_are_told(tmp_path):
    make_clip(tmp_path / "still.mp4", frames=30, colour=lambda index: (16, 16, 16))
    make_clip(tmp_path / "short.mp4", frames=FRAMES - 1)
    (tmp_path / "broken.mp4").write_bytes(b"x")
    made, report = reorder([video(f"{name}.mp4") for name in ("still", "short", "broken")], tmp_path, tmp_path / "out")
    assert made == []
    assert {why: reason.examples[0][:5] for why, reason in report.reasons.items()} == {
        "frames of a video look alike": "still",
        "a video has fewer than 6 frames": "short",
        "a video cannot be read": "broke",
    }


def test_the_related_video_shares_a_group_and_the_others_do_not():
    items = [video(f"{folder}/{at}.mp4") for folder in ("cats", "dogs", "cars") for at in range(3)]
    items += [video("x.mp4", tags=("red",)), video("y.mp4", tags=("red", "fast")), video("z.mp4")]
    made, report = related(items, candidates=4)
    assert len(made) == 11  # z shares nothing
    assert report.reasons["no other video shares a group with it"].examples == ["z.mp4"]
    groups = {item.id: groups_of(item) for item in items}
    for example in made:
        row = to_row(example)
        paths = [path.removeprefix("media/") for path in row["videos"]]
        shown, choices = paths[:-4], paths[-4:]
        right = choices["ABCD".index(row["messages"][1]["content"])]
        assert len(set(paths)) == len(paths)
        assert set.intersection(*(set(groups[path]) for path in [*shown, right]))
        for path in set(choices) - {right}:
            assert not groups[path] & set().union(*(groups[one] for one in [*shown, right]))
        assert row["messages"][0]["content"].count("<video>") == len(paths)


def test_too_few_strangers_are_told():
    made, report = related([video("a/1.mp4"), video("a/2.mp4"), video("b/1.mp4")], candidates=3)
    assert made == []
    assert report.reasons["fewer than 2 videos of other groups are there"].count == 2
    with pytest.raises(FinetuneError):
        related([], candidates=1)


def test_rows_with_videos_are_used_once_for_each_limit():
    items = [video("a/1.mp4"), video("a/2.mp4"), video("b/1.mp4"), video("b/2.mp4")]
    made, _ = related(items, candidates=2)
    twice = [to_row(example) for example in with_frame_limits(made, (16, 32))]
    assert len(twice) == 2 * len(made)
    assert [{entry["max_frames"] for entry in row["videos"]} for row in twice[:2]] == [{16}, {32}]
    assert twice[0]["messages"] == twice[1]["messages"]
    assert with_frame_limits(made, ()) == made
