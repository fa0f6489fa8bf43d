"""What a translator looks at, as a picture: a row for each query, a column for each key, the weight as depth of colour.

The SVG stands alone and inside a page: it takes the page's colours where there are some, and follows the reader's
scheme where there are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from transferkit.formatting import clip, percent
from transferkit.models.translator import Attentions, Kind
from transferkit.report.palette import HEAT, INK, MUTED, PANEL, PAPER, Colour
from transferkit.report.svg import Picture

_NAMES: dict[Kind, str] = {
    "encoder": "Source to source",
    "decoder": "Target to target",
    "cross": "Target to source",
}

_TOKEN_LETTERS = 16
# CSS pixels: of a cell and of its labels, for one head, and for all heads of a layer beside each other.
_CELL, _LETTERS = 22, 13
_SMALL_CELL, _SMALL_LETTERS = 12, 10
_GAP = 12
# The widest a grid becomes while two heads fit into it.
_WIDEST = 1100
# Of a letter's height, generous so that labels are not cut.
_LETTER_WIDTH = 0.78
# A weight below this is shown by the ground alone.
_LEAST = 0.005


@dataclass(frozen=True)
class AttentionMap:
    """The weights of all heads of one attention layer for one sentence.

    Attributes:
        title: which they are.
        queries: the tokens that look, [Q].
        keys: the tokens that are looked at, [K].
        weights: float [heads, Q, K]; every row sums to 1.
    """

    title: str
    queries: Sequence[str]
    keys: Sequence[str]
    weights: npt.NDArray[np.float32]


def attention_map(
    attentions: Attentions, kind: Kind, layer: int, source: Sequence[str], target: Sequence[str], row: int = 0
) -> AttentionMap:
    """One layer of `attentions` for the sentence in `row` of its batch, without its padding.

    Args:
        attentions: from `Translator.look`.
        kind: `encoder`, `decoder`, or `cross`, where targets look at sources.
        layer: from 0.
        source: the tokens of the source as the model was given them.
        target: those of the target, its start among them: the state at a token chooses the one after it.
        row: which of the batch.

    Raises:
        ValueError: there is no such layer, or more tokens than the model was given.
    """
    layers: tuple[object, ...] = getattr(attentions, kind)
    if not 0 <= layer < len(layers):
        raise ValueError(f"There is no layer {layer}; the {kind} attention has {len(layers)}, from 0.")
    queries = source if kind == "encoder" else target
    keys = target if kind == "decoder" else source
    weights = getattr(attentions, kind)[layer][row].detach().float().numpy()
    if weights.shape[1] < len(queries) or weights.shape[2] < len(keys):
        raise ValueError(
            f"There are weights for {weights.shape[1]} queries and {weights.shape[2]} keys, and {len(queries)} and "
            f"{len(keys)} tokens for them."
        )
    title = f"{_NAMES[kind]}, layer {layer + 1}"
    return AttentionMap(title, queries, keys, weights[:, : len(queries), : len(keys)])


def head_picture(shown: AttentionMap, head: int) -> Picture:
    """The map of one head, counted from 0, with the weight of a cell under the pointer."""
    weights = shown.weights[head]
    sheet = _Sheet(shown, _CELL, _LETTERS, heads=1, columns=1)
    parts = [*sheet.labels(0), *sheet.cells(0, weights, with_weights=True)]
    title = f"{shown.title}, head {head + 1}"
    spoken = [
        f"{query} looks most at {shown.keys[key]} ({percent(weights[row, key])})"
        for row, (query, key) in enumerate(zip(shown.queries, weights.argmax(1), strict=True))
    ]
    return _picture(title, f"{'; '.join(spoken)}.", sheet, parts)


def layer_picture(shown: AttentionMap) -> Picture:
    """The maps of all heads of the layer."""
    width = len(shown.keys) * _SMALL_CELL + _GAP
    columns = min(len(shown.weights), max(1, _WIDEST // width), 4)
    sheet = _Sheet(shown, _SMALL_CELL, _SMALL_LETTERS, len(shown.weights), columns)
    parts = []
    for head, weights in enumerate(shown.weights):
        parts += [*sheet.labels(head), *sheet.cells(head, weights), sheet.name(head)]
    spoken = [
        f"head {head + 1} gives its strongest key {percent(float(weights.max(1).mean()))} on average"
        for head, weights in enumerate(shown.weights)
    ]
    return _picture(f"{shown.title}, all heads", f"{'; '.join(spoken)}.", sheet, parts)


class _Sheet:
    """Where the maps of so many heads stand: in rows of `columns`, keys above and queries beside the outer ones."""

    def __init__(self, shown: AttentionMap, cell: int, letters: int, heads: int, columns: int) -> None:
        self._cell, self._letters, self._columns = cell, letters, columns
        self._queries = [clip(token, _TOKEN_LETTERS) for token in shown.queries]
        self._keys = [clip(token, _TOKEN_LETTERS) for token in shown.keys]
        self._left, self._top = (
            max(map(len, tokens), default=0) * letters * _LETTER_WIDTH + 8 for tokens in (self._queries, self._keys)
        )
        self._name_height = 0 if heads == 1 else letters + 6
        self._width, self._height = len(self._keys) * cell, len(self._queries) * cell
        rows = -(-heads // columns)
        self.width = self._left + columns * (self._width + _GAP)
        self.height = self._top + rows * (self._height + self._name_height + _GAP)

    def labels(self, head: int) -> Iterator[str]:
        """Queries where the map is the first of its row, keys where it is in the first row."""
        left, top = self._corner(head)
        if head % self._columns == 0:
            for row, token in enumerate(self._queries):
                y = top + (row + 0.5) * self._cell
                yield f'<text x="{left - 6:.1f}" y="{y:.1f}" text-anchor="end">{escape(token)}</text>'
        if head < self._columns:
            for column, token in enumerate(self._keys):
                x, y = left + (column + 0.5) * self._cell, top - 6 - self._name_height
                yield f'<text transform="translate({x:.1f} {y:.1f}) rotate(-90)">{escape(token)}</text>'

    def name(self, head: int) -> str:
        """The head's number above its map."""
        left, top = self._corner(head)
        return f'<text class="name" x="{left:.1f}" y="{top - 4 - self._letters / 2:.1f}">head {head + 1}</text>'

    def cells(self, head: int, weights: npt.NDArray[np.float32], with_weights: bool = False) -> Iterator[str]:
        """The ground of the map and a square for every weight [Q, K] that is seen."""
        left, top = self._corner(head)
        yield f'<rect class="ground" x="{left:.1f}" y="{top:.1f}" width="{self._width}" height="{self._height}"/>'
        for row, column in np.argwhere(weights >= _LEAST):
            weight = float(weights[row, column])
            place = f'x="{left + column * self._cell:.1f}" y="{top + row * self._cell:.1f}"'
            square = f'<rect {place} width="{self._cell}" height="{self._cell}" fill-opacity="{weight:.3f}"'
            if not with_weights:
                yield f"{square}/>"
                continue
            words = f"{self._queries[row]} \N{RIGHTWARDS ARROW} {self._keys[column]}: {percent(weight)}"
            yield f"{square}><title>{escape(words)}</title></rect>"

    @property
    def letters(self) -> int:
        """The height of a label."""
        return self._letters

    def _corner(self, head: int) -> tuple[float, float]:
        row, column = divmod(head, self._columns)
        top = self._top + row * (self._height + self._name_height + _GAP) + self._name_height
        return self._left + column * (self._width + _GAP), top


