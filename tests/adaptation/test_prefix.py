"""The model in two parts answers as the whole does, in every family; and what trains is never in the lower part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests import tiny
from transferkit.adaptation.prefix import Prefix, find_prefix
from transferkit.adaptation.strategies import make_strategy
from transferkit.models.backbones import TextClassifier
from transferkit.settings import parse_strategy

# ALBERT calls one layer several times, and DeBERTa's answer with more than hidden states.
WHOLE = {"albert", "deberta"}
# Where an upper layer trains, they drop out of the embeddings, which stand in no module that is frozen.
DROPPING = {"gpt2", "bart"}


def adapted(folder: Path, strategy: str, pooling: str = "model") -> TextClassifier:
    model = tiny.load_model(folder, pooling)
    make_strategy(parse_strategy(strategy)).apply(model)
    return model


@pytest.mark.parametrize("name", tiny.FAMILIES)
@pytest.mark.parametrize(
    ("strategy", "pooling", "expected"),
    [
        ("linear-probe", "mean", "pooled"),
        ("linear-probe", "first", "pooled"),
        ("linear-probe", "model", "layer 2"),
        ("partial(layers=1)", "mean", "layer 1"),
        ("partial(layers=1)", "model", "layer 1"),
    ],
)
def test_the_parts_give_the_logits_and_gradients_of_the_whole(
    backbone: Callable[[str], Path], name: str, strategy: str, pooling: str, expected: str
) -> None:
    model, batch = adapted(backbone(name), strategy, pooling), tiny.make_batch(backbone(name))
    prefix = find_prefix(model, batch)
    if (name in WHOLE and expected != "pooled") or (name in DROPPING and strategy.startswith("partial")):
        assert prefix is None
        return
    assert str(prefix) == expected
    assert prefix is not None
    with torch.no_grad():
        states = prefix.compute(dict(batch))
    results = []
    for given in (batch, batch | {"states": states}):
        model.zero_grad()
        logits = prefix(dict(given))
        logits.square().sum().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None]
        results.append((logits.detach(), torch.cat(gradients)))
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(whole, parts, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", tiny.OTHERS)
@pytest.mark.parametrize("strategy", ["linear-probe", "partial(layers=1)"])
def test_families_that_do_not_take_every_text_have_a_prefix_that_is_right_or_none(
    backbone: Callable[[str], Path], name: str, strategy: str
) -> None:
    model, batch = adapted(backbone(name), strategy), tiny.make_batch(backbone(name))
    prefix = find_prefix(model, batch)
    if name != "bart" or strategy != "linear-probe":
        assert prefix is None, "layers answer with more than one state for each token, or with fewer, or drop out"
        return
    assert prefix is not None
    with torch.no_grad():
        states = prefix.compute(dict(batch))
        torch.testing.assert_close(prefix.resume(states, batch), model(**batch), atol=1e-6, rtol=1e-6)


def test_there_is_no_prefix_where_a_layer_shortens_the_text(backbone: Callable[[str], Path]) -> None:
    model, batch = adapted(backbone("bert"), "linear-probe"), tiny.make_batch(backbone("bert"))
    last = model.get_submodule("network.bert.encoder.layer.1")
    last.register_forward_hook(lambda _, __, output: output[:, :1])
    assert find_prefix(model, batch) is None


def test_the_layers_below_the_cut_are_not_called(backbone: Callable[[str], Path]) -> None:
    model, batch = adapted(backbone("bert"), "partial(layers=1)"), tiny.make_batch(backbone("bert"))
    prefix = find_prefix(model, batch)
    assert isinstance(prefix, Prefix)
    states = prefix.compute(dict(batch))
    called: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    prefix.resume(states, batch)
    assert any(name.startswith("network.bert.encoder.layer.1.") for name in called)
    assert not any(name.startswith("network.bert.encoder.layer.0.") for name in called)


@pytest.mark.parametrize(
    "strategy",
    ["full", "scratch", "bitfit", "lora", "bottleneck", "partial(layers=2)", "partial(patterns=**.LayerNorm.*)"],
)
def test_there_is_no_prefix_where_the_first_layer_trains(backbone: Callable[[str], Path], strategy: str) -> None:
    assert find_prefix(adapted(backbone("bert"), strategy), tiny.make_batch(backbone("bert"))) is None


def test_adapters_in_the_last_layers_leave_the_others_below(backbone: Callable[[str], Path]) -> None:
    model = adapted(backbone("bert"), "lora(targets=**.layer.1.**.query)")
    batch = tiny.make_batch(backbone("bert"))
    prefix = find_prefix(model, batch)
    assert str(prefix) == "layer 1"
    assert prefix is not None
    torch.testing.assert_close(prefix.resume(prefix.compute(dict(batch)), batch), model(**batch))


@pytest.mark.parametrize(("dropout", "expected"), [(0.0, "layer 1"), (0.5, "None")])
def test_there_is_none_where_dropout_runs_below_what_trains(
    dropout: float, expected: str, backbone: Callable[[str], Path]
) -> None:
    model, batch = adapted(backbone("gpt2"), "partial(layers=1)", "mean"), tiny.make_batch(backbone("gpt2"))
    model.network.drop.p = dropout
    state = torch.get_rng_state()
    assert str(find_prefix(model, batch)) == expected
    assert torch.equal(torch.get_rng_state(), state), "what is drawn to find out is not missed by the training"
    assert not any(module.training for module in model.modules())


def test_any_other_module_has_none() -> None:
    assert find_prefix(nn.Linear(2, 2), {"input_ids": torch.ones(1, 2)}) is None
