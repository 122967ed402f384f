"""The split: by content alone, or by hand, and never with a clip and its copy on two sides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.feedback.splits import edge_of, look, set_share, set_side, share, sides, split_of
from tests.finetune.collected import Collected

DEMOS = sorted((Path(__file__).resolve().parents[2] / "assets" / "demo").glob("*.mp4"))


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collected]:
    made = Collected(tmp_path)
    yield made
    made.store.close()


def copied(source: Path, target: Path) -> Path:
    """The same pictures in another file: its packets in another container."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        out = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.stream = out
                new.mux(packet)
    return target


@given(st.integers(0, 2**256 - 1), st.floats(0, 1))
def test_the_rule_is_the_hash_as_a_number_below_the_share(number: int, part: float) -> None:
    held_out = f"{number:064x}" < edge_of(part)
    if abs(number / 2**256 - part) > 2**-31:
        assert held_out == (number / 2**256 < part)
    assert f"{number:064x}" < edge_of(1.0) and not f"{number:064x}" < edge_of(0.0)


def test_sides_by_the_rule_by_hand_and_by_the_rule_again(made: Collected) -> None:
    low, high = made.bare("3"), made.bare("4")  # 0.1875 and 0.25
    assert share(made.store) == 0.2
    assert [split_of(made.store, sha) for sha in (low, high)] == ["held_out", "train"]
    set_share(made.store, 0.26)
    assert [split_of(made.store, sha) for sha in (low, high)] == ["held_out", "held_out"]
    set_share(made.store, 0.0)
    assert sides(made.store) == {"train": 2, "held_out": 0}
    assert set_side(made.store, low, "held_out") == 1
    assert [split_of(made.store, sha) for sha in (low, high)] == ["held_out", "train"]
    set_side(made.store, low, None)
    assert split_of(made.store, low) == "train"
    with pytest.raises(FinetuneError, match="0 to 1"):
        set_share(made.store, 1.5)
    with pytest.raises(FinetuneError, match="no longer kept"):
        set_side(made.store, "e" * 64, "train")


def test_a_copy_is_on_the_side_of_the_first_and_moves_with_it(made: Collected, tmp_path: Path) -> None:
    first = made.video(DEMOS[0])
    assert look(made.store) == 0
    copy = made.video(copied(DEMOS[0], tmp_path / "copy.mkv"))
    other = made.video(DEMOS[1])
    assert len({first, copy, other}) == 3
    for part in (0.0, 0.2, 0.5, 0.8, 1.0):
        set_share(made.store, part)
        assert split_of(made.store, copy) == split_of(made.store, first)  # the copy is looked at when it is asked for
        number = int(first, 16) / 2**256
        assert split_of(made.store, first) == ("held_out" if number < part else "train")
    assert set_side(made.store, copy, "train") == 2
    assert split_of(made.store, first) == "train"
    set_share(made.store, 0.0)
    set_side(made.store, other, "held_out")
    assert [split_of(made.store, sha) for sha in (first, copy, other)] == ["train", "train", "held_out"]


def test_a_video_put_on_a_side_before_it_was_looked_at_stays_there_alone(made: Collected) -> None:
    sha = made.video(DEMOS[0])
    set_share(made.store, 0.0)
    set_side(made.store, sha, "held_out")
    look(made.store)
    assert split_of(made.store, sha) == "held_out"
