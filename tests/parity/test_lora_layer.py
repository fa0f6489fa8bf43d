"""Our LoRA against the PEFT library's, with the same weights: outputs and gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from transferkit.adaptation.adapters import merge
from transferkit.adaptation.lora import LoRA


def pair(rank_stabilised: bool, bias: bool) -> tuple[nn.Module, nn.Module]:
    """The same network adapted by us and by PEFT, A and B random and equal."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(12, 8, bias=bias), nn.Tanh(), nn.Linear(8, 3))
    theirs = copy.deepcopy(ours)
    LoRA(rank=4, alpha=6, rank_stabilised=rank_stabilised).apply(ours)
    config = LoraConfig(r=4, lora_alpha=6, use_rslora=rank_stabilised, target_modules=["0"])
    theirs = inject_adapter_in_model(config, theirs)
    with torch.no_grad():
        nn.init.normal_(ours[0].lora_b)
        theirs[0].lora_A["default"].weight.copy_(ours[0].lora_a)
        theirs[0].lora_B["default"].weight.copy_(ours[0].lora_b)
    return ours, theirs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_outputs_and_gradients_are_equal(rank_stabilised: bool, bias: bool) -> None:
    ours, theirs = pair(rank_stabilised, bias)
    x = torch.randn(2, 5, 12)
    inputs = [x.clone().requires_grad_(True), x.clone().requires_grad_(True)]
    outputs = [model(data) for model, data in zip((ours, theirs), inputs, strict=True)]
    torch.testing.assert_close(outputs[0], outputs[1])
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(ours[0].lora_a.grad, theirs[0].lora_A["default"].weight.grad)
    torch.testing.assert_close(ours[0].lora_b.grad, theirs[0].lora_B["default"].weight.grad)
    assert ours[0].base.weight.grad is None


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_merged_weights_are_equal(rank_stabilised: bool) -> None:
    ours, theirs = pair(rank_stabilised, bias=True)
    theirs[0].merge()
    merged: Tensor = merge(ours)[0].weight
    torch.testing.assert_close(merged, theirs[0].base_layer.weight)


def test_a_starts_from_the_same_distribution() -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 2))
    theirs = copy.deepcopy(ours)
    LoRA(rank=32).apply(ours)
    theirs = inject_adapter_in_model(LoraConfig(r=32, target_modules=["0"]), theirs)
    for a, b in (
        (ours[0].lora_a, ours[0].lora_b),
        (theirs[0].lora_A["default"].weight, theirs[0].lora_B["default"].weight),
    ):
        assert a.abs().max().item() == pytest.approx(1 / 8, rel=0.01)
        assert a.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.05)
        assert not b.any()
