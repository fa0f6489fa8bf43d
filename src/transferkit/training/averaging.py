"""The mean of a model's weights over epochs, in place of the weights of one epoch.

After each epoch training stands at another point around the same minimum, and which of them scores best on a few
hundred validation rows is mostly chance; their mean lies nearer the middle (Izmailov et al. 2018, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from transferkit.adaptation.capsule import learnt_tensors, load_learnt

# The weights after the first epoch are still on their way.
FIRST_EPOCH = 2
# Fewer leave a single epoch to take the mean of.
LEAST_EPOCHS = 3


class WeightAverage:
    """A running mean of what trains; numbers that are counts stay those of the last epoch."""

    def __init__(self, epochs: int = 0, mean: Mapping[str, Tensor] | None = None) -> None:
        """The `mean` of so many epochs, by name; of none as it stands."""
        self.epochs = epochs
        self.mean = dict(mean or {})

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Count the weights of one more epoch in."""
        self.epochs += 1
        for name, tensor in learnt_tensors(model).items():
            if self.epochs > 1 and tensor.is_floating_point():
                self.mean[name].lerp_(tensor, 1 / self.epochs)
            else:
                self.mean[name] = tensor.clone()

    def restore(self, model: nn.Module) -> None:
        """Put the mean into `model`."""
        load_learnt(model, self.mean, "the mean of the epochs")
