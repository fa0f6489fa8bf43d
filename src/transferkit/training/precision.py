"""Which number format training computes in: chosen by measuring this machine, or set by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from statistics import median
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

Precision = Literal["fp32", "bf16"]

# bf16 keeps 8 bits of mantissa: it has to be clearly faster to be worth them.
WORTHWHILE_RATIO = 1.3
LONGEST_PLAIN_ATTENTION = 128


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


@contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """The context to run a forward pass in."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        yield


@contextmanager
def training_kernels(device: torch.device, precision: Precision, length: int) -> Iterator[None]:
    """The context to run a forward pass in whose gradients will be asked for, on rows of `length` tokens.

    torch's fused attention has a slow backward pass on a CPU in bf16: with 16 to 128 tokens the plain matrix
    products of `SDPBackend.MATH` take 0.15 to 0.7 of its time, with 256 they take 1.6 of it, and in fp32 they
    are slower at every length.
    """
    is_short = device.type == "cpu" and precision == "bf16" and length <= LONGEST_PLAIN_ATTENTION
    plain = sdpa_kernel(SDPBackend.MATH) if is_short else nullcontext()
    with plain, autocast(device, precision):
        yield


def _seconds(left: torch.Tensor, right: torch.Tensor, repeats: int = 15) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return median(times)
