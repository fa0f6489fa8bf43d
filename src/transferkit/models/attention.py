"""Multi-head attention (Vaswani et al. 2017, section 3.2).

Shapes: B rows, H heads, Q queries, K keys, D width, D / H width of a head. A mask is boolean, True where a query may
look at a key, and broadcasts to [B, H, Q, K].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from transferkit.models.dropout import dropout
from transferkit.models.key_values import KeysValues

# Up to so many queries, as in every step of decoding, plain products are up to three times as fast as the fused kernel;
# with the backward pass, in which the fused kernel is slow on a CPU, up to the larger number.
FEW_QUERIES, FEW_WITH_GRADIENT = 8, 256


class MultiHeadAttention(nn.Module):
    """H times scaled dot-product attention, each on projections of its own, and one projection of what they give."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        """`dropout` is the share of attention weights that are set to zero in training.

        Raises:
            ValueError: `width` is not a multiple of `heads`.
        """
        super().__init__()
        if width % heads:
            raise ValueError(f"A width of {width} cannot be divided among {heads} heads.")
        self.heads = heads
        self.dropout = dropout
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def forward(
        self, x: Tensor, source: Tensor, mask: Tensor | None = None, with_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Let x [B, Q, D] look at source [B, K, D]; the same tensor twice is self-attention.

        Returns:
            the outcome [B, Q, D], and the weights [B, H, Q, K] if asked for.

        Raises:
            ValueError: the mask is not boolean, or does not broadcast.
        """
        return self.look(x, self.project(source), mask, with_weights)

    def project(self, source: Tensor) -> KeysValues:
        """Keys and values of source [B, K, D]."""
        return KeysValues(self._split(self.key(source)), self._split(self.value(source)))

    def look(
        self, x: Tensor, given: KeysValues, mask: Tensor | None = None, with_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Let x [B, Q, D] look at keys and values that are projected already; returns what `forward` does."""
        query = self._split(self.query(x))
        _check_mask(mask, (*query.shape[:3], given.keys.shape[2]))
        share = self.dropout if self.training else 0.0
        weights = None
        few = FEW_WITH_GRADIENT if query.requires_grad or given.values.requires_grad else FEW_QUERIES
        if with_weights or share or query.shape[2] <= few:
            # All in the format of the keys: autocast would take the softmax to float32, at twice the memory, and the
            # float32 of what is kept between steps to bfloat16.
            with torch.autocast(x.device.type, enabled=False):
                weights = attention_weights(query.to(given.keys.dtype), given.keys, mask)
                mixed = (dropout(weights, share) if share else weights) @ given.values
        else:
            mixed = functional.scaled_dot_product_attention(query, given.keys, given.values, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(2)), weights if with_weights else None

    def _split(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, H, L, D / H]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(Q K^T / sqrt(D / H)) over the keys that `mask` allows (equation 1): [B, H, Q, K].

    A query that may look at nothing gets weights that are not numbers.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.softmax(scores, -1)


def causal_mask(queries: int, keys: int) -> Tensor:
    """Which of `keys` positions the last `queries` of them may look at, themselves and earlier ones: [Q, K]."""
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


def _check_mask(mask: Tensor | None, shape: tuple[int, ...]) -> None:
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise ValueError(f"An attention mask is boolean, True where a query may look; this one is {mask.dtype}.")
    fits = mask.ndim <= len(shape) and all(
        size in (1, wanted) for size, wanted in zip(reversed(mask.shape), reversed(shape), strict=False)
    )
    if not fits:
        raise ValueError(
            f"A mask of shape {tuple(mask.shape)} does not broadcast to [rows, heads, queries, keys] = {shape}."
        )
