"""Logits of a whole table, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from transferkit.environment import releasing
from transferkit.training.precision import Compute, autocast
from transferkit.training.tracking import Listener

# A batch without labels to logits [rows, classes].
Forward = Callable[[dict[str, Tensor]], Tensor]


class BatchedRows(Protocol):
    """Rows to answer, of texts or of anything else."""

    def __len__(self) -> int: ...

    def in_length_order(self, max_tokens: int) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
        """(row numbers, batch) over all rows, in batches of at most `max_tokens` tokens and of one row at least."""


def predict_logits(
    model: nn.Module,
    table: BatchedRows,
    max_tokens: int,
    listener: Listener,
    compute: Compute | None = None,
    forward: Forward | None = None,
) -> np.ndarray:
    """Logits of all rows in their own order, float32 [rows, classes], computed in eval mode.

    Args:
        model: answers a batch with logits.
        table: the rows.
        max_tokens: of one batch, padding among them.
        listener: hears of every batch.
        compute: None for fp32. Scores that are reported use it: in bf16 a row's answer depends on the rows that share
            its batch.
        forward: what to call instead of `model`, which it is a part of.
    """
    model.eval()
    device = next(model.parameters()).device

    def answer(batch: dict[str, Tensor]) -> Tensor:
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        with autocast(compute or Compute(), device.type):
            return forward(batch) if forward else cast(Tensor, model(**batch))

    return answer_all(answer, table, max_tokens, listener)


@torch.inference_mode()
def answer_all(answer: Forward, table: BatchedRows, max_tokens: int, listener: Listener) -> np.ndarray:
    """What `answer` gives for all rows in their own order, float32 [rows, classes]."""
    logits: np.ndarray | None = None
    for rows, batch in releasing(table.in_length_order(max_tokens)):
        batch.pop("labels", None)
        part = answer(batch).float().cpu().numpy()
        if logits is None:
            logits = np.empty((len(table), part.shape[1]), dtype=np.float32)
        logits[rows] = part
        listener.advanced(len(rows))
    assert logits is not None, "a table has rows"
    return logits
