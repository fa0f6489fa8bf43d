"""One sentence for another: the next token of the target at every position, the true ones before it given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transferkit.data.batching import IGNORE_INDEX
from transferkit.tasks.cross_entropy import cross_entropy


@dataclass(frozen=True)
class Translation:
    """Cross-entropy over the tokens of the target, padding left out."""

    label_smoothing: float = 0.0

    name = "translation"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of the cross-entropies in nats: logits [rows, length, vocabulary], labels [rows, length]."""
        return cross_entropy(logits.flatten(0, 1), labels.flatten(), self.label_smoothing)

    def weight(self, labels: Tensor) -> Tensor:
        """The number of tokens that count."""
        return (labels != IGNORE_INDEX).sum().to(torch.float32)
