"""Rows that point, from instances as COCO has them; the coordinates are worked by hand."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.formats import Boxes, Points, Polygons, read
from finetune.data.grounding import MOST_SHAPES, grounding
from finetune.data.items import Item, Medium, read_facts


def item_of(facts, problems=None):
    told = problems.append if problems is not None else lambda problem: None
    return read_facts(Item("a.png", (Medium("a.png", "image"),)), facts, told)


def answers(item):
    made, _ = grounding([item])
    return [(example.turns[0].parts[1], example.turns[1].parts[0]) for example in made]


def test_boxes_points_polygons_and_counts():
    item = item_of(
        {
            "width": 200,
            "height": 100,
            "objects": [
                {"name": "car", "bbox": [20, 50, 100, 25]},
                {"name": "car", "bbox": [0, 0, 200, 100]},
                {"name": "dog", "point": [199.9, 50]},
                {"name": "roof", "segmentation": [[0, 0, 0, 50, 100, 50]]},  # given against the clock
            ],
        }
    )
    found = [answer for _, answer in answers(item)]
    assert found == [
        "<|object_ref_start|>car<|object_ref_end|><|box_start|>[[0, 0, 999, 999], [100, 500, 600, 750]]<|box_end|>",
        "2",
        "<|object_ref_start|>dog<|object_ref_end|><|point_start|>[[999, 500]]<|point_end|>",
        "1",
        "<|object_ref_start|>roof<|object_ref_end|><|polygon_start|>[[[0, 0], [500, 500], [0, 500]]]<|polygon_end|>",
        "1",
    ]
    assert all("car" in question for question, _ in answers(item)[:2])


def test_an_instance_in_two_pieces_counts_once_and_a_crowd_not_at_all():
    pieces = [[0, 0, 10, 0, 10, 10], [50, 50, 60, 50, 60, 60]]
    item = item_of(
        {
            "width": 100,
            "height": 100,
            "objects": [
                {"name": "cat", "segmentation": pieces, "bbox": [0, 0, 60, 60]},
                {"name": "hair", "segmentation": {"counts": "abc", "size": [9, 9]}},
                {"name": "person", "bbox": [0, 0, 5, 5]},
                {"name": "person", "bbox": [0, 0, 50, 50], "iscrowd": 1},
            ],
        }
    )
    assert dict(item.counts) == {"cat": 1, "hair": 1}
    counted = [answer for _, answer in answers(item) if answer.isdigit()]
    assert counted == ["1", "1"]


def test_what_makes_no_sense_is_told():
    problems: list[str] = []
    item = item_of(
        {
            "width": 100,
            "height": 100,
            "objects": [
                {"name": "a", "bbox": [0, 0, -5, 5]},
                {"name": "b", "bbox": [0, 0, 500, 5]},
                {"name": "c", "point": [1, 2, 3]},
                {"name": "d", "segmentation": [[1, 2, 3]]},
                {"name": 7, "bbox": [0, 0, 5, 5]},
                "no object",
                {"name": "e", "bbox": [0, 0, float("nan"), 5]},
                {"name": "f", "bbox": [0, 0, 10**400, 5]},
            ],
        },
        problems,
    )
    assert item.regions == ()
    assert len(problems) >= 7
    problems.clear()
    assert item_of({"objects": [{"name": "a", "bbox": [0, 0, 5, 5]}]}, problems).regions == ()
    assert problems == ["objects lack the width and height of their picture"]


def test_a_name_cannot_break_out_of_its_marks():
    item = item_of({"width": 9, "height": 9, "objects": [{"name": "x<|im_end|>", "bbox": [0, 0, 5, 5]}]})
    made, report = grounding([item])
    assert made == [] and report.left_out == 1
    braces = item_of({"width": 9, "height": 9, "objects": [{"name": "{name} {0}", "bbox": [0, 0, 5, 5]}]})
    assert len(answers(braces)) == 2


def test_too_many_are_counted_only():
    many = [{"name": "leaf", "point": [at, at]} for at in range(MOST_SHAPES + 1)]
    found = answers(item_of({"width": 99, "height": 99, "objects": many}))
    assert [answer for _, answer in found] == [str(MOST_SHAPES + 1)]


SIZE = st.integers(1, 5000)


@settings(max_examples=100, deadline=None)
@given(SIZE, SIZE, st.data())
def test_any_instances_give_answers_that_read_back(width, height, data):
    x, y = st.floats(0, width), st.floats(0, height)
    boxes = st.tuples(x, y, x, y).map(
        lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(abs(c[0] - c[2]), 1e-3), max(abs(c[1] - c[3]), 1e-3)]
    )
    rings = st.lists(st.tuples(x, y), min_size=3, max_size=6).map(lambda ring: [[n for xy in ring for n in xy]])
    shapes = st.one_of(
        st.fixed_dictionaries({"name": st.just("it"), "bbox": boxes}),
        st.fixed_dictionaries({"name": st.just("it"), "point": st.tuples(x, y).map(list)}),
        st.fixed_dictionaries({"name": st.just("it"), "segmentation": rings}),
    )
    objects = data.draw(st.lists(shapes, min_size=1, max_size=5))
    facts = json.loads(json.dumps({"width": width, "height": height, "objects": objects}))
    for _, answer in answers(item_of(facts)):
        if answer.isdigit():
            assert int(answer) == len(objects)
        else:
            assert isinstance(read(answer), Points | Boxes | Polygons)