def _picture(title: str, alternative: str, sheet: _Sheet, parts: Sequence[str]) -> Picture:
    spoken = escape(f"{title}. {alternative}")
    # `class` tells these rules from those of other pictures on the page.
    markup = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="attention" width="{sheet.width:.0f}" '
        f'height="{sheet.height:.0f}" viewBox="0 0 {sheet.width:.0f} {sheet.height:.0f}" role="img" '
        f'aria-label="{spoken}"><style>{_rules(sheet.letters)}</style>'
        f'<rect class="paper" width="100%" height="100%"/>{"".join(parts)}</svg>'
    )
    return Picture(title, alternative, Markup(markup))


def _rules(letters: int) -> str:
    fills = {
        ".attention rect": HEAT, ".attention .paper": PAPER, ".attention .ground": PANEL, ".attention text": INK,
        ".attention .name": MUTED,
    }  # fmt: skip
    light = "".join(f"{what}{{fill:{colour.css}}}" for what, colour in fills.items())
    dark = "".join(f"{what}{{fill:{_dark(colour)}}}" for what, colour in fills.items())
    font = f".attention text{{font:{letters}px system-ui,sans-serif;dominant-baseline:central}}"
    return f"{font}{light}@media(prefers-color-scheme:dark){{{dark}}}"


def _dark(colour: Colour) -> str:
    return f"var(--{colour.name}, {colour.dark})"
