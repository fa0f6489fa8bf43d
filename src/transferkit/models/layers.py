"""The parts of the Transformer (Vaswani et al. 2017), each as the paper or its best-known descendants have it.

Shapes: B rows, S positions of a source, T of a target, D width. Masks are boolean, True where a position may be looked
at: `source_mask` [B, 1, 1, S], `target_mask` [B, 1, T, T].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from transferkit.models.attention import MultiHeadAttention
from transferkit.models.dropout import CheapDropout
from transferkit.models.norm import AutocastNorm

Activation = Literal["relu", "gelu"]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"relu": functional.relu, "gelu": functional.gelu}


@dataclass(frozen=True)
class Shape:
    """The sizes that all layers of a stack share; as they stand, those of the paper's base model (table 3)."""

    width: int = 512
    heads: int = 8
    feed_forward: int = 2048
    dropout: float = 0.1
    activation: Activation = "relu"
    # Norms before each sublayer keep deep stacks trainable without a long warm-up (Xiong et al. 2020); the paper has
    # them after.
    pre_norm: bool = True

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"There is no activation {self.activation!r}; choose {' or '.join(ACTIVATIONS)}.")


# Of all norms; that of torch, and the inference forms of the models have it too.
NORM_EPS = 1e-5


class LayerNorm(AutocastNorm):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension (Ba et al. 2016, equation 4).

    `weight` is the learnt scale and starts at 1, `bias` the learnt shift and starts at 0; eps is 1e-5, and the variance
    divides by D. It is `nn.LayerNorm`. The variant of some textbooks, (x - mean) / (std + eps), differs in two ways.
    Its standard deviation divides by D - 1, so that values are smaller by sqrt((D - 1) / D), a thousandth at a width of
    512. And its eps stands beside the root, not under it: where the deviation is no more than sqrt(1e-5), which is
    0.003, ours gives values smaller by sqrt(2) and more, and the variant with its usual eps of 1e-6 does not. Weights
    that were trained with one are off by that in the other.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=NORM_EPS)


class TokenEmbedding(nn.Embedding):
    """Vectors of tokens times sqrt(D), which brings them to the size of the positions (section 3.4)."""

    def forward(self, ids: Tensor) -> Tensor:
        """ids int64 [B, L] -> [B, L, D]."""
        return super().forward(ids) * math.sqrt(self.embedding_dim)


