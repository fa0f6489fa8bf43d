"""Not only text: a convolutional net learns digits, then letters, by the strategies, loop and statistics of texts.

Run it with: python examples/digits_to_letters.py (the digits are those of scikit-learn: pip install scikit-learn)
or on idx files: python examples/digits_to_letters.py --digits ../shared/data/mnist --letters ../shared/data/notmnist

From MNIST to notMNIST LoRA of rank 2 on the second linear layer trains 2.04 % of what full does and is 10.7 points
behind it (95 %: 9.3 to 12.2); rank 7 on both layers trains 9.59 % and is 2.2 points behind (1.4 to 3.0). The whole
table is in docs/explanation/strategies.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from transferkit import Full, LinearProbe, LoRA, Scratch
from transferkit.adaptation.base import Strategy
from transferkit.adaptation.capsule import learnt_tensors
from transferkit.comparison.evidence import compare_pairs, oriented, summarise
from transferkit.data.images import ImageTable, builtin_digits, read_images
from transferkit.data.splits import draw_missing, sample
from transferkit.errors import TransferKitError
from transferkit.evaluation.metrics import score
from transferkit.evaluation.results import Pair, RunResult, StrategySummary
from transferkit.formatting import p_equation, percent, percent_interval, points, points_interval, small_share
from transferkit.models.convnet import ConvNet
from transferkit.tasks.classification import Classification
from transferkit.training.forward import predict_logits
from transferkit.training.loop import Plan, fit
from transferkit.training.precision import Compute
from transferkit.training.tracking import Listener
from transferkit.training.validation import validate_on

Splits = dict[str, ImageTable]
# Rates are the best of 1e-3, 2e-3, 4e-3, ... on the validation letters of notMNIST, for 5 epochs and seed 0; alpha is
# twice the rank, as in the default pair.
STRATEGIES: dict[str, Strategy] = {
    "scratch": Scratch(learning_rate=4e-3),
    "linear-probe": LinearProbe(learning_rate=3.2e-2),
    "lora 2, linear2": LoRA(rank=2, alpha=4, targets=("linear2",), learning_rate=1.6e-2),
    "lora 2, both": LoRA(rank=2, alpha=4, targets=("linear1", "linear2"), learning_rate=1.6e-2),
    # The most that is below a tenth of the parameters of ten classes.
    "lora 7, both": LoRA(rank=7, alpha=14, targets=("linear1", "linear2"), learning_rate=8e-3),
    "full": Full(learning_rate=8e-3),
}
MARGIN = 0.03
# Images in one pass where no gradient is needed.
BATCH = 512


def split(table: ImageTable, train_size: int | None = None) -> Splits:
    """Seven tenths to train on, one to choose the epoch by, two to test on; no image stands in two of them."""
    splits = draw_missing(table.distinct(), {"test": 0.2, "validation": 0.1}, table.names, seed=0)
    return splits | ({"train": sample(splits["train"], "train", train_size, seed=0)} if train_size else {})


def train(model: ConvNet, splits: Splits, strategy: Strategy, epochs: int, seed: int) -> None:
    plan = Plan(
        epochs=epochs, learning_rate=strategy.learning_rate, warmup_ratio=strategy.warmup_ratio, batch_size=32,
        accumulation=1, max_batch_tokens=BATCH, weight_decay=0.01, schedule="linear", clip_norm=1.0,
        best_metric="accuracy", keep="best", early_stopping=None, compute=Compute(), frozen_dropout=False, seed=seed,
    )  # fmt: skip
    task, validate = Classification(splits["train"].names), validate_on(splits["validation"], BATCH, Listener())
    with tempfile.TemporaryDirectory() as folder:
        fit(model, task, splits["train"], plan, validate=validate, folder=Path(folder), listener=Listener())


def adapt(base: ConvNet, name: str, letters: Splits, epochs: int, seed: int) -> tuple[RunResult, np.ndarray]:
    """What came of a copy of `base` with a new head, and the classes [n] that it gives to the test letters."""
    test, model = letters["test"], deepcopy(base)
    torch.manual_seed(seed)
    model.replace_head(len(test.names))
    report = STRATEGIES[name].apply(model)
    start = time.perf_counter()
    train(model, letters, STRATEGIES[name], epochs, seed)
    seconds = time.perf_counter() - start
    logits = predict_logits(model, test, BATCH, Listener())
    scores = score(test.labels, logits, test.names)
    result = RunResult(
        strategy=name, seed=seed, run=".", status="finished", trainable_parameters=report.trainable_parameters,
        total_parameters=report.total_parameters, train_seconds=seconds,
        stored_bytes=sum(tensor.nbytes for tensor in learnt_tensors(model).values()),
        metrics=scores.metrics, intervals=scores.intervals, collapsed=scores.collapsed,
    )  # fmt: skip
    return result, logits.argmax(axis=1)


def at_least_one(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if part.isdecimal() and int(part) < 2**32]
    if len(set(numbers)) < len(parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different seeds from 0 to 2^32 - 1, such as 0,1,2")
    return numbers


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(description="Adapt a convolutional net from digits to letters.")
    parser.add_argument("--digits", type=Path, help="idx images, or their folder; default: scikit-learn's 0-4")
    parser.add_argument("--letters", type=Path, help="the same of what it is adapted to; default: scikit-learn's 5-9")
    parser.add_argument("--epochs", type=at_least_one, default=10)
    parser.add_argument("--seeds", type=seeds, default=[0, 1, 2], help="separated by commas; default: 0,1,2")
    parser.add_argument("--train-size", type=at_least_one, help="so many of the training letters; default: all")
    chosen = parser.parse_args(arguments)
    try:
        digits = read_images(chosen.digits) if chosen.digits else builtin_digits().only(range(5))
        letters = read_images(chosen.letters) if chosen.letters else builtin_digits().only(range(5, 10))
        source, target = split(digits), split(letters, chosen.train_size)
    except TransferKitError as error:
        parser.exit(2, f"{error}\n")
    compare(source, target, chosen.epochs, chosen.seeds)


def compare(source: Splits, target: Splits, epochs: int, seeds: Sequence[int]) -> None:
    results, answers = [], {name: dict[int, np.ndarray]() for name in STRATEGIES}
    for seed in seeds:
        torch.manual_seed(seed)
        base = ConvNet(len(source["train"].names))
        train(base, source, Full(learning_rate=2e-3), epochs, seed)
        right = predict_logits(base, source["test"], BATCH, Listener()).argmax(axis=1) == source["test"].labels
        print(f"seed {seed}: {percent(right.mean())} of {len(right):,} test digits are right", flush=True)
        for name in STRATEGIES:
            result, answers[name][seed] = adapt(base, name, target, epochs, seed)
            results.append(result)
    summaries = summarise(results, answers, target["test"].labels)
    print(f"letters: {len(target['train']):,} to train on, {len(target['test']):,} to test on")
    show(summaries, compare_pairs(summaries, answers, target["test"].labels))


def show(summaries: Sequence[StrategySummary], pairs: Sequence[Pair]) -> None:
    """A line for each strategy; intervals are bootstrapped over test letters and seeds, p is McNemar's after Holm."""
    full = next(summary.trainable_parameters for summary in summaries if summary.strategy == "full")
    print(f"{'strategy':16} {'trains':>16}  {'accuracy (95 %)':22}  points from full (95 %), within 3")
    for summary in summaries:
        trains = f"{summary.trainable_parameters:,} ({small_share(summary.trainable_parameters / full)})"
        accuracy = f"{percent(summary.accuracy_mean)} ({percent_interval(summary.accuracy_interval)})"
        pair = oriented(pairs, summary.strategy, "full")
        print(f"{summary.strategy:16} {trains:>16}  {accuracy:22}  {behind(pair) if pair else ''}".rstrip())


def behind(pair: Pair) -> str:
    low, high = pair.interval
    within = "yes" if low >= -MARGIN else "no" if high < -MARGIN else "open"
    return f"{points(pair.difference)} ({points_interval(pair.interval)}), {p_equation(pair.holm_p)}; {within}"


if __name__ == "__main__":
    main(*sys.argv[1:])
