"""Which number format training computes in: chosen by measuring this machine, or set by hand."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from functools import cache
from statistics import median
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]

# bf16 keeps 8 bits of mantissa: it has to be clearly faster to be worth them.
WORTHWHILE_RATIO = 1.3


def choose_precision(asked: Literal["auto", "fp32", "bf16"]) -> tuple[Precision, str]:
    """The precision to train in and one sentence that says why."""
    if asked != "auto":
        return asked, f"Precision {asked}, as asked for."
    ratio = bf16_speedup()
    chosen: Precision = "bf16" if ratio >= WORTHWHILE_RATIO else "fp32"
    return chosen, f"Precision {chosen}: matrix products in bf16 are {ratio:.1f} times as fast as in fp32 here."


@cache
def bf16_speedup() -> float:
    """How many times as fast a matrix product of a layer's size is in bf16 as in fp32, by the clock."""
    left, right = torch.randn(1024, 384), torch.randn(384, 1536)
    seconds = {dtype: _seconds(left.to(dtype), right.to(dtype)) for dtype in (torch.float32, torch.bfloat16)}
    return seconds[torch.float32] / seconds[torch.bfloat16]


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """The context to run the forward pass in."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def _seconds(left: torch.Tensor, right: torch.Tensor, repeats: int = 15) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return median(times)
