"""A convolutional net for small images: the model that shows that adaptation, loop and scores know nothing of text."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998, section II.B) with its sizes: two convolutions, then three linear layers.

    As is usual now, pooling takes the maximum, units are ReLUs, every map of the second convolution sees all six of the
    first, and the output is a linear layer. `linear1` is C5 of the paper, which is a convolution there as large as what
    it looks at; `linear2` is F6. With 10 classes there are 61,706 parameters.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2),  # [rows, 6, 14, 14]
            nn.Conv2d(6, 16, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2),  # [rows, 16, 5, 5]
        )  # fmt: skip
        self.linear1 = nn.Linear(16 * 5 * 5, 120)
        self.linear2 = nn.Linear(120, 84)
        # The linear layer that is defined last is what every strategy takes for the head.
        self.head = nn.Linear(84, classes)

    def forward(self, images: Tensor) -> Tensor:
        """images [rows, 1, 32, 32] -> logits [rows, classes]."""
        features = self.convolutions(images).flatten(1)
        features = torch.relu(self.linear2(torch.relu(self.linear1(features))))
        logits: Tensor = self.head(features)
        return logits

    def replace_head(self, classes: int) -> None:
        """Put a new head of `classes` in the place of the old one, drawn from torch's global generator."""
        self.head = nn.Linear(self.head.in_features, classes).to(self.head.weight.device)
