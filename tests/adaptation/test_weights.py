"""The table of weights says of each where it comes from and whether it trains."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny
from transferkit.adaptation.strategies import make_strategy
from transferkit.adaptation.weights import Weights, as_table, weights_of
from transferkit.config import StrategySpec
from transferkit.models.backbones import TextClassifier
from transferkit.pipeline import save_whole


def by_name(model: TextClassifier) -> dict[str, Weights]:
    rows = weights_of(model)
    return {row.name: row for row in rows}


@pytest.mark.parametrize("pooling", ["mean", "model"])
@pytest.mark.parametrize(("labels", "origin"), [(tiny.LABELS, "loaded"), (("no", "yes"), "replaced")])
def test_a_head_of_as_many_classes_is_loaded_and_another_replaced(
    backbone: Callable[[str], Path], tmp_path: Path, pooling: str, labels: tuple[str, ...], origin: str
) -> None:
    first = tiny.load_model(backbone("bert"), pooling)
    assert {first.origins[p] for n, p in first.named_parameters() if n in first.head_parameters} == {"new"}
    shutil.copytree(backbone("bert"), tmp_path / "model")
    save_whole(tmp_path / "model", first)
    second = tiny.load_model(tmp_path / "model", pooling, labels)
    head = {n: second.origins[p] for n, p in second.named_parameters() if n in second.head_parameters}
    outer = {n: o for n, o in head.items() if "pooler" not in n}
    assert set(outer.values()) == {origin}
    assert {second.origins[p] for n, p in second.named_parameters() if n not in head} == {"loaded"}


def test_what_a_strategy_adds_and_freezes_is_told_apart(backbone: Callable[[str], Path]) -> None:
    model = tiny.load_model(backbone("bert"), "mean")
    make_strategy(StrategySpec(name="lora", options={"rank": 2, "targets": ["query"]})).apply(model)
    rows = by_name(model)
    query = "network.encoder.layer.*.attention.self.query"
    assert rows[f"{query}.base.weight"] == Weights(f"{query}.base.weight", 2, 2 * 32 * 32, "loaded", trains=False)
    assert rows[f"{query}.lora_a"] == Weights(f"{query}.lora_a", 2, 2 * 2 * 32, "added", trains=True)
    assert rows["head.*.weight"] == Weights("head.*.weight", 1, 3 * 32, "new", trains=True)
    assert sum(row.parameters for row in rows.values()) == sum(p.numel() for p in model.parameters())


def test_adapters_of_peft_are_added_too(backbone: Callable[[str], Path]) -> None:
    model = tiny.load_model(backbone("bert"), "mean")
    make_strategy(StrategySpec(name="peft:lora", options={"r": 2, "target_modules": ["query"]})).apply(model)
    origins = {row.name: row.origin for row in weights_of(model)}
    assert {origin for name, origin in origins.items() if "lora" in name} == {"added"}
    assert {origin for name, origin in origins.items() if "base_layer" in name} == {"loaded"}


def test_scratch_draws_everything_anew(backbone: Callable[[str], Path]) -> None:
    model = tiny.load_model(backbone("bert"), "mean")
    make_strategy(StrategySpec(name="scratch")).apply(model)
    assert {(row.origin, row.trains) for row in weights_of(model)} == {("new", True)}


def test_a_head_that_no_pooling_reads_is_left_out(backbone: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(backbone("bert"), tmp_path / "model")
    save_whole(tmp_path / "model", tiny.load_model(backbone("bert"), "model"))
    left_out = [row.name for row in weights_of(tiny.load_model(tmp_path / "model", "mean")) if row.origin == "left out"]
    assert left_out == ["classifier.bias", "classifier.weight"]


def test_the_table_has_a_line_for_each_kind() -> None:
    rows = [
        Weights("network.embedding.weight", 1, 271_900, "loaded", trains=False),
        Weights("network.layers.*.weight", 4, 800, "new", trains=True),
        Weights("classifier.weight", 1, 0, "left out", trains=False),
    ]
    assert as_table(rows).split("\n") == [
        "Parameters                     Numbers  Origin    Training",
        "network.embedding.weight       271,900  loaded    frozen",
        "network.layers.*.weight   x 4      800  new       trains",
        "classifier.weight                       left out",
    ]
