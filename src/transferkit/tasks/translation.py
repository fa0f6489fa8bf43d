"""One sentence for another: the next word of the target at every position, the true ones before it given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from transferkit.data.batching import IGNORE_INDEX


@dataclass(frozen=True)
class Translation:
    """Cross-entropy over the words of the target, padding left out.

    With label smoothing (Szegedy et al. 2016, section 7) a share of the truth is spread evenly over the vocabulary.
    """

    label_smoothing: float = 0.0

    name = "translation"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of the cross-entropies in nats: logits [rows, length, words], labels [rows, length]."""
        return functional.cross_entropy(
            logits.flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )

    def weight(self, labels: Tensor) -> Tensor:
        """The number of words that count."""
        return (labels != IGNORE_INDEX).sum().to(torch.float32)
