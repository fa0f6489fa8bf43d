"""Names of points are read as the names of their own points."""

from __future__ import annotations

import itertools

import pytest

from transferkit.report.labels import Box, choose_places, text_box

# There is no room above the highest point, and a line runs to it.
FRAME, LINE = Box(0, 0, 300, 112), Box(100, 96, 280, 98)


def boxes(names: list[str], spots: list[tuple[float, float]]) -> list[Box]:
    marks = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in spots]
    places = choose_places(names, spots, [*marks, LINE], FRAME)
    return [text_box(name, spot, place) for name, spot, place in zip(names, spots, places, strict=True)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_no_other_point_is_nearer_to_a_name(order: tuple[int, ...]) -> None:
    spots = [[(280.0, 100.0), (280.0, 94.0), (240.0, 92.0)][index] for index in order]
    names = [["full", "scratch", "bottleneck"][index] for index in order]
    for own, box in zip(spots, boxes(names, spots), strict=True):
        assert box.distance(own) == min(map(box.distance, spots))


def test_names_of_points_in_one_place_do_not_cover_each_other() -> None:
    first, second = boxes(["full", "lora"], [(100.0, 50.0)] * 2)
    assert first.overlap(second) == 0


def test_a_distance_is_to_the_nearest_edge() -> None:
    box = Box(0, 0, 4, 2)
    assert [box.distance(spot) for spot in ((1, 1), (7, 1), (-3, 6))] == [0, 3, 5]
