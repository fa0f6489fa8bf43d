"""One label out of several for a text or a pair of texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Classification:
    """Cross-entropy over the classes `labels`."""

    labels: tuple[str, ...]
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    name = "classification"

    @classmethod
    def balanced(cls, labels: tuple[str, ...], counts: np.ndarray, label_smoothing: float) -> Classification:
        """Weights n / (classes * count), with which every class adds the same to the loss."""
        weights = counts.sum() / (len(counts) * counts)
        return cls(labels, tuple(weights.tolist()), label_smoothing)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of the weighted cross-entropies in nats: logits [rows, classes], labels [rows]."""
        return functional.cross_entropy(
            # The softmax of many small differences wants more digits than bf16 has.
            logits.float(),
            labels,
            weight=self._weights(logits),
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )

    def weight(self, labels: Tensor) -> Tensor:
        """The sum of the class weights of `labels` [rows]; their number where classes weigh the same."""
        weights = self._weights(labels)
        return labels.new_tensor(len(labels), dtype=torch.float32) if weights is None else weights[labels].sum()

    def _weights(self, like: Tensor) -> Tensor | None:
        if self.class_weights is None:
            return None
        return torch.tensor(self.class_weights, dtype=torch.float32, device=like.device)
