"""Cheap dropout drops what dropout drops: the right share, at random, with the scale that keeps the mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transferkit.models.dropout import CheapDropout, dropout
from transferkit.training.precision import Compute, training_kernels


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_share_and_the_scale_are_right(probability: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(400_000)
    y = dropout(x, probability)
    # Five standard deviations of a share of 400,000 draws.
    assert abs(float((y == 0).float().mean()) - probability) < 5 * (probability * (1 - probability) / x.numel()) ** 0.5
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / (1 - probability)), rtol=2e-4, atol=0)


@pytest.mark.parametrize(("probability", "kept"), [(0.0, 1.0), (1e-7, 1.0), (1 - 1e-7, 0.0), (1.0, 0.0)])
def test_what_sixteen_bits_cannot_tell_from_none_or_all_is_dropped_all_the_same(
    probability: float, kept: float
) -> None:
    torch.manual_seed(0)
    y = dropout(torch.ones(100), probability)
    torch.testing.assert_close(y, torch.full((100,), kept))
    torch.testing.assert_close(CheapDropout(probability)(torch.ones(100)), y)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    kept = (dropout(torch.ones(400_000), 0.5) != 0).float().view(-1, 4)
    # The four elements that share one draw of 64 bits too.
    correlation = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlation.abs().max() < 0.02


def test_the_gradient_passes_where_the_element_stayed() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 5, requires_grad=True)
    y = dropout(x, 0.3)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_a_seed_gives_the_same_draw_and_the_next_call_another() -> None:
    torch.manual_seed(3)
    first, second = dropout(torch.ones(999), 0.5), dropout(torch.ones(999), 0.5)
    torch.manual_seed(3)
    assert torch.equal(dropout(torch.ones(999), 0.5), first)
    assert not torch.equal(first, second)


def test_a_model_gets_its_own_dropout_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Dropout(0.0), nn.Dropout(1.0))
    x = torch.ones(4, 2)
    with training_kernels(model, Compute()):
        assert isinstance(model[1], CheapDropout)
        assert torch.equal(model[2](x), x)
        assert torch.equal(model[3](x), torch.zeros(4, 2))
        assert torch.equal(model.eval()[1](x), x)
    assert [type(module) for module in model[1:]] == [nn.Dropout] * 3
