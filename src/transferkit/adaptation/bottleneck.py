"""Bottleneck adapters: small residual networks after frozen layers (Houlsby et al. 2019, section 2.1)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from transferkit.adaptation.adapters import AdapterLayer, wrap_linears
from transferkit.adaptation.base import Strategy
from transferkit.adaptation.freezing import feed_forward_linears
from transferkit.adaptation.patterns import Patterns
from transferkit.errors import AdaptationError


class BottleneckLinear(AdapterLayer):
    """y + up(relu(down(y))) with y = W x + b frozen; down: out -> size, up: size -> out."""

    adapter_layer_names = ("down", "up")

    def __init__(self, base: nn.Linear, size: int) -> None:
        super().__init__(base)
        self.down = nn.Linear(base.out_features, size)
        self.up = nn.Linear(size, base.out_features)
        # Near the identity, as the paper asks for, and not at it: with both layers alive from the first step
        # neither waits for the other.
        nn.init.normal_(self.up.weight, std=1e-3)
        nn.init.zeros_(self.up.bias)
        self.to(base.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        y: Tensor = self.base(x)
        adapted: Tensor = y + self.up(torch.relu(self.down(y)))
        return adapted

    def merged(self) -> nn.Linear:
        """There is none: the adapter is not linear."""
        raise AdaptationError(
            "Bottleneck adapters cannot be merged: their ReLU has no linear equivalent. Keep the capsule, or use lora."
        )


class Bottleneck(Strategy):
    """Train the head and residual bottleneck adapters on the output of chosen linear layers."""

    name: ClassVar[str] = "bottleneck"

    # As for LoRA: new, small, near-zero weights want large steps (Houlsby et al. 2019, section 3.2, sweep up to 3e-3).
    learning_rate: float = Field(default=1e-3, gt=0)
    # 24 for 384 wide layers is the ratio of 1 to 16 at which the paper's scores level off (section 3.4).
    size: int = Field(default=24, ge=1)
    # Empty: both feed-forward layers of every transformer layer.
    targets: Patterns = ()

    def adapt(self, model: nn.Module) -> None:
        """Wrap the targets; the head trains as it is."""
        wrap_linears(
            model,
            self.targets or feed_forward_linears(model),
            lambda layer: BottleneckLinear(layer, self.size),
        )
