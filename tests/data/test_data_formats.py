"""The published formats: table 1 of the technical report and the clip times of 1.5, written out by hand."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.formats import (
    Boxes,
    ClipTime,
    Points,
    Polygons,
    Reading,
    clockwise,
    read,
    read_all,
    to_grid,
    write,
)
from finetune.errors import FinetuneError

PUBLISHED = [
    (Points(((1, 2), (30, 999))), "<|point_start|>[[1, 2], [30, 999]]<|point_end|>"),
    (Boxes(((0, 0, 10, 20),)), "<|box_start|>[[0, 0, 10, 20]]<|box_end|>"),
    (
        Boxes(((5, 6, 7, 8), (9, 10, 11, 12)), "a red car"),
        "<|object_ref_start|>a red car<|object_ref_end|><|box_start|>[[5, 6, 7, 8], [9, 10, 11, 12]]<|box_end|>",
    ),
    (
        Polygons((((0, 0), (10, 0), (10, 10)),)),
        "<|polygon_start|>[[[0, 0], [10, 0], [10, 10]]]<|polygon_end|>",
    ),
    (
        Reading("出口 EXIT", ((1, 2, 3, 4),)),
        "<|ocr_text_start|>出口 EXIT<|ocr_text_end|><|box_start|>[[1, 2, 3, 4]]<|box_end|>",
    ),
    (Reading("GO"), "<|ocr_text_start|>GO<|ocr_text_end|>"),
    (ClipTime(0.5, 12.0, "a dog barks"), "<|clip_time_start|>[0.5, 12.0]<|clip_time_end|> a dog barks"),
    (ClipTime(3.0, 3.0), "<|clip_time_start|>[3.0, 3.0]<|clip_time_end|>"),
    (
        ClipTime(1.0, 2.0, Reading("GO")),
        "<|clip_time_start|>[1.0, 2.0]<|clip_time_end|> <|ocr_text_start|>GO<|ocr_text_end|>",
    ),
]


@pytest.mark.parametrize(("mark", "text"), PUBLISHED)
def test_as_published_both_ways(mark, text):
    assert write(mark) == text
    assert read(text) == mark


WORDS = st.text(min_size=1, max_size=30).filter(
    lambda text: text == text.strip() and "<|" not in text and "|>" not in text and "\n" not in text
)
NUMBER = st.integers(0, 999)
POINT = st.tuples(NUMBER, NUMBER)
BOX = st.tuples(NUMBER, NUMBER, NUMBER, NUMBER).map(
    lambda box: (min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3]))
)
NAME = st.one_of(st.just(""), WORDS)
TENTHS = st.tuples(st.integers(0, 99999), st.integers(0, 99999)).map(lambda pair: sorted(n / 10 for n in pair))


def several(one, least=1):
    return st.lists(one, min_size=least, max_size=5).map(tuple)


MARK = st.one_of(
    st.builds(Points, several(POINT), NAME),
    st.builds(Boxes, several(BOX), NAME),
    st.builds(Polygons, several(several(POINT, 3)), NAME),
    st.builds(Reading, WORDS, st.one_of(st.just(()), several(BOX))),
    st.builds(lambda times, text: ClipTime(times[0], times[1], text), TENTHS, st.one_of(st.just(""), WORDS)),
)


@settings(max_examples=200, deadline=None)
@given(MARK)
def test_what_is_written_is_read_back(mark):
    assert read(write(mark)) == mark


@settings(max_examples=50, deadline=None)
@given(st.lists(MARK, min_size=1, max_size=4))
def test_several_stand_on_lines(marks):
    lines = [write(mark) for mark in marks]
    if all(len(line.splitlines()) == 1 for line in lines):
        assert read_all("\n".join(lines)) == marks


@settings(max_examples=300, deadline=None)
@given(MARK, st.data())
def test_a_damaged_text_is_never_misread_silently(mark, data):
    """Take one character away: the rest is either refused, or written anew gives the same text, but for the blank
    after a comma and the zeros of whole seconds."""
    text = write(mark)
    at = data.draw(st.integers(0, len(text) - 1))
    broken = text[:at] + text[at + 1 :]
    found = read(broken)
    if found is not None:
        again, there = (re.sub(r"\.0+(?=[],])", "", t.replace(", ", ",")) for t in (write(found), broken))
        assert again == there


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[1, 2]]",
        "<|point_start|>[]<|point_end|>",
        "<|point_start|>[[1, 1000]]<|point_end|>",
        "<|point_start|>[[01, 2]]<|point_end|>",
        "<|point_start|>[[-1, 2]]<|point_end|>",
        "<|point_start|>[[1.0, 2]]<|point_end|>",
        "<|point_start|>[[1, 2]]<|point_end|> and more",
        "<|point_start|>[[1, 2]]<|box_end|>",
        "<|point_start|>[[__import__('os'), 2]]<|point_end|>",
        "<|point_start|>[[١, 2]]<|point_end|>",
        "<|box_start|>[[9, 0, 1, 5]]<|box_end|>",
        "<|box_start|>[[1, 2, 3]]<|box_end|>",
        "<|polygon_start|>[[[0, 0], [1, 1]]]<|polygon_end|>",
        "<|object_ref_start|><|object_ref_end|><|point_start|>[[1, 2]]<|point_end|>",
        "<|object_ref_start|>a<|im_end|>b<|object_ref_end|><|point_start|>[[1, 2]]<|point_end|>",
        "<|ocr_text_start|>a<|im_end|><|ocr_text_end|>",
        "<|ocr_text_start|> <|ocr_text_end|>",
        "<|clip_time_start|>[5, 2]<|clip_time_end|> backwards",
        "<|clip_time_start|>[nan, 2]<|clip_time_end|>",
        "<|clip_time_start|>[1, 2]<|clip_time_end|> <|im_start|>",
        "<|point_start|>" + "[" * 90_000,
        "<|point_start|>[" + "[1, 2], " * 12_000 + "<|point_end|>",
        "<|ocr_text_start|>" * 5000,
        "x" * 200_000,
    ],
)
def test_anything_else_is_nothing(text):
    assert read(text) is None
    assert read_all(text) is None


@pytest.mark.parametrize(
    "mark",
    [
        Points(()),
        Points(((1, 1000),)),
        Boxes(((5, 0, 4, 9),)),
        Polygons((((0, 0), (1, 1)),)),
        Boxes(((1, 2, 3, 4),), "a<|im_end|>"),
        Boxes(((1, 2, 3, 4),), "two\nlines"),
        Reading(""),
        ClipTime(2.0, 1.0),
        ClipTime(float("nan"), 1.0),
    ],
)
def test_what_has_no_published_form_is_not_written(mark):
    with pytest.raises(FinetuneError):
        write(mark)


def test_the_grid_has_a_thousand_cells():
    assert [to_grid(share) for share in (0.0, 0.0009, 0.001, 0.5, 0.9999, 1.0)] == [0, 0, 1, 500, 999, 999]
    for number in range(1000):
        assert to_grid((number + 0.5) / 1000) == number


def test_clockwise_as_seen():
    seen_clockwise = ((0, 0), (10, 0), (10, 10), (0, 10))  # top left, top right, bottom right, bottom left
    assert clockwise(seen_clockwise) == seen_clockwise
    assert clockwise(((0, 0), (0, 10), (10, 10), (10, 0))) == seen_clockwise
