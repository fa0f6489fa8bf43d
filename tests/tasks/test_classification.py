"""The loss: torch's own, with its sum and its weight kept apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from transferkit.tasks.classification import Classification

LABELS = ("a", "b", "c")


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5)])
def test_sum_over_weight_is_the_mean_of_torch(smoothing: float, weights: tuple[float, ...] | None) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 3), torch.tensor([0, 1, 2, 2, 1, 0, 0])
    task = Classification(LABELS, weights, smoothing)
    expected = functional.cross_entropy(
        logits, labels, weight=None if weights is None else torch.tensor(weights), label_smoothing=smoothing
    )
    torch.testing.assert_close(task.loss(logits, labels) / task.weight(labels), expected)


def test_balanced_weights_give_every_class_the_same_share() -> None:
    counts = np.array([60, 30, 10])
    task = Classification.balanced(LABELS, counts, label_smoothing=0.0)
    assert task.class_weights is not None
    np.testing.assert_allclose(np.array(task.class_weights) * counts, 100 / 3)


def test_the_loss_is_computed_in_fp32_whatever_the_logits_are() -> None:
    logits = torch.randn(4, 3, dtype=torch.bfloat16)
    assert Classification(LABELS).loss(logits, torch.tensor([0, 1, 2, 0])).dtype == torch.float32
