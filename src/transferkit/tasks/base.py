"""The protocol between a task and the loop."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Task(Protocol):
    """A loss that can be summed over parts of a batch: sum of losses, and the weight that normalises it.

    Keeping the two apart makes 8 steps of 1 row equal to 1 step of 8 rows, also under class weights.
    """

    @property
    def name(self) -> str:
        """The name that stands in `comparison.json`."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of the weighted losses of the rows, a scalar."""

    def weight(self, labels: Tensor) -> Tensor:
        """The sum of the weights of the rows, a scalar."""
