"""The precision is what was asked for, or what the clock says."""

from __future__ import annotations

import pytest
import torch

from transferkit.training import precision
from transferkit.training.precision import autocast, choose_precision, training_kernels


@pytest.mark.parametrize(("ratio", "expected"), [(0.4, "fp32"), (1.1, "fp32"), (2.9, "bf16")])
def test_bf16_has_to_be_clearly_faster(monkeypatch: pytest.MonkeyPatch, ratio: float, expected: str) -> None:
    monkeypatch.setattr(precision, "bf16_speedup", lambda: ratio)
    chosen, reason = choose_precision("auto")
    assert chosen == expected
    assert f"{ratio:.1f} times" in reason


def test_what_is_asked_for_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_speedup", lambda: pytest.fail("measured"))
    assert choose_precision("bf16")[0] == "bf16"
    assert choose_precision("fp32")[0] == "fp32"


def test_the_measured_ratio_is_a_positive_number() -> None:
    assert precision.bf16_speedup() > 0


def test_contexts_compute_in_the_precision_they_name() -> None:
    layer, x, device = torch.nn.Linear(4, 4), torch.randn(2, 4), torch.device("cpu")
    with autocast(device, "bf16"):
        assert layer(x).dtype == torch.bfloat16
    with training_kernels(device, "fp32", 8):
        assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("length", [16, 200])
def test_the_attention_kernel_changes_the_speed_and_not_the_answer(length: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, length, 8, requires_grad=True) for _ in range(3))
    mask = torch.ones(2, 1, 1, length, dtype=torch.bool)
    mask[0, ..., -5:] = False
    attention = torch.nn.functional.scaled_dot_product_attention
    exact = attention(q, k, v, attn_mask=mask)
    with training_kernels(torch.device("cpu"), "bf16", length):
        rounded = attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(rounded.float(), exact, atol=2e-2, rtol=2e-2)
