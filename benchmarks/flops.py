"""How much of the machine's matrix speed a training reaches."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.data import Rows, Splits
from benchmarks.recipe import BACKBONE, MAX_LENGTH, Recipe
from transferkit.models.hub import locate

FORMULA = (
    "FLOPs of a forward pass of one layer = 2 * (4 d^2 + 2 d f) * tokens + 4 * L^2 * d for every row of L real "
    "tokens, d wide with an inner width of f; the backward pass costs 0 below the first layer with anything to "
    "train, 1 forward pass where only activations need gradients, 2 where the layer's own weight matrices train. "
    "Summed over layers, and over the epochs: forward and backward on the training rows, forward on the validation "
    "rows. Adapters, embeddings, head, padding and optimizer are not counted. share = FLOPs / seconds / the fastest "
    "matrix product that was measured before the pairs or after them. Work that a cache saves is counted all the same, "
    "so a share above 1 is possible."
)
# Large enough for the kernels to be at their best, small enough to take milliseconds.
SIZE = 1024


def share_of_peak(recipe: Recipe, splits: Splits, seconds: float, before: Mapping[str, float]) -> dict[str, Any]:
    """Estimated FLOPs, the measured peak, their quotient over `seconds`, and the formula.

    `before` is what `peak_flops` gave before the training was timed: a busy machine has its peak at one time or the
    other.
    """
    counted = training_flops(recipe, splits)
    peak = {name: max(before[name], after) for name, after in peak_flops().items()}
    return {
        "share": counted / seconds / max(peak.values()),
        "flops": counted,
        "peak_flops_per_second": peak,
        "formula": FORMULA,
    }


def training_flops(recipe: Recipe, splits: Splits) -> float:
    """Of all epochs, by `FORMULA`."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(locate(BACKBONE).folder)
    factors = backward_factors(recipe, config.num_hidden_layers)
    train, validation = (_forward(rows, config) for rows in (splits.train, splits.validation))
    return recipe.epochs * (sum(train * (1 + factor) for factor in factors) + len(factors) * validation)


def backward_factors(recipe: Recipe, layers: int) -> list[int]:
    """The cost of the backward pass through each layer, in forward passes."""
    if recipe.strategy in ("full", "scratch"):
        return [2] * layers
    if recipe.strategy == "linear-probe":
        return [0] * layers
    if recipe.strategy == "partial":
        trained = recipe.options["layers"]
        return [0] * (layers - trained) + [2] * trained
    return [1] * layers


def peak_flops() -> dict[str, float]:
    """FLOPs per second by precision, as they are now."""
    return {name: matmul_flops(dtype) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}


def matmul_flops(dtype: torch.dtype, repeats: int = 20) -> float:
    """FLOPs per second of the fastest of some square matrix products."""
    left, right = torch.randn(SIZE, SIZE).to(dtype), torch.randn(SIZE, SIZE).to(dtype)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(times)


def _forward(rows: Rows, config: Any) -> float:
    """FLOPs of one layer on all rows."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(locate(BACKBONE).folder)
    columns = [list(column) for column in zip(*rows.texts, strict=True)]
    lengths = [len(ids) for ids in tokenizer(*columns, truncation=True, max_length=MAX_LENGTH)["input_ids"]]
    width, inner = config.hidden_size, config.intermediate_size
    linear = 2 * (4 * width**2 + 2 * width * inner) * sum(lengths)
    attention = 4 * width * sum(length**2 for length in lengths)
    return float(linear + attention)
