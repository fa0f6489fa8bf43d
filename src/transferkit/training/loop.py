"""THE loop: it trains every model on every task by every strategy.

What differs is passed in: the task gives the loss, the strategy has set what trains, the plan holds the numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from transferkit.adaptation.freezing import set_training_mode
from transferkit.data.batching import FeatureTable, LengthGroupedSampler, split
from transferkit.environment import release_memory
from transferkit.errors import TransferKitError
from transferkit.evaluation.results import EpochRecord
from transferkit.tasks.base import Task
from transferkit.training.averaging import FIRST_EPOCH, WeightAverage
from transferkit.training.checkpoint import restore_checkpoint, save_checkpoint
from transferkit.training.forward import Forward, predict_logits
from transferkit.training.optimizer import learning_rate_factor, make_optimizer
from transferkit.training.precision import Compute, autocast, threads, training_kernels
from transferkit.training.tracking import Listener, append_epoch

Batch = dict[str, Tensor]
# True labels [rows] and logits [rows, classes] to numbers by name, `loss` among them.
Measure = Callable[[np.ndarray, np.ndarray], Mapping[str, float]]


@dataclass(frozen=True)
class Plan:
    """The numbers of one training, every default resolved."""

    epochs: int
    learning_rate: float
    warmup_ratio: float
    batch_size: int
    accumulation: int
    max_batch_tokens: int
    weight_decay: float
    schedule: str
    clip_norm: float | None
    best_metric: str
    keep: str
    early_stopping: int | None
    compute: Compute
    frozen_dropout: bool
    seed: int


@dataclass
class Outcome:
    """What was reached; the model holds the weights of `best_epoch`, or the mean of the last `averaged` epochs."""

    epochs: list[EpochRecord] = field(default_factory=list)
    best_epoch: int | None = None
    averaged: int = 0
    interrupted: bool = False


def fit(
    model: nn.Module,
    task: Task,
    train: FeatureTable,
    validation: FeatureTable,
    plan: Plan,
    *,
    measure: Measure,
    folder: Path,
    listener: Listener,
    forward: Forward | None = None,
) -> Outcome:
    """Train the parameters of `model` that require gradients, and leave it with its best weights or their mean.

    The best epoch is chosen on `validation` alone; `plan.keep` says whether it is kept, or the mean over epochs. Ctrl-C
    ends the training and keeps what was reached: the same of the epochs so far, or the weights as they are where none
    was completed. `folder` gets a line of `metrics.jsonl` for every epoch and, while training runs, the best weights.
    `forward` is called in place of `model`, which it is a part of, where the lower layers have been computed already.

    Raises:
        TransferKitError: the loss stopped being a number.
    """
    accelerator = Accelerator()
    sampler = LengthGroupedSampler(train.lengths, plan.batch_size, plan.seed)
    # The table collates whole batches itself.
    loader: Any = DataLoader(train, batch_sampler=sampler, collate_fn=lambda batch: batch)
    optimizer = make_optimizer(model, plan.learning_rate, plan.weight_decay)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    run = _Run(model, task, optimizer, accelerator, plan, listener, forward, steps_per_epoch=_steps(len(loader), plan))
    checkpoint = folder / "checkpoints" / "best.safetensors"
    outcome, average = Outcome(), WeightAverage()
    torch.manual_seed(plan.seed)
    try:
        with threads(plan.compute.threads), training_kernels(model, plan.compute):
            for epoch in range(1, plan.epochs + 1):
                sampler.set_epoch(epoch)
                record = _one_epoch(run, epoch, loader, validation, measure, outcome)
                outcome.epochs.append(record)
                append_epoch(folder / "metrics.jsonl", record)
                listener.epoch_ended(record)
                if plan.keep == "average" and epoch >= FIRST_EPOCH:
                    average.add(accelerator.unwrap_model(model))
                if record.best:
                    outcome.best_epoch = epoch
                    save_checkpoint(checkpoint, accelerator.unwrap_model(model))
                elif _is_patience_over(outcome, plan):
                    listener.said(f"Stopped early: no better {plan.best_metric} for {plan.early_stopping} epochs.")
                    break
    except KeyboardInterrupt:
        outcome.interrupted = True
    model.eval()
    outcome.averaged = average.epochs
    if outcome.averaged:
        listener.said(f"Kept is the mean of the weights over epochs {FIRST_EPOCH} to {len(outcome.epochs)}.")
        average.restore(accelerator.unwrap_model(model))
    elif outcome.best_epoch is not None:
        restore_checkpoint(checkpoint, accelerator.unwrap_model(model))
    return outcome


@dataclass
class _Run:
    model: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    plan: Plan
    listener: Listener
    forward: Forward | None
    steps_per_epoch: int
    step: int = 0

    def learning_rate(self) -> float:
        plan = self.plan
        steps = self.steps_per_epoch * plan.epochs
        return plan.learning_rate * learning_rate_factor(self.step, steps, plan.warmup_ratio, plan.schedule)


def _one_epoch(
    run: _Run, epoch: int, loader: Any, validation: FeatureTable, measure: Measure, outcome: Outcome
) -> EpochRecord:
    """Train once over the data, then validate."""
    start = time.perf_counter()
    set_training_mode(run.model, run.plan.frozen_dropout)
    # Sums stay tensors until the epoch ends: reading a number would make every step wait for the last one.
    loss_sum, weight_sum = torch.zeros(()), torch.zeros(())
    for group in _groups(loader, run.plan):
        loss, weight = _optimize(run, group)
        loss_sum, weight_sum = loss_sum + loss, weight_sum + weight
    train_loss = float(loss_sum / weight_sum)
    if not math.isfinite(train_loss):
        raise TransferKitError(
            f"The training loss is {train_loss} in epoch {epoch}; lower --set training.learning_rate "
            f"(it is {run.plan.learning_rate:g}) or train with --precision fp32."
        )
    release_memory()
    plan = run.plan
    logits = predict_logits(run.model, validation, plan.max_batch_tokens, run.listener, plan.compute, run.forward)
    assert validation.labels is not None, "validation rows have labels"
    scores = measure(validation.labels, logits)
    return EpochRecord(
        epoch=epoch,
        step=run.step,
        learning_rate=run.learning_rate(),
        train_loss=train_loss,
        validation_loss=scores["loss"],
        accuracy=scores["accuracy"],
        f1_macro=scores["f1_macro"],
        mcc=scores["mcc"],
        seconds=time.perf_counter() - start,
        best=_is_better(scores, outcome, plan.best_metric),
    )


def _optimize(run: _Run, group: list[Batch]) -> tuple[Tensor, Tensor]:
    """One step of the optimizer on the batches of `group`; returns the loss sum and the weight sum."""
    rate = run.learning_rate()
    for parameters in run.optimizer.param_groups:
        parameters["lr"] = rate
    weight = torch.stack([run.task.weight(batch["labels"]) for batch in group]).sum()
    total = torch.zeros(())
    for batch in group:
        labels = batch.pop("labels")
        with autocast(run.plan.compute, labels.device.type):
            logits = run.forward(batch) if run.forward else run.model(**batch)
        loss = run.task.loss(logits, labels)
        run.accelerator.backward(loss / weight)
        total = total + loss.detach()
        run.listener.advanced(len(labels))
    if run.plan.clip_norm is not None:
        run.accelerator.clip_grad_norm_(run.model.parameters(), run.plan.clip_norm)
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.step += 1
    return total, weight


def _groups(loader: Any, plan: Plan) -> Iterator[list[Batch]]:
    """The batches that share a step of the optimizer, in parts that are not too large to be fast."""
    group: list[Batch] = []
    for number, batch in enumerate(loader, start=1):
        group += split(batch, plan.max_batch_tokens)
        if number % plan.accumulation == 0 or number == len(loader):
            yield group
            group = []


def _steps(batches: int, plan: Plan) -> int:
    return -(-batches // plan.accumulation)


def _is_better(scores: Mapping[str, float], outcome: Outcome, metric: str) -> bool:
    if outcome.best_epoch is None:
        return True
    best = outcome.epochs[outcome.best_epoch - 1]
    if metric != "loss" and scores[metric] != getattr(best, metric):
        return bool(scores[metric] > getattr(best, metric))
    return scores["loss"] < best.validation_loss


def _is_patience_over(outcome: Outcome, plan: Plan) -> bool:
    if plan.early_stopping is None or outcome.best_epoch is None:
        return False
    return len(outcome.epochs) - outcome.best_epoch >= plan.early_stopping
