"""Multi-head attention (Vaswani et al. 2017, section 3.2).

Shapes: B rows, H heads, Q queries, K keys, D width, D / H width of a head. A mask is boolean, True where a query may
look at a key, and broadcasts to [B, H, Q, K].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from transferkit.models.dropout import CheapDropout

# Up to so many queries, plain products are faster than the fused kernel with the backward pass, which is slow on a CPU.
# Weights that drop out are plain products at any length: the kernel has the dropout of torch.
FEW_QUERIES = 256


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
        self.dropout = CheapDropout(dropout)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def forward(
        self, x: Tensor, source: Tensor, mask: Tensor | None = None, with_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Let x [B, Q, D] look at source [B, K, D]; the same tensor twice is self-attention.

        Returns:
            the outcome [B, Q, D], and the weights [B, H, Q, K] if asked for. Of a query that may look at nothing the
            products give NaN, and the fused kernel counts what it looks at as zeros.

        Raises:
            ValueError: the mask is not boolean, or does not broadcast.
        """
        query, key, value = self._split(self.query(x)), self._split(self.key(source)), self._split(self.value(source))
        _check_mask(mask, (*query.shape[:3], key.shape[2]))
        drops = self.dropout.training and self.dropout.p > 0
        weights = None
        has_gradient = query.requires_grad or value.requires_grad
        if with_weights or drops or (has_gradient and query.shape[2] <= FEW_QUERIES):
            weights = attention_weights(query, key, mask)
            mixed = self.dropout(weights) @ value
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
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
    # Autocast would take it to float32, at twice the memory.
    with torch.autocast(scores.device.type, enabled=False):
        return torch.softmax(scores, -1)


def causal_mask(length: int) -> Tensor:
    """Which positions each of so many may look at, itself and those before it: [Q, K]."""
    return torch.ones(length, length, dtype=torch.bool).tril()


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
