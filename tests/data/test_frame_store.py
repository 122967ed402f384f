"""Decoded clips on disk: the same frames again, under limits, among several processes, on a full disk."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import engine.video.sampler as sampler
from engine.video import PRESETS, Clip, Frames, sample, sampling_for
from finetune.data.cache import FrameStore
from tests.data.conftest import NANO, ROOT

SAMPLING = sampling_for(NANO)


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return FrameStore(tmp_path / "frames")


def same(one: Frames, other: Frames) -> bool:
    pictures = zip(one.images, other.images, strict=True)
    return (
        all(np.array_equal(a, b) for a, b in pictures)
        and (one.times, one.kinds, one.fps) == (other.times, other.kinds, other.fps)
        and (one.notes, one.clip) == (other.notes, other.clip)
        and one.info == other.info
        and np.array_equal(one.info.frame_times, other.info.frame_times)
        and np.array_equal(one.info.key_times, other.info.key_times)
        and one.sampling == other.sampling
    )  # fmt: skip


@pytest.mark.parametrize("preset", [SAMPLING, replace(PRESETS["keye-vl-1.5"], min_frame_similarity=0.999)])
def test_the_same_frames_come_back_without_decoding(
    store: FrameStore, folder: Path, preset: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Clip(folder / "a.mp4", 0.5, 3.0)
    decoded = sample(clip, preset, cache=store)  # type: ignore[arg-type]
    assert (store.hits, store.misses) == (0, 1)
    monkeypatch.setattr(sampler, "frames_at", None)  # nothing can be decoded from here on
    monkeypatch.setattr(sampler, "probe", None)
    again = sample(clip, preset, cache=store)  # type: ignore[arg-type]
    assert (store.hits, store.misses) == (1, 1)
    assert same(decoded, again)
    base = again.images[0]
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)  # mapped, not read
    with pytest.raises(ValueError, match="read-only"):
        again.images[0][0, 0, 0] = 1


def test_what_frames_depend_on(store: FrameStore, folder: Path) -> None:
    one = folder / "a.mp4"
    sample(Clip(one), SAMPLING, cache=store)
    for clip, sampling in (
        (Clip(one, 0.5), SAMPLING),
        (Clip(one, None, 2.0), SAMPLING),
        (Clip(one), SAMPLING.with_limits(fps=1)),
        (Clip(folder / "b.mp4"), SAMPLING),
    ):
        sample(clip, sampling, cache=store)
    assert (store.hits, store.misses) == (0, 5)
    shutil.copy(one, folder / "copy.mp4")  # another name, the same content
    frames = sample(Clip(folder / "copy.mp4"), SAMPLING, cache=FrameStore(store.folder))
    assert frames.clip.path.name == "copy.mp4"
    assert len(list(store.folder.glob("*.npy"))) == 5
    shutil.copy(folder / "b.mp4", one)  # the same name, another content
    os.utime(one, (1, 1))
    changed = sample(Clip(one), SAMPLING, cache=FrameStore(store.folder))
    assert same(changed, replace(sample(Clip(folder / "b.mp4"), SAMPLING, cache=None), clip=changed.clip,
                                 info=replace(changed.info)))  # fmt: skip


def test_the_least_recently_used_go_first(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "frames"
    clips = [Clip(folder / "a.mp4", i / 10) for i in range(6)]
    sizes = [sum(image.nbytes for image in sample(clip, SAMPLING, cache=None).images) for clip in clips]
    store = FrameStore(place, max_bytes=sum(sizes[:4]) + sizes[4] // 2)
    now = time.time()
    for i, clip in enumerate(clips[:4]):
        sample(clip, SAMPLING, cache=store)
        for path in place.glob("*.json"):
            if path.stat().st_mtime > now - 50:
                os.utime(path, (now - 1000 + i, now - 1000 + i))
    sample(clips[0], SAMPLING, cache=store)  # used again: now the newest
    sample(clips[4], SAMPLING, cache=store)
    assert sum(path.stat().st_size for path in place.glob("*.npy")) <= store.max_bytes
    store.hits = store.misses = 0
    sample(clips[0], SAMPLING, cache=store)
    sample(clips[4], SAMPLING, cache=store)
    assert store.hits == 2
    sample(clips[1], SAMPLING, cache=store)
    assert store.misses == 1  # the one used longest ago was deleted


def test_a_clip_larger_than_the_store_is_not_kept(folder: Path, tmp_path: Path) -> None:
    store = FrameStore(tmp_path / "frames", max_bytes=1000)
    sample(Clip(folder / "a.mp4"), SAMPLING, cache=store)
    assert not list((tmp_path / "frames").glob("*.npy"))


@pytest.mark.parametrize("damage", ["npy", "json", "cut", "gone"])
def test_what_is_damaged_is_decoded_again(store: FrameStore, folder: Path, damage: str) -> None:
    decoded = sample(Clip(folder / "a.mp4"), SAMPLING, cache=store)
    npy, told = next(store.folder.glob("*.npy")), next(store.folder.glob("*.json"))
    if damage == "gone":
        npy.unlink()
    elif damage == "cut":
        npy.write_bytes(npy.read_bytes()[:-1000])
    else:
        (npy if damage == "npy" else told).write_bytes(b"not what it was")
    assert same(decoded, sample(Clip(folder / "a.mp4"), SAMPLING, cache=store))
    assert store.misses == 2
    assert same(decoded, sample(Clip(folder / "a.mp4"), SAMPLING, cache=store))
    assert store.hits == 1  # and mended


def test_a_full_disk_costs_time_only(store: FrameStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    frames = sample(Clip(folder / "a.mp4"), SAMPLING, cache=store)
    assert frames.images
    assert not list(store.folder.iterdir())  # nothing half written is left


def test_frames_stay_readable_when_they_are_deleted(store: FrameStore, folder: Path) -> None:
    decoded = sample(Clip(folder / "a.mp4"), SAMPLING, cache=store)
    mapped = sample(Clip(folder / "a.mp4"), SAMPLING, cache=store)
    shutil.rmtree(store.folder)
    assert same(decoded, mapped)


_WORKER = """
import sys
from pathlib import Path
from engine.video import Clip, sample, sampling_for
from finetune.data.cache import FrameStore
store = FrameStore(Path(sys.argv[1]), max_bytes=int(sys.argv[3]))
for turn in range(2):
    for i in range(5):
        frames = sample(Clip(Path(sys.argv[2]), i / 10), sampling_for(sys.argv[4]), cache=store)
        assert all(image.any() for image in frames.images)
print(sum(int(image.sum()) for image in frames.images))
"""


def test_processes_share_a_store_that_is_too_small_for_them(folder: Path, tmp_path: Path) -> None:
    """Each writes, reads and deletes what the others use; what they get is always whole."""
    clip = folder / "a.mp4"
    last = sample(Clip(clip, 0.4), SAMPLING, cache=None)
    size = sum(image.nbytes for image in last.images)
    place = tmp_path / "frames"
    command = [sys.executable, "-c", _WORKER, str(place), str(clip), str(size * 3), str(NANO)]
    workers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        out, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0
        assert int(out) == sum(int(image.sum()) for image in last.images)
    assert not list(place.glob("*.part"))
    for told in place.glob("*.json"):
        assert told.with_suffix(".npy").exists()
