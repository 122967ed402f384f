"""Duplicates and contamination, against hashes and set arithmetic worked out independently."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from finetune.data.duplicates import Hashes, Index, _bands, decontaminate, duplicates, jaccard, one_bits
from finetune.data.items import Item, Medium
from finetune.errors import FinetuneError
from finetune.world.clips import encode_clip
from finetune.world.scene import make_scene
from tests.data.pictures import field, save


def hash_by_hand(picture: np.ndarray) -> frozenset[int]:
    """The perceptual hash from its definition: grey, 32×32, cosine transform both ways, the 8×8 lowest against their
    median."""
    grey = np.asarray(Image.fromarray(picture).convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    k, n = np.mgrid[0:32, 0:32]
    cosines = 2 * np.cos(np.pi * k * (2 * n + 1) / 64)
    low = (cosines @ grey @ cosines.T)[:8, :8]
    return frozenset(np.flatnonzero((low > np.median(low)).ravel()).tolist())


@pytest.mark.parametrize("seed", range(8))
def test_the_hash_is_the_perceptual_one(seed):
    picture = field(seed)
    bits = one_bits(picture)
    assert bits == hash_by_hand(picture)
    assert len(bits) == 32  # above the median of 64 lie 32


def test_jaccard_worked_by_hand():
    assert jaccard(frozenset({1, 2, 3}), frozenset({2, 3, 4})) == 0.5
    assert jaccard(frozenset({1, 2}), frozenset({1, 2})) == 1.0
    assert jaccard(frozenset({1}), frozenset({2})) == 0.0
    assert jaccard(frozenset(), frozenset()) == 0.0


def test_only_more_than_the_threshold_counts():
    """19 of 20 is 0.95 and not more; 20 of 21 is."""
    index: Index[str] = Index(0.95)
    index.add(frozenset(range(19)), "nineteen")
    index.add(frozenset(range(30, 50)), "twenty")
    assert index.find(frozenset(range(20))) == []
    assert index.find(frozenset(range(30, 51))) == ["twenty"]
    assert index.find(frozenset(range(19))) == ["nineteen"]


@pytest.mark.parametrize("seed", range(10))
def test_buckets_find_what_comparing_all_finds(seed):
    rng = np.random.default_rng(seed)
    base = [frozenset(rng.choice(64, 32, replace=False).tolist()) for _ in range(20)]
    near = [frozenset(list(bits)[1:]) for bits in base]  # 31 of 32: 0.969
    index: Index[int] = Index(0.95)
    for number, bits in enumerate(base):
        index.add(bits, number)
    for bits in near:
        truth = {number for number, other in enumerate(base) if jaccard(bits, other) > 0.95}
        assert set(index.find(bits)) == truth


def test_buckets_lose_almost_nothing_at_the_threshold():
    for threshold in (0.5, 0.7, 0.88, 0.95):
        bands, rows = _bands(threshold)
        assert bands * rows <= 128
        assert 1 - (1 - threshold**rows) ** bands >= 0.999
    with pytest.raises(FinetuneError):
        Index(0.2)
    with pytest.raises(FinetuneError):
        Index(float("nan"))


def image(name: str, text: str = "") -> Item:
    return Item(name, (Medium(name, "image"),), text)


def test_reencoded_pictures_go_and_others_stay(tmp_path):
    items, same = [], set()
    for seed in range(20):
        save(tmp_path / f"{seed:02}.png", field(seed))
        save(tmp_path / f"{seed:02}-again.jpg", field(seed), quality=90)
        items += [image(f"{seed:02}.png", "known"), image(f"{seed:02}-again.jpg")]
        again = np.asarray(Image.open(tmp_path / f"{seed:02}-again.jpg"))
        if hash_by_hand(again) == hash_by_hand(field(seed)):
            same.add(f"{seed:02}-again.jpg")
    kept, report = duplicates(items, Hashes(tmp_path))
    gone = {item.id for item in items} - {item.id for item in kept}
    assert gone == same
    assert len(same) >= 16  # JPEG turns a bit of the hash over now and then
    assert report.reasons["looks like another one"].count == len(same)
    assert report.came == 40 and report.made == len(kept) == 40 - len(same)
    # A lower threshold finds those with two bits of 32 changed, too.
    loose, _ = duplicates(items, Hashes(tmp_path), threshold=0.85)
    assert {item.id for item in loose} <= {item.id for item in kept}
    assert {f"{seed:02}.png" for seed in range(20)} <= {item.id for item in loose}


def test_of_two_alike_the_one_with_facts_stays_in_its_place(tmp_path):
    save(tmp_path / "a.png", field(1))
    save(tmp_path / "b.png", field(1))
    save(tmp_path / "c.png", field(2))
    kept, report = duplicates([image("c.png"), image("a.png"), image("b.png", "A caption.")], Hashes(tmp_path))
    assert [item.id for item in kept] == ["c.png", "b.png"]
    assert report.reasons["looks like another one"].examples == ["a.png: like b.png"]


def test_a_file_may_have_several_captions_but_none_twice(tmp_path):
    save(tmp_path / "a.png", field(1))
    medium = (Medium("a.png", "image"),)
    items = [Item("1", medium, "One."), Item("2", medium, "Two."), Item("3", medium, "one. ")]
    kept, report = duplicates(items, Hashes(tmp_path))
    assert [item.id for item in kept] == ["1", "2"]
    assert report.reasons["the same was there before"].examples == ["3: as 1"]


def test_pure_texts_and_unreadable_media(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    items = [Item("a", text="Some text."), Item("b", text="some  TEXT."), image("broken.png"), image("missing.png")]
    kept, report = duplicates(items, Hashes(tmp_path))
    assert [item.id for item in kept] == ["a"]
    assert report.reasons["a medium cannot be read"].count == 2


def test_even_fields_are_like_nothing(tmp_path):
    for name, value in (("black.png", 0), ("white.png", 255), ("grey.png", 128)):
        save(tmp_path / name, np.full((40, 40, 3), value, np.uint8))
    kept, report = duplicates([image("black.png"), image("white.png"), image("grey.png")], Hashes(tmp_path))
    assert len(kept) == 3
    assert "3 media show an even field" in report.notes[0]


def test_a_video_coded_anew_goes_and_another_stays(tmp_path):
    for name, seed, crf in (("a.mp4", 7, 23), ("b.mp4", 7, 30), ("c.mp4", 8, 23)):
        encode_clip(make_scene(seed, "train", 2.0), tmp_path / name, (160, 160), fps=10, crf=crf)
    videos = [Item(name, (Medium(name, "video"),)) for name in ("a.mp4", "b.mp4", "c.mp4")]
    kept, _ = duplicates(videos, Hashes(tmp_path))
    assert [item.id for item in kept] == ["a.mp4", "c.mp4"]


def test_one_matching_picture_of_several_is_contamination(tmp_path):
    for seed in range(5):
        save(tmp_path / "data" / f"{seed}.png", field(seed))
    save(tmp_path / "benchmark" / "deep" / "x.png", field(3))
    (tmp_path / "benchmark" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    both = Item("both", (Medium("1.png", "image"), Medium("3.png", "image")))
    clean = Item("clean", (Medium("0.png", "image"), Medium("2.png", "image")))
    kept, report = decontaminate(
        [both, clean, Item("words", text="x")], Hashes(tmp_path / "data"), [tmp_path / "benchmark"]
    )
    assert [item.id for item in kept] == ["clean", "words"]
    assert report.reasons["shows what a benchmark shows"].examples == ["both: like benchmark/deep/x.png"]
    assert any("1 media of benchmark cannot be read" in note for note in report.notes)


def test_a_frame_of_a_video_is_contamination_too(tmp_path):
    data, benchmark = tmp_path / "data", tmp_path / "benchmark"
    data.mkdir()
    benchmark.mkdir()
    encode_clip(make_scene(7, "train", 2.0), data / "a.mp4", (160, 160), fps=10)
    encode_clip(make_scene(8, "train", 2.0), data / "c.mp4", (160, 160), fps=10)
    encode_clip(make_scene(7, "train", 2.0), benchmark / "test.mp4", (160, 160), fps=10, crf=30)
    videos = [Item(name, (Medium(name, "video"),)) for name in ("a.mp4", "c.mp4")]
    kept, _ = decontaminate(videos, Hashes(data), [benchmark])
    assert [item.id for item in kept] == ["c.mp4"]


def test_a_benchmark_without_media_is_told(tmp_path):
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(FinetuneError):
            decontaminate([], Hashes(tmp_path), [folder])
