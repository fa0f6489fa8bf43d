"""LoRA on a model that TransferKit has never seen: a CNN learns digits 0-4, then 5-9 with its convolutions frozen.

The digits are those of scikit-learn: pip install scikit-learn
Run it with: python examples/adapt_any_module.py
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.nn import functional

from transferkit import LoRA, disabled, merge
from transferkit.adaptation.freezing import set_training_mode

try:
    from sklearn.datasets import load_digits
except ImportError:
    print("scikit-learn is not installed; install it with: pip install scikit-learn.", file=sys.stderr)
    sys.exit(2)


class ConvNet(nn.Module):
    """Images [rows, 1, 8, 8] to logits [rows, 5]. The linear layer defined last counts as the head."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten()
        )
        self.hidden = nn.Linear(16 * 4 * 4, 32)
        self.output = nn.Linear(32, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(torch.relu(self.hidden(self.convolutions(images))))
        return logits


def digits(first: int) -> tuple[Tensor, Tensor]:
    """The digits `first` to `first + 4`: images [rows, 1, 8, 8] and labels 0 to 4."""
    images, labels = load_digits(return_X_y=True)
    rows = (labels >= first) & (labels < first + 5)
    return torch.tensor(images[rows] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels[rows] - first)


def fit(model: nn.Module, images: Tensor, labels: Tensor, steps: int) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    # What is frozen runs in eval mode, so that its batch norm keeps its statistics.
    set_training_mode(model)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (model(images).argmax(1) == labels).float().mean().item()


def main(steps: int = 60) -> None:
    torch.manual_seed(0)
    model = ConvNet()
    fit(model, *digits(0), steps)
    print(f"pretrained on 0-4: {accuracy(model, *digits(0)):.1%}")

    images, labels = digits(5)
    train, test = slice(0, 600), slice(600, None)
    print(LoRA(rank=4).apply(model))
    fit(model, images[train], labels[train], steps)
    print(f"adapted to 5-9: {accuracy(model, images[test], labels[test]):.1%}")

    with disabled(model):
        print(f"the base is still there for 0-4: {accuracy(model, *digits(0)):.1%}")

    before = model(images[test])
    merge(model)
    torch.testing.assert_close(model(images[test]), before)
    print("merged: a plain ConvNet with equal logits")


if __name__ == "__main__":
    main()
