"""The plane that an update of LoRA spans, in space: a parallel projection of three axes onto the sheet."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from transferkit.evaluation.results import LoRAPlane
from transferkit.formatting import percent, three_figures
from transferkit.report.palette import INK, MUTED, PAPER, Look
from transferkit.report.svg import FONT_SIZE, WIDTH, Picture, picture, plot_style, sheet

FloatArray = npt.NDArray[np.float64]

# From where it is looked at, in degrees: around the third axis, and above the plane.
_AZIMUTH, _ELEVATION = 33.0, 36.0
# The plane goes a little beyond the outermost point, and the sheet beyond what is drawn.
_MARGIN = 1.1
_AXES = ("u\u2081", "u\u2082", "w")
# Inches: of the line above, and the heights beyond which a sheet is too flat to read or mostly empty.
_LINE, _LOWEST, _HIGHEST = 0.3, 2.4, 4.2
_KEY = "filled: the update; open, on stems: the frozen weight"
# That of lines: what shares it is drawn in the order of the calls.
_LAYER = 2
_GRID = (-0.5, 0.0, 0.5)
_ARROW = {"arrowstyle": "->", "color": INK.light, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}


def project(points: FloatArray) -> FloatArray:
    """[n, 3] -> [n, 2]: seen from far away, so that parallels stay parallel; the third axis points up."""
    around, above = math.radians(_AZIMUTH), math.radians(_ELEVATION)
    x, y, z = points.T
    depth = math.sin(around) * x + math.cos(around) * y
    right = math.cos(around) * x - math.sin(around) * y
    return np.column_stack([right, math.sin(above) * depth + math.cos(above) * z])


@plot_style()
def plane_picture(plane: LoRAPlane, look: Look, index: int) -> Picture:
    """Outputs of the update in its plane, and those of the frozen weight for the same inputs on stems off it."""
    update, weight = np.array(plane.update), np.array(plane.weight)
    reach = _reach(np.concatenate([update, weight]))
    corners = reach * np.array([(-1.0, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)])
    low, high = _limits(project(np.concatenate([corners, weight, reach * np.eye(3)])))
    figure = sheet(_height(high - low))
    axes = figure.add_subplot(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set_axis_off()
    # What is below the plane is behind it, since it is looked at from above.
    _stems(axes, weight[weight[:, 2] < 0])
    axes.fill(*project(corners).T, color=look.colour.light, alpha=0.3, linewidth=0, zorder=_LAYER)
    _grid(axes, reach)
    _arrows(axes, reach)
    axes.plot(*project(update).T, look.marker, color=look.colour.light, markersize=5)
    _stems(axes, weight[weight[:, 2] >= 0])
    figure.suptitle(_KEY, x=0.02, ha="left", fontsize=FONT_SIZE, color=MUTED.light)
    title = f"Plane of the update of {plane.module}"
    return picture(figure, f"plane-{index}", title, _spoken(plane, update, weight))


def _reach(points: FloatArray) -> float:
    """How far the plane goes from the origin along both its axes, to hold what is straight above points [n, 3]."""
    return _MARGIN * float(np.abs(points[:, :2]).max())


def _limits(drawn: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The lowest and the highest coordinates [2] on the sheet, a little beyond what is drawn [n, 2]."""
    low, high = drawn.min(0), drawn.max(0)
    margin = (_MARGIN - 1) * (high - low).max() / 2
    return low - margin, high + margin


def _height(extent: FloatArray) -> float:
    """Inches for what is so wide and high [2] at the common width, and for the line above it."""
    width, height = map(float, extent)
    return min(max(_LINE + WIDTH * height / width, _LOWEST), _HIGHEST)


def _stems(axes: Axes, points: FloatArray) -> None:
    """Open marks [n, 3], each with an upright stroke to the plane."""
    for point in points:
        foot = point * (1, 1, 0)
        axes.plot(*project(np.stack([foot, point])).T, color=MUTED.light, linewidth=0.7)
    axes.plot(*project(points).T, "o", color=MUTED.light, mfc=PAPER.light, markersize=4.5)


def _grid(axes: Axes, reach: float) -> None:
    for share in _GRID:
        for ends in ([(share, -1, 0), (share, 1, 0)], [(-1, share, 0), (1, share, 0)]):
            axes.plot(*project(reach * np.array(ends)).T, color=PAPER.light, linewidth=0.8)


def _arrows(axes: Axes, reach: float) -> None:
    """The positive half of each axis with its name, all of the same length."""
    for name, (x, y) in zip(_AXES, project(reach * np.eye(3)).tolist(), strict=True):
        axes.annotate("", (x, y), (0.0, 0.0), arrowprops=_ARROW, zorder=_LAYER)
        side, offset = ("left", 5) if x >= 0 else ("right", -5)
        axes.annotate(name, (x, y), xytext=(offset, 2), textcoords="offset points", ha=side, color=INK.light)


def _spoken(plane: LoRAPlane, update: FloatArray, weight: FloatArray) -> str:
    length = three_figures(_reach(np.concatenate([update, weight])))
    first, second, off = (three_figures(float(one)) for one in np.abs(update).max(0))
    far = three_figures(float(np.abs(weight[:, 2]).max()))
    return (
        f"Each axis is {length} long. For {len(update)} random unit inputs the outputs of the update reach {first} "
        f"along u\u2081, {second} along u\u2082 and {off} along w, which is off the plane; those of the frozen weight "
        f"reach {far} along w. The plane holds {percent(plane.share)} of the update's squared norm."
    )
