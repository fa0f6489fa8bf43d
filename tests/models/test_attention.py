"""Attention equals torch's, refuses masks that are none, and never looks where it must not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from transferkit.models import attention
from transferkit.models.attention import MultiHeadAttention, attention_weights, causal_mask

ROWS, LENGTH, WIDTH, HEADS = 2, 5, 12, 3


@pytest.fixture
def x() -> Tensor:
    return torch.randn(ROWS, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def layer() -> MultiHeadAttention:
    torch.manual_seed(1)
    return MultiHeadAttention(WIDTH, HEADS).eval()


@pytest.fixture(params=["plain", "fused"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By plain products, or by torch's kernel, for these few queries."""
    monkeypatch.setattr(attention, "FEW_QUERIES", LENGTH if request.param == "plain" else 0)


def of_torch(layer: MultiHeadAttention) -> nn.MultiheadAttention:
    """torch's layer with the same weights."""
    twin = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval()
    parts = (layer.query, layer.key, layer.value)
    with torch.no_grad():
        twin.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        twin.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    twin.out_proj.load_state_dict(layer.output.state_dict())
    return twin


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("with_weights", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_it_equals_torch(layer: MultiHeadAttention, x: Tensor, masked: bool, with_weights: bool) -> None:
    source = x.flip(1)[:, :4] * 2
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    mask = real[:, None, None, :] if masked else None
    mixed, weights = layer(x, source, mask, with_weights)
    expected, their_weights = of_torch(layer)(
        x, source, source, key_padding_mask=~real if masked else None, average_attn_weights=False
    )
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    if with_weights:
        torch.testing.assert_close(weights, their_weights, atol=1e-5, rtol=1e-5)
    else:
        assert weights is None


@pytest.mark.usefixtures("kernel")
def test_gradients_equal_torch(layer: MultiHeadAttention, x: Tensor) -> None:
    twin = of_torch(layer)
    layer(x, x, causal_mask(LENGTH))[0].square().sum().backward()
    twin(x, x, x, attn_mask=~causal_mask(LENGTH))[0].square().sum().backward()
    ours = torch.cat([part.weight.grad for part in (layer.query, layer.key, layer.value)])
    torch.testing.assert_close(ours, twin.in_proj_weight.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("queries", "gradient", "dropout", "is_fused"),
    [(1, False, 0.0, True), (256, True, 0.0, False), (257, True, 0.0, True), (257, False, 0.5, False)],
)
def test_the_kernel_is_chosen_by_what_is_faster(
    monkeypatch: pytest.MonkeyPatch, queries: int, gradient: bool, dropout: float, is_fused: bool
) -> None:
    calls = []

    def fused(query: Tensor, *_: Tensor, attn_mask: Tensor | None) -> Tensor:
        calls.append(query)
        return query

    monkeypatch.setattr(attention.functional, "scaled_dot_product_attention", fused)
    x = torch.ones(1, queries, WIDTH)
    with torch.set_grad_enabled(gradient):
        MultiHeadAttention(WIDTH, HEADS, dropout)(x, x)
    assert bool(calls) == is_fused


def test_dropout_acts_on_the_weights_in_training_alone(x: Tensor) -> None:
    torch.manual_seed(2)
    layer = MultiHeadAttention(WIDTH, HEADS, dropout=0.5)
    nn.init.eye_(layer.output.weight)
    nn.init.zeros_(layer.output.bias)
    # To a single key the weight is 1: a head gives its value twice where the weight stays, and else nothing.
    source = x[:, :1]
    value = layer.value(source).view(ROWS, 1, HEADS, -1).expand(ROWS, LENGTH, HEADS, -1)
    mixed, weights = layer(x, source, with_weights=True)
    heads = mixed.view_as(value)
    kept = (heads != 0).any(-1, keepdim=True)
    assert 0 < kept.float().mean() < 1
    torch.testing.assert_close(heads, 2 * value * kept)
    assert torch.equal(weights, torch.ones(ROWS, HEADS, LENGTH, 1)), "those that are shown are whole"
    torch.testing.assert_close(layer.eval()(x, source)[0].view_as(value), value)


def test_weights_of_a_query_sum_to_one_over_what_it_may_see(x: Tensor) -> None:
    split = x.view(ROWS, LENGTH, HEADS, -1).transpose(1, 2)
    weights = attention_weights(split, split, causal_mask(LENGTH))
    torch.testing.assert_close(weights.sum(-1), torch.ones(ROWS, HEADS, LENGTH))
    assert (weights.triu(1) == 0).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(LENGTH, LENGTH), "is boolean, True where a query may look; this one is torch.float32"),
        (torch.ones(LENGTH, LENGTH, dtype=torch.int64), "this one is torch.int64"),
        (torch.ones(ROWS, LENGTH + 1, dtype=torch.bool), r"shape \(2, 6\) does not broadcast .* = \(2, 3, 5, 5\)"),
        (torch.ones(1, 1, 1, 1, LENGTH, dtype=torch.bool), "does not broadcast"),
    ],
)
def test_masks_that_are_none_are_refused(layer: MultiHeadAttention, x: Tensor, mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(x, x, mask)


def test_a_query_that_may_look_at_nothing_gets_nan_by_products_and_zeros_by_the_kernel(
    layer: MultiHeadAttention, x: Tensor
) -> None:
    nothing = torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    nothing[2] = False
    by_products = layer(x, x, nothing)[0]
    assert by_products[:, 2].isnan().all()
    with torch.no_grad():
        by_kernel = layer(x, x, nothing)[0]
    torch.testing.assert_close(by_kernel[:, 2], layer.output.bias.expand(ROWS, WIDTH))
    others = [0, 1, 3, 4]
    torch.testing.assert_close(by_products[:, others], by_kernel[:, others], atol=1e-5, rtol=1e-5)


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="A width of 10 cannot be divided among 3 heads"):
        MultiHeadAttention(10, 3)
