"""The loss of a translation against its definition."""

from __future__ import annotations

import pytest
import torch

from transferkit.data.batching import IGNORE_INDEX
from transferkit.tasks.translation import Translation


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_with_the_smoothed_truth(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 7), torch.tensor([[1, 4, IGNORE_INDEX], [6, IGNORE_INDEX, IGNORE_INDEX]])
    expected = torch.zeros(())
    for row, place in ((0, 0), (0, 1), (1, 0)):
        truth = torch.full((7,), smoothing / 7)
        truth[labels[row, place]] += 1 - smoothing
        expected = expected - (truth * logits[row, place].log_softmax(-1)).sum()
    torch.testing.assert_close(Translation(smoothing).loss(logits, labels), expected)


def test_padding_neither_counts_nor_has_a_gradient() -> None:
    labels = torch.tensor([[1, IGNORE_INDEX]])
    logits = torch.randn(1, 2, 5, requires_grad=True)
    task = Translation(0.1)
    task.loss(logits, labels).backward()
    assert task.weight(labels) == 1
    assert logits.grad is not None
    assert logits.grad[0, 1].abs().sum() == 0
    assert logits.grad[0, 0].abs().sum() > 0
