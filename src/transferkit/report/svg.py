"""Matplotlib figures as inline SVG: accessible, themed by CSS variables, and the same bytes each time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from transferkit.report.palette import COLOURS, INK, MUTED, RULE

# Inches. A panel of this width is shown at 336 to 480 CSS pixels, so 9.5 points are read as 11 to 15 pixels.
WIDTH = 4.2
FONT_SIZE = 9.5

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "transferkit",
    # Labels are data: a dollar sign in one is a dollar sign, not mathematics.
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": FONT_SIZE,
    "text.color": INK.light,
    "axes.edgecolor": RULE.light,
    "axes.labelcolor": MUTED.light,
    "axes.titlecolor": MUTED.light,
    "axes.titlesize": FONT_SIZE,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE.light,
    "grid.linewidth": 0.6,
    "xtick.color": RULE.light,
    "ytick.color": RULE.light,
    "xtick.labelcolor": MUTED.light,
    "ytick.labelcolor": MUTED.light,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "legend.frameon": False,
    "legend.fontsize": FONT_SIZE,
    "legend.labelcolor": MUTED.light,
}
_THEME = {colour.light: colour.css for colour in COLOURS}
_GEOMETRY = ("d", "x", "y", "width", "height", "points", "transform")


@dataclass(frozen=True)
class Picture:
    """One figure of the page with the sentence that says the same in words."""

    title: str
    alternative: str
    markup: Markup


@contextmanager
def plot_style() -> Iterator[None]:
    """The look of every figure, whatever the reader's own matplotlib settings are."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        # The browser draws the text with its own fonts; matplotlib's only measures it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def sheet(height: float) -> Figure:
    """An empty figure of the common width, `height` inches tall, bound to no window and no global state."""
    return Figure(figsize=(WIDTH, height), layout="constrained", facecolor="none")


def picture(figure: Figure, name: str, title: str, alternative: str) -> Picture:
    """Write `figure` as inline SVG.

    Args:
        figure: drawn inside `plot_style`.
        name: unique on the page; the ids inside the SVG start with it.
        title: what the figure shows.
        alternative: the same in words, with the numbers.
    """
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    source = ElementTree.fromstring(buffer.getvalue())
    for parent in list(source.iter()):
        for child in list(parent):
            child.tail = None
            if _local(child.tag) == "style":
                parent.remove(child)
    _rewrite_elements(source, name)
    source.attrib = {
        "class": "plot",
        "viewBox": source.attrib["viewBox"],
        "role": "img",
        "aria-label": f"{title}. {alternative}",
    }
    return Picture(title, alternative, Markup(ElementTree.tostring(source, encoding="unicode")))


def _rewrite_elements(root: ElementTree.Element, name: str) -> None:
    """Drop namespaces and idle ids, make the others unique, and hand colours and fonts to the page."""
    used = set(re.findall(r"#([\w.-]+)", " ".join(v for e in root.iter() for v in _references(e))))
    for element in root.iter():
        element.tag = _local(element.tag)
        if element.tag != "text":
            element.text = None
        attributes = {_local(key): value for key, value in element.attrib.items()}
        if attributes.get("id") not in used:
            attributes.pop("id", None)
        element.attrib = {key: _rewritten(key, value, name) for key, value in attributes.items()}


def _references(element: ElementTree.Element) -> list[str]:
    return [value for key, value in element.attrib.items() if _local(key) in ("href", "clip-path")]


def _rewritten(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key in ("href", "clip-path"):
        return value.replace("#", f"#{name}-")
    if key == "style":
        without_font = re.sub(r"font-family:[^;]*;?\s*", "", value)
        return re.sub(r"#[0-9a-f]{6}", lambda found: _THEME.get(found[0], found[0]), without_font)
    if key in _GEOMETRY:
        # A hundredth of a point is finer than any screen and saves a third of the bytes.
        rounded = re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", value)
        return " ".join(rounded.split())
    return value


def _local(name: str) -> str:
    return name.rpartition("}")[2]
