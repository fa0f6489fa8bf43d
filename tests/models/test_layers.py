"""The parts of the Transformer equal torch's, with and without padding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.models.test_attention import of_torch
from transferkit.models.attention import MultiHeadAttention, causal_mask
from transferkit.models.layers import (
    Activation,
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    LayerNorm,
    Residual,
    Shape,
    SinusoidalPositions,
    TokenEmbedding,
    sinusoids,
)

SHAPE = Shape(width=12, heads=3, feed_forward=20, dropout=0.0)
REAL = torch.tensor([[True] * 5, [True, True, True, False, False]])
STYLES = [(pre_norm, activation) for pre_norm in (True, False) for activation in ("relu", "gelu")]


def random(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, length, SHAPE.width, generator=torch.Generator().manual_seed(seed))


def shaken(module: nn.Module) -> nn.Module:
    """With norms that are not at their start, so that their place matters."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.4)
    return module.eval()


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    theirs.load_state_dict(of_torch(ours).state_dict())


def copy_feed_forward(ours: nn.Module, theirs: nn.Module) -> None:
    theirs.linear1.load_state_dict(ours.feed_forward.linear1.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.linear2.state_dict())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("pre_norm", "activation"), STYLES)
def test_an_encoder_layer_equals_torch(pre_norm: bool, activation: Activation, masked: bool) -> None:
    layer = shaken(EncoderLayer(replace(SHAPE, pre_norm=pre_norm, activation=activation)))
    twin = nn.TransformerEncoderLayer(
        SHAPE.width, SHAPE.heads, SHAPE.feed_forward, 0.0, activation, batch_first=True, norm_first=pre_norm
    ).eval()
    copy_attention(layer.attention, twin.self_attn)
    copy_feed_forward(layer, twin)
    twin.norm1.load_state_dict(layer.residuals[0].norm.state_dict())
    twin.norm2.load_state_dict(layer.residuals[1].norm.state_dict())
    x = random(2, 5)
    ours = layer(x, REAL[:, None, None, :] if masked else None)
    theirs = twin(x, src_key_padding_mask=~REAL if masked else None)
    # Both compute padding as any other position; torch may leave zeros there instead.
    torch.testing.assert_close(ours[REAL], theirs[REAL], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("pre_norm", "activation"), STYLES)
def test_a_decoder_layer_equals_torch(pre_norm: bool, activation: Activation, masked: bool) -> None:
    layer = shaken(DecoderLayer(replace(SHAPE, pre_norm=pre_norm, activation=activation)))
    twin = nn.TransformerDecoderLayer(
        SHAPE.width, SHAPE.heads, SHAPE.feed_forward, 0.0, activation, batch_first=True, norm_first=pre_norm
    ).eval()
    copy_attention(layer.self_attention, twin.self_attn)
    copy_attention(layer.cross_attention, twin.multihead_attn)
    copy_feed_forward(layer, twin)
    for norm, residual in zip((twin.norm1, twin.norm2, twin.norm3), layer.residuals, strict=True):
        norm.load_state_dict(residual.norm.state_dict())
    x, states = random(2, 4), random(2, 5, seed=1)
    causal = causal_mask(4)
    ours = layer(x, states, REAL[:, None, None, :] if masked else None, causal)
    theirs = twin(x, states, tgt_mask=~causal, memory_key_padding_mask=~REAL if masked else None)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


# The deviation of a row at which its variance is eps, and which is small enough for eps to matter.
SMALL = math.sqrt(1e-5)


def spread(deviation: float) -> Tensor:
    """Rows with this standard deviation, the variance divided by D, about a mean of 3 deviations."""
    x = torch.randn(3, 512, generator=torch.Generator().manual_seed(0))
    return ((x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, unbiased=False) + 3) * deviation


@pytest.mark.parametrize("deviation", [1.0, SMALL])
def test_a_norm_is_what_its_formula_says(deviation: float) -> None:
    norm = shaken(LayerNorm(512))
    x = spread(deviation)
    centred, variance = x - x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    formula = centred / (variance + 1e-5).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x), formula, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("deviation", "ratio"), [(1.0, 1.0), (SMALL, math.sqrt(2))])
def test_the_norm_of_textbooks_differs_by_what_is_said(deviation: float, ratio: float) -> None:
    x = spread(deviation)
    textbook = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(textbook, LayerNorm(512)(x) * ratio * math.sqrt(511 / 512), rtol=5e-4, atol=1e-5)


def test_an_activation_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"There is no activation 'swish'; choose relu or gelu\."):
        Shape(activation="swish")  # type: ignore[arg-type]


def test_embeddings_are_scaled_by_the_root_of_the_width() -> None:
    embedding = TokenEmbedding(7, 16)
    ids = torch.tensor([[1, 6]])
    assert torch.equal(embedding(ids), embedding.weight[ids] * 4)


@pytest.mark.parametrize("width", [6, 7, 1])
def test_positions_are_sines_on_even_and_cosines_on_odd_places(width: int) -> None:
    table = sinusoids(9, width)
    for position in range(9):
        for place in range(width):
            angle = position / 10000 ** ((place - place % 2) / width)
            expected = math.cos(angle) if place % 2 else math.sin(angle)
            assert table[position, place] == pytest.approx(expected, abs=1e-5)


def test_positions_go_on_where_they_are_told_and_past_the_table() -> None:
    positions = SinusoidalPositions(SHAPE.width, length=4).eval()
    x = torch.zeros(1, 10, SHAPE.width)
    whole = positions(x)
    assert torch.equal(whole[0], sinusoids(10, SHAPE.width))
    assert torch.equal(positions(x[:, :3], first=7), whole[:, 7:])
    assert not list(positions.state_dict()), "what is computed is not saved"
    assert "table" in dict(positions.named_buffers()), "it moves with the module"


def places_of_dropout() -> dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]]:
    """Each module that drops half, and of an input what it drops in the end."""
    shape = replace(SHAPE, feed_forward=SHAPE.width, dropout=0.5)
    positions, feed_forward, residual = SinusoidalPositions(shape.width, 0.5), FeedForward(shape), Residual(shape)
    # Behind the dropout of the feed-forward layer nothing is mixed.
    nn.init.eye_(feed_forward.linear2.weight)
    nn.init.zeros_(feed_forward.linear2.bias)
    nn.init.ones_(feed_forward.linear1.bias)
    nn.init.zeros_(feed_forward.linear1.weight)
    return {
        "positions": (positions, positions),
        "feed-forward": (feed_forward, feed_forward),
        "residual": (residual, lambda x: residual(x, torch.ones_like) - x),
    }


@pytest.mark.parametrize("place", ["positions", "feed-forward", "residual"])
def test_dropout_is_in_its_places_in_training_alone(place: str) -> None:
    torch.manual_seed(0)
    module, outcome = places_of_dropout()[place]
    dropped = outcome(random(2, 5))
    module.eval()
    whole = outcome(random(2, 5))
    kept = dropped.abs() > 1e-6
    assert (whole.abs() > 1e-6).all()
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(dropped, 2 * whole * kept)


def test_positions_that_grew_in_inference_serve_training() -> None:
    positions = SinusoidalPositions(SHAPE.width, length=4)
    with torch.inference_mode():
        positions(torch.zeros(1, 10, SHAPE.width))
    assert not positions.table.is_inference()
    positions.fill()
    x = torch.zeros(1, 10, SHAPE.width, requires_grad=True)
    positions(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
