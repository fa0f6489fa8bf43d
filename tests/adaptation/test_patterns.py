"""Names by pattern, on names as models have them."""

from __future__ import annotations

import pytest

from transferkit.adaptation.patterns import kind_of, select
from transferkit.errors import AdaptationError

NAMES = [
    f"network.bert.encoder.layer.{layer}.{part}"
    for layer in (0, 5, 15)
    for part in (
        "attention.self.query", "attention.self.value", "attention.output.dense", "intermediate.dense", "output.dense",
    )
] + ["encoder.layers.0.linear1", "encoder.layers.0.linear2", "transformer.layer.0.attention.q_lin"]  # fmt: skip


def chosen(*patterns: str) -> set[str]:
    return set(select(patterns, NAMES, "layer"))


def ending(*ends: str) -> set[str]:
    return {name for name in NAMES if name.endswith(ends)}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("query",), ending(".query")),
        (("query", "value"), ending(".query", ".value")),
        (("q_lin",), ending("q_lin")),
        (("q*",), ending(".query", "q_lin")),
        (("self.*",), ending(".query", ".value")),
        (("**.linear2",), {"encoder.layers.0.linear2"}),
        (("encoder.layer.5.**",), {name for name in NAMES if ".layer.5." in name}),
        (("layer.5.**.dense",), {name for name in NAMES if ".layer.5." in name and name.endswith("dense")}),
        (("layer.*.output.dense",), {name for name in NAMES if name.endswith(("0.output.dense", "5.output.dense"))}),
        (("**",), set(NAMES)),
        ((NAMES[3],), {NAMES[3]}),
    ],
)  # fmt: skip
def test_patterns_match_whole_parts_of_names(patterns: tuple[str, ...], expected: set[str]) -> None:
    assert expected
    assert chosen(*patterns) == expected


def test_the_order_is_that_of_the_names_and_nothing_comes_twice() -> None:
    found = select(("value", "query", "**.query"), NAMES, "layer")
    assert found == [name for name in NAMES if name.endswith((".query", ".value"))]


@pytest.mark.parametrize(
    "pattern", ["quer", "uery", "layer.5", "encoder.layer.*", "query.weight", "", ".", "layer+5.**"]
)
def test_parts_of_a_part_and_characters_of_expressions_match_nothing(pattern: str) -> None:
    with pytest.raises(AdaptationError, match="matches no layer"):
        chosen(pattern)


def test_a_pattern_that_matches_nothing_lists_near_names() -> None:
    with pytest.raises(AdaptationError, match=r"'qeury' matches no layer\. Did you mean .*query"):
        chosen("value", "qeury")
    with pytest.raises(AdaptationError, match=r"Did you mean .*encoder\.layers\.\*\.linear2"):
        chosen("encoder.layers.7.linear2")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("encoder.layers.0.linear2.weight", "encoder.layers.*.linear2.weight"),
        ("blocks.0.1.bias", "blocks.*.*.bias"),
        ("0.weight", "0.weight"),
        ("head", "head"),
    ],
)
def test_names_of_a_kind_differ_in_the_numbers_of_layers(name: str, kind: str) -> None:
    assert kind_of(name) == kind
