"""LeNet-5 as the paper has it, and every strategy on it: nothing in adaptation or loop knows of text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests import tiny
from transferkit import LoRA, disabled, merge
from transferkit.adaptation.freezing import head_parameters
from transferkit.adaptation.strategies import STRATEGIES, make_strategy
from transferkit.config import StrategySpec
from transferkit.data.images import ImageTable
from transferkit.models.convnet import ConvNet
from transferkit.tasks.classification import Classification
from transferkit.training.loop import Plan, fit
from transferkit.training.precision import Compute
from transferkit.training.tracking import Listener
from transferkit.training.validation import validate_on

BATCH = {"images": torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))}
PLAN = Plan(
    epochs=4, learning_rate=5e-3, warmup_ratio=0.1, batch_size=8, accumulation=1, max_batch_tokens=2048,
    weight_decay=0.01, schedule="linear", clip_norm=1.0, best_metric="accuracy", keep="best", early_stopping=None,
    compute=Compute(), frozen_dropout=False, seed=0,
)  # fmt: skip
# What a strategy needs to be told on a net that is no transformer.
OPTIONS = {"partial": {"patterns": "linear2.*"}}
TRAIN = {
    "scratch": 61_026,
    "full": 61_026,
    "linear-probe": 170,
    "partial": 170 + 84 * 120 + 84,
    "bitfit": 170 + 6 + 16 + 120 + 84,
    "bottleneck": 170 + (120 * 24 + 24 + 24 * 120 + 120) + (84 * 24 + 24 + 24 * 84 + 84),
    "lora": 170 + 4 * (400 + 120) + 4 * (120 + 84),
}


def net(classes: int = 2) -> ConvNet:
    torch.manual_seed(3)
    return ConvNet(classes).eval()


def bars(rows: int = 64) -> ImageTable:
    """A bar that lies or stands, anywhere, in noise."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 60, (rows, 32, 32), dtype=np.uint8)
    labels = np.arange(rows) % 2
    for image, label in zip(pixels, labels, strict=True):
        image[4:28, random.integers(6, 24) :][:, :4] = 255
        if label:
            image[:] = image.T.copy()
    return ImageTable(pixels, labels, ("stands", "lies"), "bars")


def test_sizes_are_those_of_the_paper() -> None:
    model = net(10)
    sizes: dict[str, torch.Size] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, __, output, name=name: sizes.update({name: output.shape[1:]}))
    assert model(**BATCH).shape == (4, 10)
    # C1, S2, C3, S4, C5, F6.
    names = ["convolutions.0", "convolutions.2", "convolutions.3", "convolutions.5", "linear1", "linear2"]
    assert [tuple(sizes[name]) for name in names] == [
        (6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,),
    ]  # fmt: skip
    assert sum(parameter.numel() for parameter in model.parameters()) == 61_706


def test_it_computes_what_the_same_layers_in_a_row_compute() -> None:
    model = net()
    row = nn.Sequential(
        *model.convolutions, nn.Flatten(), model.linear1, nn.ReLU(), model.linear2, nn.ReLU(), model.head
    )
    torch.testing.assert_close(model(**BATCH), row(BATCH["images"]))


def test_a_new_head_leaves_the_rest_as_it_was() -> None:
    model = net(10)
    before = tiny.weights_of(model)
    model.replace_head(3)
    after = model.state_dict()
    assert model(**BATCH).shape == (4, 3)
    assert [name for name in before if before[name].shape != after[name].shape] == ["head.weight", "head.bias"]
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("head."))
    assert head_parameters(model) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_trains_what_it_says_and_learns(name: str, tmp_path: Path) -> None:
    assert TRAIN.keys() == STRATEGIES.keys()
    model, rows = net(), bars()
    report = make_strategy(StrategySpec(name=name, options=OPTIONS.get(name, {}))).apply(model)
    assert report.trainable_parameters == TRAIN[name]
    before = tiny.weights_of(model)
    validate = validate_on(rows, 16, Listener())
    outcome = fit(
        model, Classification(rows.names), rows, PLAN, validate=validate, folder=tmp_path, listener=Listener()
    )
    assert outcome.epochs[-1].train_loss < outcome.epochs[0].train_loss
    assert set(tiny.changed_names(before, model)) == set(report.trainable_names)


def test_lora_of_rank_2_on_the_second_linear_layer_merges_and_lets_go() -> None:
    model = net(10)
    with torch.no_grad():
        base = model(**BATCH)
    report = LoRA(rank=2, targets=("linear2",)).apply(model)
    assert report.trainable_parameters == 850 + 2 * (120 + 84)
    assert report.trainable_parameters / report.total_parameters < 0.1
    tiny.train_steps(model, BATCH)
    trained = tiny.logits_of(model, BATCH)
    assert not torch.allclose(trained, base)
    with disabled(model):
        assert torch.equal(tiny.logits_of(model, BATCH), base)
    merge(model)
    torch.testing.assert_close(tiny.logits_of(model, BATCH), trained)
    assert type(model.linear2) is nn.Linear
