"""What an epoch of a classifier is worth, for the loop to choose by."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import nn

from transferkit.evaluation.metrics import quick_metrics
from transferkit.training.forward import BatchedRows, Forward, predict_logits
from transferkit.training.loop import Validate, Validation
from transferkit.training.precision import Compute
from transferkit.training.tracking import Listener


class ValidationRows(BatchedRows, Protocol):
    """Rows whose classes are known."""

    @property
    def labels(self) -> np.ndarray | None:
        """The number of each row's class, [rows]."""


def validate_on(
    rows: ValidationRows,
    max_tokens: int,
    listener: Listener,
    compute: Compute | None = None,
    forward: Forward | None = None,
) -> Validate:
    """Accuracy, f1_macro, mcc and loss (nats) on the validation rows; the arguments are those of `predict_logits`."""
    assert rows.labels is not None, "validation rows have labels"
    labels = rows.labels

    def validate(model: nn.Module) -> Validation:
        return Validation(quick_metrics(labels, predict_logits(model, rows, max_tokens, listener, compute, forward)))

    return validate
