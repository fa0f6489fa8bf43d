"""Names beside the points of a scatter plot, each where it hides least."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transferkit.report.svg import FONT_SIZE

# Average advance of a letter in ems; system fonts are narrower than this.
_ADVANCE = 0.58
_MARK = 5.0
_STROKE = 1.0
# Offsets in points with the alignment of the text: beside, above, below, and corners.
Place = tuple[float, float, str, str]
PLACES: tuple[Place, ...] = (
    (8, 0, "left", "center"),
    (-8, 0, "right", "center"),
    (0, 8, "center", "bottom"),
    (0, -8, "center", "top"),
    (6, 6, "left", "bottom"),
    (-6, 6, "right", "bottom"),
    (6, -6, "left", "top"),
    (-6, -6, "right", "top"),
)


class Box(NamedTuple):
    """A rectangle in points, origin at the lower left."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def distance(self, spot: tuple[float, float]) -> float:
        """From the nearest point of the rectangle; 0 inside."""
        x, y = spot
        return math.hypot(max(self.left - x, 0, x - self.right), max(self.bottom - y, 0, y - self.top))

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


@dataclass(frozen=True)
class Point:
    """A named point in data coordinates."""

    x: float
    y: float
    name: str


def label_points(figure: Figure, axes: Axes, points: Sequence[Point], line: Sequence[tuple[float, float]]) -> None:
    """Write each name beside its point, avoiding marks, other names, the edge, a stepped line and points nearer to it.

    Args:
        figure: holds the axes.
        axes: with its final limits.
        points: in data coordinates.
        line: the corners, in data coordinates, of a line of level and upright strokes.
    """
    figure.draw_without_rendering()
    frame = Box(*(float(edge) * 72 / figure.dpi for edge in axes.get_window_extent().extents))
    spots = [_on_sheet(figure, axes, (point.x, point.y)) for point in points]
    corners = [_on_sheet(figure, axes, corner) for corner in line]
    taken = [_box_around(spot, spot, _MARK) for spot in spots]
    taken += [_box_around(start, end, _STROKE) for start, end in pairwise(corners)]
    texts = [point.name for point in points]
    for text, point, place in zip(texts, points, choose_places(texts, spots, taken, frame), strict=True):
        dx, dy, side, level = place
        axes.annotate(text, (point.x, point.y), xytext=(dx, dy), textcoords="offset points", ha=side, va=level)


def choose_places(
    texts: Sequence[str], spots: Sequence[tuple[float, float]], taken: Sequence[Box], frame: Box
) -> list[Place]:
    """Where each text hides least and is its own spot's: no other spot is nearer to it.

    Args:
        texts: what is written.
        spots: of which each text is one's name, in points.
        taken: what is there already.
        frame: beyond which nothing is seen.
    """
    written, chosen = list(taken), []
    for text, spot in zip(texts, spots, strict=True):
        boxes = [text_box(text, spot, place) for place in PLACES]
        costs = [
            sum(map(box.overlap, written)) + (box.area - box.overlap(frame)) + box.area * _is_others(box, spot, spots)
            for box in boxes
        ]
        best = costs.index(min(costs))
        written.append(boxes[best])
        chosen.append(PLACES[best])
    return chosen


def _is_others(box: Box, own: tuple[float, float], spots: Sequence[tuple[float, float]]) -> bool:
    """Whether a reader would take what is written there for the name of another spot."""
    return min(map(box.distance, spots)) < box.distance(own)


def _on_sheet(figure: Figure, axes: Axes, spot: tuple[float, float]) -> tuple[float, float]:
    """Data coordinates as points from the lower left of the figure."""
    x, y = axes.transData.transform(spot) * 72 / figure.dpi
    return float(x), float(y)


def _box_around(start: tuple[float, float], end: tuple[float, float], margin: float) -> Box:
    (left, right), (bottom, top) = (sorted(ends) for ends in zip(start, end, strict=True))
    return Box(left - margin, bottom - margin, right + margin, top + margin)


def text_box(text: str, spot: tuple[float, float], place: Place) -> Box:
    """What `text` covers at `place` beside `spot`."""
    dx, dy, side, level = place
    width, height = len(text) * _ADVANCE * FONT_SIZE, 1.2 * FONT_SIZE
    left = spot[0] + dx - {"left": 0.0, "center": 0.5, "right": 1.0}[side] * width
    bottom = spot[1] + dy - {"bottom": 0.0, "center": 0.5, "top": 1.0}[level] * height
    return Box(left, bottom, left + width, bottom + height)
