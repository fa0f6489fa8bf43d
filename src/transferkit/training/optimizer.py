"""AdamW over what trains, and the learning rate by step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Adam:
    """The numbers of Adam (Kingma and Ba 2015, algorithm 1) that are not the learning rate."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


def make_optimizer(
    model: nn.Module, learning_rate: float, weight_decay: float, adam: Adam | None = None
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) without decay on biases, norms and other vectors.

    Decay pulls towards zero, and zero is not where the scale of a norm belongs.
    """
    adam = adam or Adam()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # One pass over memory for all tensors of a group instead of one for each operation on each tensor.
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=learning_rate, betas=adam.betas, eps=adam.eps, fused=True
    )


def learning_rate_factor(step: int, steps: int, warmup_ratio: float, schedule: str) -> float:
    """The share of the full learning rate at `step` (0 to steps - 1): linear warm-up, then the schedule.

    `linear` and `cosine` end at 0, `constant` stays, and `inverse-sqrt` falls with the root of the steps since the
    beginning (Vaswani et al. 2017, equation 3, which also warms up linearly).
    """
    warmup = math.ceil(steps * warmup_ratio)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "inverse-sqrt":
        return math.sqrt((warmup + 1) / (step + 1))
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "linear":
        return 1 - done
    if schedule == "cosine":
        # Loshchilov and Hutter 2017, equation 5, without restarts.
        return (1 + math.cos(math.pi * done)) / 2
    return 1.0
