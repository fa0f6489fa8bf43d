"""Norms that follow autocast: the same numbers, in the precision of what is around them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transferkit.models.norm import AutocastNorm
from transferkit.training.precision import Compute, autocast, training_kernels


@pytest.fixture
def norm() -> nn.LayerNorm:
    torch.manual_seed(0)
    norm = nn.LayerNorm(64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def test_without_autocast_it_is_the_norm_itself(norm: nn.LayerNorm) -> None:
    x = torch.randn(3, 5, 64)
    expected = norm(x)
    with training_kernels(norm, Compute("bf16")):
        assert type(norm) is AutocastNorm
        assert torch.equal(norm(x), expected)
    assert type(norm) is nn.LayerNorm


def test_under_autocast_it_rounds_once_before_and_once_after(norm: nn.LayerNorm) -> None:
    x = torch.randn(3, 5, 64, requires_grad=True)
    expected = norm(x.bfloat16().float())
    expected.square().sum().backward()
    assert x.grad is not None
    assert norm.weight.grad is not None
    gradient, of_weight = x.grad.clone(), norm.weight.grad.clone()
    norm.zero_grad()
    x.grad = None
    with training_kernels(norm, Compute("bf16")), autocast(Compute("bf16")):
        y = norm(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, atol=0, rtol=2**-8)
    y.float().square().sum().backward()
    torch.testing.assert_close(x.grad, gradient, atol=5e-2, rtol=5e-2)
    torch.testing.assert_close(norm.weight.grad, of_weight, atol=5e-2, rtol=5e-2)
    assert norm.weight.grad.dtype == torch.float32
