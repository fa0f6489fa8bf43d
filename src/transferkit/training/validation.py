"""What an epoch of a classifier is worth, for the loop to choose by."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import nn

from transferkit.evaluation.metrics import quick_metrics
from transferkit.training.forward import BatchedRows, Forward, predict_logits
from transferkit.training.loop import Validate, Validation
from transferkit.training.precision import Compute
from transferkit.training.samples import Samples
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
    samples: Samples | None = None,
) -> Validate:
    """Accuracy, f1_macro, mcc and loss (nats) on the validation rows, and what there is to see of `samples`.

    The other arguments are those of `predict_logits`.
    """
    assert rows.labels is not None, "validation rows have labels"
    labels = rows.labels

    def validate(model: nn.Module) -> Validation:
        logits = predict_logits(model, rows, max_tokens, listener, compute, forward)
        scores = quick_metrics(labels, logits)
        if samples is None:
            return Validation(scores)
        return Validation(scores, samples.examples(logits), samples.attentions(model))

    return validate
