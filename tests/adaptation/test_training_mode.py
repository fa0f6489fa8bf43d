"""Frozen parts run in eval mode: which dropouts act, module by module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests import tiny
from transferkit.adaptation.base import Strategy
from transferkit.adaptation.bottleneck import Bottleneck
from transferkit.adaptation.freezing import set_training_mode
from transferkit.adaptation.lora import LoRA
from transferkit.adaptation.unfreezing import BitFit, Full, LinearProbe, Partial

Folders = Callable[[str], Path]


def active_dropouts(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, nn.Dropout) and module.training}


def all_dropouts(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, nn.Dropout)}


def is_random(model: nn.Module, batch: dict[str, torch.Tensor]) -> bool:
    with torch.no_grad():
        return not torch.equal(model(**batch), model(**batch))


@pytest.mark.parametrize("strategy", [LinearProbe(), LoRA(), Bottleneck(size=2)])
@pytest.mark.parametrize("name", tiny.WITH_LINEARS)
def test_only_the_heads_dropout_acts_on_a_frozen_backbone(name: str, strategy: Strategy, backbone: Folders) -> None:
    model = tiny.load_model(backbone(name), "mean")
    batch = tiny.make_batch(backbone(name))
    strategy.apply(model)
    set_training_mode(model)
    assert active_dropouts(model) == {"head.0"}
    model.head[0].p = 0.0
    assert not is_random(model, batch), "attention drops nothing either"
    assert all(layer.training for layer in model.modules() if hasattr(type(layer), "adapter_layer_names"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", {"network.dropout"}),
        ("roberta", {"network.classifier.dropout"}),
        ("distilbert", {"network.dropout"}),
        ("electra", {"network.classifier.dropout"}),
        ("albert", {"network.dropout"}),
    ],
)
@pytest.mark.parametrize("strategy", [LinearProbe(), LoRA()])
def test_the_familys_own_head_keeps_its_dropout(
    name: str, expected: set[str], strategy: Strategy, backbone: Folders
) -> None:
    model = tiny.load_model(backbone(name), "model")
    strategy.apply(model)
    set_training_mode(model)
    assert active_dropouts(model) == expected


def test_partial_drops_in_the_layers_that_train(backbone: Folders) -> None:
    model = tiny.load_model(backbone("bert"), "mean")
    Partial(layers=1).apply(model)
    set_training_mode(model)
    inside = {name for name in all_dropouts(model) if name.startswith("network.encoder.layer.1.")}
    assert len(inside) == 3
    assert active_dropouts(model) == inside | {"head.0"}


def test_partial_by_pattern_drops_where_the_pattern_is(backbone: Folders) -> None:
    model = tiny.load_model(backbone("bert"), "mean")
    Partial(patterns=("encoder.layer.0.output.**",)).apply(model)
    set_training_mode(model)
    assert active_dropouts(model) == {"network.encoder.layer.0.output.dropout", "head.0"}


@pytest.mark.parametrize("strategy", [Full(), BitFit()])
def test_what_trains_everywhere_drops_everywhere(strategy: Strategy, backbone: Folders) -> None:
    model = tiny.load_model(backbone("bert"), "mean")
    strategy.apply(model)
    set_training_mode(model)
    assert active_dropouts(model) == all_dropouts(model)


@pytest.mark.parametrize("strategy", [LinearProbe(), LoRA()])
def test_dropout_in_frozen_parts_acts_when_asked_for(strategy: Strategy, backbone: Folders) -> None:
    model = tiny.load_model(backbone("bert"), "mean")
    strategy.apply(model)
    set_training_mode(model, frozen_dropout=True)
    assert active_dropouts(model) == all_dropouts(model)
    model.head[0].p = 0.0
    assert is_random(model, tiny.make_batch(backbone("bert")))
    set_training_mode(model)
    assert active_dropouts(model) == {"head.0"}, "the mode is set anew each time"


def test_statistics_of_a_frozen_batch_norm_stand_still() -> None:
    model = tiny.seeded(tiny.TinyConvNet)
    before = tiny.weights_of(model)
    LoRA().apply(model)
    set_training_mode(model)
    model(torch.randn(4, 8))
    assert torch.equal(model.state_dict()["norm.running_mean"], before["norm.running_mean"])
    Partial(patterns=("norm",)).apply(model := tiny.seeded(tiny.TinyConvNet))
    set_training_mode(model)
    model(torch.randn(4, 8))
    assert not torch.equal(model.state_dict()["norm.running_mean"], before["norm.running_mean"])
