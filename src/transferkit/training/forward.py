"""Logits of a whole table, without gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from transferkit.data.batching import FeatureTable
from transferkit.training.precision import Precision, autocast
from transferkit.training.tracking import Listener


@torch.inference_mode()
def predict_logits(
    model: nn.Module, table: FeatureTable, batch_size: int, listener: Listener, precision: Precision = "fp32"
) -> np.ndarray:
    """Logits of all rows in their own order, float32 [rows, classes], computed in eval mode.

    Scores that are reported use fp32: in bf16 a row's answer depends on the rows that share its batch.
    """
    model.eval()
    device = next(model.parameters()).device
    logits: np.ndarray | None = None
    for rows, batch in table.in_length_order(batch_size):
        batch.pop("labels", None)
        with autocast(device, precision):
            answer = model(**{name: tensor.to(device) for name, tensor in batch.items()}).float().cpu().numpy()
        if logits is None:
            logits = np.empty((len(table), answer.shape[1]), dtype=np.float32)
        logits[rows] = answer
        listener.advanced(len(rows))
    assert logits is not None, "a table has rows"
    return logits
