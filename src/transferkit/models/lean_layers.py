"""What the inference forms of models are made of: products and norms with as little as possible around them.

Layers on the same input are one product, an activation is part of the product before it, and weights lie in the order
in which the processor reads them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from transferkit.config import Precision
from transferkit.models.layers import ACTIVATIONS, Activation

Weights = Mapping[str, Tensor]

# How the packed product calls the exact GELU, and not the one by tanh.
_ALGORITHMS = {"gelu": "none"}
# The tokens of a pass that packed weights are laid out for; others work too.
_TYPICAL_TOKENS = 2048


class Linear:
    """y = act(W x + b), and where the layer has a bottleneck adapter what that adds, for x [..., in]."""

    def __init__(
        self, weights: Weights, names: tuple[str, ...], precision: Precision,
        activation: Activation | None = None, few_rows: bool = False,
    ) -> None:  # fmt: skip
        """Several names are layers on the same input, whose outputs follow one another.

        `few_rows` says that x has a hundred rows rather than thousands, as in decoding.
        """
        dtype = number_format(precision)
        self.weight = torch.cat([weights[f"{name}.weight"] for name in names]).to(dtype).contiguous()
        biases = [weights[f"{name}.bias"] for name in names if f"{name}.bias" in weights]
        self.bias = torch.cat(biases).to(dtype) if biases else None
        self.activation = activation
        turns = few_rows and precision == "fp32"
        self.is_packed = not turns and _packs(precision)
        if self.is_packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, _TYPICAL_TOKENS)
        elif turns:
            # Up to a hundred rows or so, turned weights are read faster still than packed ones.
            self.weight = self.weight.t().contiguous().t()
        adapter = f"{names[0]}.down.weight" in weights
        self.down = Linear(weights, (f"{names[0]}.down",), precision, "relu") if adapter else None
        self.up = Linear(weights, (f"{names[0]}.up",), precision) if adapter else None

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        if self.down is None or self.up is None:
            return self._product(x, self.activation)
        y = self._product(x, None)
        y = y + self.up(self.down(y))
        return ACTIVATIONS[self.activation](y) if self.activation else y

    def _product(self, x: Tensor, activation: Activation | None) -> Tensor:
        if self.is_packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self.weight, self.bias, activation or "none", [], _ALGORITHMS.get(activation or "", "")
            )
            return y
        y = functional.linear(x, self.weight, self.bias)
        return ACTIVATIONS[activation](y) if activation else y


class Norm:
    """Layer normalization over the last dimension (Ba et al. 2016, equation 4)."""

    def __init__(self, weights: Weights, name: str, eps: float, precision: Precision) -> None:
        dtype = number_format(precision)
        self.weight = weights[f"{name}.weight"].to(dtype, copy=True)
        self.bias = weights[f"{name}.bias"].to(dtype, copy=True)
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """Any [..., width]."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def number_format(precision: Precision) -> torch.dtype:
    """What weights and states of a precision are kept in."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def self_attention(joint: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention of rows to themselves.

    Args:
        joint: queries, keys and values one after the other, [rows, length, 3 * width].
        heads: among which the width is divided.
        mask: bool [rows, 1, 1, length], True where a position may be looked at; None where all may.

    Returns:
        [rows, length, width].
    """
    query, key, value = joint.view(*joint.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2)


def _packs(precision: Precision) -> bool:
    """Whether torch has the packed products that its own compiler uses on a CPU, and this processor takes them."""
    if not (hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return False
    return precision == "fp32" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
