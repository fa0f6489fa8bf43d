"""Layer normalization that keeps the states of a model in the precision of autocast.

Autocast leaves norms in fp32. Their output is then cast for every product that reads it, and what is added to it is
cast back, a tenth of a step in bf16. The norm itself still computes in fp32, from and to bf16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class AutocastNorm(nn.LayerNorm):
    """`nn.LayerNorm` that takes and gives the precision of autocast."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Any [..., *normalized_shape]; without autocast, `nn.LayerNorm` itself."""
        device = input.device.type
        if torch.is_autocast_enabled(device):
            input = input.to(torch.get_autocast_dtype(device))  # noqa: A001
        return functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)
