"""What there is to see after an epoch of a classifier: its answers to a few texts, and where it looks in the first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from transferkit.data.batching import FeatureTable
from transferkit.data.preparation import TextData
from transferkit.evaluation.metrics import log_probabilities
from transferkit.evaluation.results import ClassificationExample
from transferkit.evaluation.statistics import spread
from transferkit.formatting import clip
from transferkit.models.attention_weights import last_attention
from transferkit.models.backbones import TextClassifier
from transferkit.training.precision import Compute, autocast

TEXTS = 5
# Of a text that is shown.
MOST_LETTERS = 300
# Of a text that is looked into: the first ones, as if it ended there. All layers keep weights of the square of this.
MOST_TOKENS = 64


@dataclass(frozen=True)
class Samples:
    """A few validation rows, at equal distances: files are often sorted by class.

    Attributes:
        rows: all validation rows, as tokens.
        shown: the numbers of the few, int [texts].
        texts: of each of the few, one text or the two of a pair.
        labels: the names of the classes.
        compute: how the model computes.
    """

    rows: FeatureTable
    shown: npt.NDArray[np.int64]
    texts: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    compute: Compute

    @classmethod
    def of(cls, data: TextData, rows: FeatureTable, compute: Compute) -> Samples:
        """Those of `data`, of which `rows` are the validation rows as tokens."""
        split = data.splits["validation"]
        shown = np.array(spread(len(split), TEXTS))
        texts = (
            tuple(clip(text, MOST_LETTERS) for name, text in row.items() if name != "label")
            for row in split.select(shown)
        )
        return cls(rows, shown, tuple(texts), data.labels, compute)

    def examples(self, logits: npt.NDArray[np.float32]) -> tuple[ClassificationExample, ...]:
        """What the logits [rows, classes] of all validation rows say of the few."""
        assert self.rows.labels is not None, "validation rows have labels"
        probabilities = np.exp(log_probabilities(logits[self.shown]))
        return tuple(
            ClassificationExample(
                text=text, label=self.labels[label], predicted=self.labels[own.argmax()], probability=float(own.max())
            )
            for text, label, own in zip(self.texts, self.rows.labels[self.shown], probabilities, strict=True)
        )

    @torch.no_grad()
    def attentions(self, model: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
        """What the last layer of `model`, in eval mode, looks at in the first row: [heads, queries, keys] by its name.

        The whole model computes it, also where the loop has kept what the lower layers answer. Nothing where the
        backbone shows no attention.
        """
        assert isinstance(model, TextClassifier), "a text is classified by a text classifier"
        device = next(model.parameters()).device
        length = min(int(self.rows.lengths[0]), MOST_TOKENS)
        batch = self.rows.__getitems__([0])
        features = {name: tensor[:, :length].to(device) for name, tensor in batch.items() if name != "labels"}
        with autocast(self.compute, device.type):
            found = last_attention(model.network, features)
        if found is None:
            return {}
        number, weights = found
        return {f"layer {number}": weights[0].float().cpu().numpy()}