def sinusoids(length: int, width: int) -> Tensor:
    """PE(position, 2i) = sin(position / 10000^(2i / D)), and cosine at 2i + 1 (section 3.5): [length, D].

    An odd width ends with a sine.
    """
    angles = torch.arange(length).unsqueeze(1) / 10000 ** (torch.arange(0, width, 2) / width)
    table = torch.empty(length, width)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()[:, : width // 2]
    return table


class SinusoidalPositions(nn.Module):
    """Adds to each vector the sinusoids of its position, then drops out. Any length works: the table grows."""

    table: Tensor

    def __init__(self, width: int, dropout: float = 0.0, length: int = 512) -> None:
        """`length` is how many positions are computed at the start."""
        super().__init__()
        self.register_buffer("table", sinusoids(length, width), persistent=False)
        self.dropout = CheapDropout(dropout)

    def fill(self) -> None:
        """Compute the table anew, where loading has left only the room for it."""
        self.table.copy_(sinusoids(*self.table.shape))

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """x [B, L, D], whose positions are `first` and those that follow."""
        end = first + x.shape[1]
        # Through a name of its own: another thread may let the table grow at the same time, to another length.
        table = self.table
        if end > len(table):
            # Training may go on with a table that has grown while translating.
            with torch.inference_mode(False):
                self.table = table = sinusoids(2 * end, x.shape[2]).to(table)
        dropped: Tensor = self.dropout(x + table[first:end])
        return dropped


class FeedForward(nn.Module):
    """Wide, activation, dropout, back (section 3.3)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.linear1 = nn.Linear(shape.width, shape.feed_forward)
        self.linear2 = nn.Linear(shape.feed_forward, shape.width)
        self.dropout = CheapDropout(shape.dropout)
        self.activation = ACTIVATIONS[shape.activation]

    def forward(self, x: Tensor) -> Tensor:
        """Any [..., D]."""
        y: Tensor = self.linear2(self.dropout(self.activation(self.linear1(x))))
        return y


class Residual(nn.Module):
    """x + sublayer(norm(x)), or in post-norm norm(x + sublayer(x)) (section 3.1), with dropout on what is added."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm = LayerNorm(shape.width)
        self.dropout = CheapDropout(shape.dropout)
        self.pre_norm = shape.pre_norm

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x [..., D]."""
        y: Tensor = self.dropout(sublayer(self.norm(x) if self.pre_norm else x)) + x
        return y if self.pre_norm else cast(Tensor, self.norm(y))


class Weights(list[Tensor]):
    """Collects attention weights [B, H, Q, K], one of each attention in the order in which they are computed."""

    def of(self, outcome: tuple[Tensor, Tensor | None]) -> Tensor:
        """Keep the weights of an attention and hand on its outcome."""
        mixed, weights = outcome
        if weights is not None:
            self.append(weights)
        return mixed


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each in a residual connection."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(shape.width, shape.heads, shape.dropout)
        self.feed_forward = FeedForward(shape)
        self.residuals = nn.ModuleList(Residual(shape) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None, weights: Weights | None = None) -> Tensor:
        """x [B, S, D]; `weights`, where given, collects those of the attention."""
        attention, feed_forward = self.residuals
        kept = Weights() if weights is None else weights
        x = attention(x, lambda y: kept.of(self.attention(y, y, mask, weights is not None)))
        y: Tensor = feed_forward(x, self.feed_forward)
        return y


class DecoderLayer(nn.Module):
    """Self-attention over the target, cross-attention to the source, and feed-forward."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(shape.width, shape.heads, shape.dropout)
        self.cross_attention = MultiHeadAttention(shape.width, shape.heads, shape.dropout)
        self.feed_forward = FeedForward(shape)
        self.residuals = nn.ModuleList(Residual(shape) for _ in range(3))

    def forward(
        self, x: Tensor, states: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None,
        weights: Weights | None = None,
    ) -> Tensor:  # fmt: skip
        """x [B, T, D], the source's states [B, S, D]; `weights` collects those of the target's attention, then the
        source's."""
        own, cross, feed_forward = self.residuals
        kept = Weights() if weights is None else weights
        x = own(x, lambda y: kept.of(self.self_attention(y, y, target_mask, weights is not None)))
        x = cross(x, lambda y: kept.of(self.cross_attention(y, states, source_mask, weights is not None)))
        y: Tensor = feed_forward(x, self.feed_forward)
        return y


class Encoder(nn.Module):
    """A row of encoder layers, and a norm after the last where the layers have theirs in front."""

    def __init__(self, layers: int, shape: Shape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(layers))
        self.norm = LayerNorm(shape.width) if shape.pre_norm else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None, weights: Weights | None = None) -> Tensor:
        """x [B, S, D]."""
        for layer in self.layers:
            x = layer(x, mask, weights)
        y: Tensor = self.norm(x)
        return y


class Decoder(nn.Module):
    """A row of decoder layers, and a norm as in the encoder."""

    def __init__(self, layers: int, shape: Shape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(layers))
        self.norm = LayerNorm(shape.width) if shape.pre_norm else nn.Identity()

    def forward(
        self, x: Tensor, states: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None,
        weights: Weights | None = None,
    ) -> Tensor:  # fmt: skip
        """x [B, T, D], the source's states [B, S, D]."""
        for layer in self.layers:
            x = layer(x, states, source_mask, target_mask, weights)
        y: Tensor = self.norm(x)
        return y
