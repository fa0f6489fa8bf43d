"""The loss and its gradient against torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from transferkit.data.batching import IGNORE_INDEX
from transferkit.tasks.cross_entropy import cross_entropy


def batch(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # More rows than are computed at a time, and not a multiple of these.
    torch.manual_seed(0)
    logits, labels = 4 * torch.randn(75, 50), torch.randint(0, 50, (75,))
    labels[::7] = IGNORE_INDEX
    return logits.to(dtype).requires_grad_(), labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_loss_and_gradient_are_those_of_torch(smoothing: float, dtype: torch.dtype, tolerance: float) -> None:
    logits, labels = batch(dtype)
    reference = logits.detach().float().requires_grad_()
    expected = functional.cross_entropy(
        reference, labels, ignore_index=IGNORE_INDEX, label_smoothing=smoothing, reduction="sum"
    )
    (expected / 60).backward()
    loss = cross_entropy(logits, labels, smoothing)
    (loss / 60).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(logits.grad.float(), reference.grad, rtol=tolerance, atol=tolerance / 100)


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    logits, labels = batch(torch.float32)
    cross_entropy(logits, labels, 0.1).backward()
    direction = torch.randn_like(logits)
    step = 1e-2
    with torch.no_grad():
        ahead, behind = (cross_entropy(logits + way * step * direction, labels, 0.1) for way in (1, -1))
    assert logits.grad is not None
    assert float((ahead - behind) / (2 * step)) == pytest.approx(float((logits.grad * direction).sum()), rel=1e-2)


def test_the_logits_are_left_as_they_are() -> None:
    logits, labels = batch(torch.float32)
    before = logits.detach().clone()
    cross_entropy(logits, labels, 0.1).backward()
    assert torch.equal(logits.detach(), before)


def test_rows_that_do_not_count_change_nothing() -> None:
    logits, labels = batch(torch.float32)
    counts = labels != IGNORE_INDEX
    torch.testing.assert_close(cross_entropy(logits, labels, 0.1), cross_entropy(logits[counts], labels[counts], 0.1))


def test_the_graph_is_walked_once() -> None:
    logits, labels = batch(torch.float32)
    loss = cross_entropy(logits, labels)
    loss.backward(retain_graph=True)
    with pytest.raises(AssertionError, match="walked once"):
        loss.backward()
