"""Attention maps: what is drawn, said and escaped."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from transferkit.models.translator import Attentions, build_translator
from transferkit.report import palette
from transferkit.report.attention import AttentionMap, attention_map, head_picture, layer_picture

SVG = "{http://www.w3.org/2000/svg}"
SOURCE, TARGET = ["a", "<b>", "c&d"], ["[SOS]", "x"]


@pytest.fixture(scope="module")
def attentions() -> Attentions:
    torch.manual_seed(0)
    model = build_translator(
        9, 9, encoder_layers=1, decoder_layers=2, width=12, heads=6, feed_forward=20, dropout=0.0
    ).eval()
    source = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0]])
    return model.look(source, source != 0, torch.tensor([[1, 2], [3, 4]]))[1]


@pytest.fixture
def known() -> AttentionMap:
    weights = np.array([[[0.75, 0.25, 0.0], [0.1, 0.2, 0.7]], [[0.0, 1.0, 0.0], [0.004, 0.5, 0.496]]], np.float32)
    return AttentionMap("Target to source, layer 1", TARGET, SOURCE, weights)


def cells(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [element for element in root.iter(f"{SVG}rect") if "fill-opacity" in element.attrib]


def texts(root: ElementTree.Element) -> list[str | None]:
    return [element.text for element in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("kind", "queries", "keys"), [("encoder", SOURCE, SOURCE), ("decoder", TARGET, TARGET), ("cross", TARGET, SOURCE)]
)
def test_a_map_holds_the_weights_of_one_sentence_without_its_padding(
    attentions: Attentions, kind: str, queries: list[str], keys: list[str]
) -> None:
    shown = attention_map(attentions, kind, 0, SOURCE, TARGET, row=1)  # type: ignore[arg-type]
    assert (shown.queries, shown.keys) == (queries, keys)
    assert shown.weights.shape == (6, len(queries), len(keys))
    np.testing.assert_allclose(shown.weights.sum(-1), 1, atol=1e-6)


def test_one_head_has_a_cell_for_every_weight_and_a_label_for_every_token(known: AttentionMap) -> None:
    picture = head_picture(known, 0)
    root = ElementTree.fromstring(picture.markup)
    # One of the six weights is 0.
    assert len(cells(root)) == 5
    assert texts(root) == [*TARGET, *SOURCE]
    rows: dict[str, float] = {}
    for cell in cells(root):
        rows[cell.attrib["y"]] = rows.get(cell.attrib["y"], 0) + float(cell.attrib["fill-opacity"])
    assert list(rows.values()) == pytest.approx([1, 1])
    titles = [cell.find(f"{SVG}title").text for cell in cells(root)]
    assert titles[:2] == ["[SOS] → a: 75.0\u00a0%", "[SOS] → <b>: 25.0\u00a0%"]
    assert picture.title == "Target to source, layer 1, head 1"
    assert picture.alternative == "[SOS] looks most at a (75.0\u00a0%); x looks most at c&d (70.0\u00a0%)."
    assert root.attrib["aria-label"] == f"{picture.title}. {picture.alternative}"


def test_all_heads_of_a_layer_are_in_one_picture(known: AttentionMap) -> None:
    root = ElementTree.fromstring(layer_picture(known).markup)
    # Eight weights are above half a percent.
    assert len(cells(root)) == 8
    assert [text for text in texts(root) if text and text.startswith("head")] == ["head 1", "head 2"]
    # Keys stand above each head of the first row, queries once.
    assert texts(root).count("[SOS]") == 1
    assert texts(root).count("<b>") == 2
    assert "head 2 gives its strongest key 75.0\u00a0% on average" in root.attrib["aria-label"]


# A sentence of so many tokens leaves no room for a second head beside the first.
@pytest.mark.parametrize(("keys", "lines"), [(3, 2), (50, 6)])
def test_many_heads_stand_in_rows_and_nothing_stands_outside(keys: int, lines: int) -> None:
    weights = np.full((6, 2, keys), 1 / keys, np.float32)
    shown = AttentionMap("Target to source, layer 1", TARGET, ["a"] * keys, weights)
    root = ElementTree.fromstring(layer_picture(shown).markup)
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    grounds = [element for element in root.iter(f"{SVG}rect") if element.attrib.get("class") == "ground"]
    corners = [(float(ground.attrib["x"]), float(ground.attrib["y"])) for ground in grounds]
    assert len(set(corners)) == 6
    assert len({y for _, y in corners}) == lines
    assert [text for text in texts(root) if text and text.startswith("head")] == [f"head {n}" for n in range(1, 7)]
    for ground, (x, y) in zip(grounds, corners, strict=True):
        assert x + float(ground.attrib["width"]) <= width
        assert y + float(ground.attrib["height"]) <= height


def test_colours_are_those_of_the_palette_in_both_schemes(known: AttentionMap) -> None:
    rules = ElementTree.fromstring(head_picture(known, 0).markup).find(f"{SVG}style").text
    light, dark = rules.split("@media(prefers-color-scheme:dark)")
    for colour in (palette.HEAT, palette.PAPER, palette.INK):
        assert f"var(--{colour.name}, {colour.light})" in light
        assert f"var(--{colour.name}, {colour.dark})" in dark


def test_layers_and_tokens_that_are_not_there_are_refused(attentions: Attentions) -> None:
    with pytest.raises(ValueError, match="There is no layer 2; the cross attention has 2, from 0"):
        attention_map(attentions, "cross", 2, SOURCE, TARGET)
    with pytest.raises(ValueError, match="weights for 4 queries and 4 keys, and 5 and 5 tokens"):
        attention_map(attentions, "encoder", 0, list("abcde"), TARGET)
