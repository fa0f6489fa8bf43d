"""What an epoch is worth is what its predictions say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from transferkit.data.images import ImageTable
from transferkit.training.tracking import Listener
from transferkit.training.validation import validate_on


class Brightness(nn.Module):
    """The brighter, the surer of the second class; the parameter is there to say on which device it is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        """images [rows, 1, 32, 32] -> logits [rows, 2]."""
        mean = images.mean((1, 2, 3))
        return torch.stack([-mean, mean], dim=1) * self.scale


def table(*greys: int, labels: list[int]) -> ImageTable:
    pixels = np.repeat(np.array(greys, dtype=np.uint8), 32 * 32).reshape(-1, 32, 32)
    return ImageTable(pixels, np.array(labels), ("dark", "light"), "here")


def test_scores_are_those_of_all_rows_whatever_the_batches() -> None:
    # Grey 20 is 0 after scaling, and 0 is -0.1: the logits differ by 2 x 0.1 and 2 x 1.175.
    rows = table(0, 255, 255, labels=[0, 1, 0])
    scores = [validate_on(rows, size, Listener())(Brightness()).scores for size in (1, 2, 3)]
    expected = np.log1p(np.exp([-0.2, -2.35, 2.35])).mean()
    for one in scores:
        assert one["accuracy"] == pytest.approx(2 / 3)
        assert one["loss"] == pytest.approx(expected, rel=1e-5)
        assert set(one) == {"accuracy", "f1_macro", "mcc", "loss"}


def test_a_part_of_the_model_can_answer_in_its_place() -> None:
    rows = table(0, 255, labels=[0, 1])
    validate = validate_on(rows, 8, Listener(), forward=lambda batch: -Brightness()(**batch))
    assert validate(Brightness()).scores["accuracy"] == 0
