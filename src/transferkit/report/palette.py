"""The colours of a report: one place for the page and its figures, on light, dark and printed ground.

Series colours are those of Okabe and Ito (2008), which stay apart for colour-blind readers; some are darkened
on light ground or lightened on dark, so that each keeps a contrast of 3 to 1 with the paper.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """A role that has one value on light ground and one on dark; figures draw the light one."""

    name: str
    light: str
    dark: str

    @property
    def css(self) -> str:
        """The colour as the page writes it: a variable that follows the reader's scheme."""
        return f"var(--{self.name}, {self.light})"


PAPER = Colour("paper", "#ffffff", "#15181c")
PANEL = Colour("panel", "#f5f6f8", "#1d2126")
INK = Colour("ink", "#1a1d21", "#e7e9ec")
MUTED = Colour("muted", "#565e67", "#a7afb8")
RULE = Colour("rule", "#d9dde2", "#353b43")
LINK = Colour("link", "#005a8f", "#7cc0f0")
WARN = Colour("warn", "#a33600", "#ff9d6b")
WARN_PANEL = Colour("warn-panel", "#fdf2ec", "#2c211c")
HEAT = Colour("heat", "#1f7ab8", "#4a97cf")
ROLES = (PAPER, PANEL, INK, MUTED, RULE, LINK, WARN, WARN_PANEL, HEAT)

SERIES = (
    Colour("series-1", "#0072b2", "#3f97dd"),
    Colour("series-2", "#d55e00", "#ee7b30"),
    Colour("series-3", "#009e73", "#1fbf92"),
    Colour("series-4", "#cc79a7", "#d98cb8"),
    Colour("series-5", "#b57d00", "#e69f00"),
    Colour("series-6", "#3d4147", "#c9ced6"),
    Colour("series-7", "#2a91cc", "#86cdf5"),
    Colour("series-8", "#8f8600", "#f0e442"),
)
COLOURS = ROLES + SERIES

# (matplotlib marker, the same shape as a character). Seven shapes and eight colours make 56 distinct looks.
_SHAPES = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"), ("X", "✖"))


@dataclass(frozen=True)
class Look:
    """How one strategy is drawn everywhere on a page."""

    colour: Colour
    marker: str
    glyph: str


def look(index: int) -> Look:
    """The look of the strategy at `index`; neighbours differ in colour and in shape."""
    marker, glyph = _SHAPES[index % len(_SHAPES)]
    return Look(SERIES[index % len(SERIES)], marker, glyph)
