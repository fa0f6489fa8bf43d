"""LoRA: low-rank additions to frozen linear layers (Hu et al. 2021, section 4.1)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from transferkit.adaptation.adapters import AdapterLayer, wrap_linears
from transferkit.adaptation.base import Strategy
from transferkit.adaptation.freezing import encoder_linears
from transferkit.adaptation.patterns import Patterns


class LoRALinear(AdapterLayer):
    """y = W x + b + scaling * B A dropout(x), with W and b frozen.

    A [rank, in] starts random and B [out, rank] at zero, so that training starts from the base itself.
    `scaling` is alpha / rank, or alpha / sqrt(rank) when rank-stabilised (Kalajdzievski 2023, equation 4).
    """

    adapter_layer_names = ("lora_a", "lora_b")

    def __init__(self, base: nn.Linear, rank: int, scaling: float, dropout: float) -> None:
        super().__init__(base)
        self.scaling = scaling
        self.dropout = dropout
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        # The range that nn.Linear itself uses, as in the paper's code.
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        y: Tensor = self.base(x)
        x = functional.dropout(x, self.dropout, self.training)
        low_rank = functional.linear(functional.linear(x, self.lora_a), self.lora_b)
        return torch.add(y, low_rank, alpha=self.scaling)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer with the weight W + scaling * B A."""
        plain = nn.Linear(self.base.in_features, self.base.out_features, self.base.bias is not None)
        plain.to(self.base.weight)
        plain.weight.copy_(self.base.weight + self.scaling * self.lora_b @ self.lora_a)
        if self.base.bias is not None:
            plain.bias.copy_(self.base.bias)
        return plain.requires_grad_(False).train(self.training)


class LoRA(Strategy):
    """Train the head and a low-rank pair on chosen linear layers."""

    name: ClassVar[str] = "lora"

    # Ten to twenty times that of full fine-tuning: B starts at zero and the pair is scaled down by its rank.
    learning_rate: float = Field(default=1e-3, gt=0)
    # Rank 4 on every linear layer scores as rank 8 does here with half the bytes to store; where a rank
    # budget goes matters more than its size (Hu et al. 2021, tables 5 and 6).
    rank: int = Field(default=4, ge=1)
    # alpha = 2 * rank doubles the addition, the common choice.
    alpha: float = Field(default=8.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    rank_stabilised: bool = False
    # Empty: all attention and feed-forward linear layers.
    targets: Patterns = ()

    @property
    def scaling(self) -> float:
        """The factor on B A x."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def adapt(self, model: nn.Module) -> None:
        """Wrap the targets; the head trains as it is."""
        wrap_linears(
            model,
            self.targets or encoder_linears(model),
            lambda layer: LoRALinear(layer, self.rank, self.scaling, self.dropout),
        )
