"""THE loop: it trains every model on every task by every strategy.

What differs is passed in: the task gives the loss, the strategy has set what trains, the plan holds the numbers, and
`validate` says what an epoch is worth.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from transferkit.adaptation.freezing import set_training_mode
from transferkit.data.batching import LengthGroupedSampler, TokenBudgetSampler, split
from transferkit.environment import release_memory
from transferkit.errors import TransferKitError
from transferkit.evaluation.results import EpochRecord, Example
from transferkit.tasks.base import Task
from transferkit.training.averaging import FIRST_EPOCH, LEAST_EPOCHS
from transferkit.training.checkpoint import TrainingState, restore_state, restore_weights, save_state, save_weights
from transferkit.training.forward import Forward
from transferkit.training.interrupt import held_interrupt
from transferkit.training.optimizer import Adam, learning_rate_factor, make_optimizer
from transferkit.training.precision import Batch, Compute, autocast, threads, training_kernels
from transferkit.training.tracking import Listener, write_epochs


@dataclass(frozen=True)
class Validation:
    """What the validation rows say of an epoch.

    Attributes:
        scores: numbers by name, `loss` among them.
        examples: to look at.
        attentions: of one example by name of the layer, each [heads, queries, keys].
    """

    scores: Mapping[str, float]
    examples: tuple[Example, ...] = ()
    attentions: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)


# Is given the model in eval mode.
Validate = Callable[[nn.Module], Validation]
# A line of the tracked loss is the mean over so many steps: single steps differ too much to be read.
STEPS_PER_LINE = 10


class Table(Protocol):
    """Rows to train on, as batches of tensors; `labels` is one of them, and the others go to the model by name."""

    @property
    def lengths(self) -> np.ndarray:
        """How long each row is, int32 [rows]: rows of like lengths share a batch."""

    @property
    def side_lengths(self) -> np.ndarray:
        """How long each of the sequences is that a row holds, int32 [rows, sides]."""

    def __len__(self) -> int: ...

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """These rows, collated."""


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
    # Batches of so many tokens, padding among them, in place of `batch_size` rows.
    batch_tokens: int | None = None
    adam: Adam = field(default_factory=Adam)
    # A checkpoint to go on from is written after each epoch and whenever the last is so old; None writes none.
    checkpoint_minutes: float | None = None


@dataclass
class Outcome:
    """What was reached; the model holds the mean of the last `averaged` epochs, or else the weights of `best_epoch`."""

    epochs: list[EpochRecord] = field(default_factory=list)
    best_epoch: int | None = None
    averaged: int = 0
    interrupted: bool = False
    # Of the same training before it was stopped and gone on with.
    earlier_seconds: float = 0.0


def fit(
    model: nn.Module,
    task: Task,
    train: Table,
    plan: Plan,
    *,
    validate: Validate,
    folder: Path,
    listener: Listener,
    forward: Forward | None = None,
) -> Outcome:
    """Train the parameters of `model` that require gradients, and leave it with its best weights or their mean.

    The best epoch is chosen by what `validate` says alone; `plan.keep` says whether it is kept, or the mean over
    epochs. Ctrl-C ends the training and keeps what was reached: the same of the epochs so far, or the weights as they
    are where none was completed. `folder` gets a line of `metrics.jsonl` for every epoch and, while training runs,
    checkpoints: where a stopped training has left one to go on from, it is gone on from, to the same weights bit for
    bit as without the stop. `forward` is called in place of `model`, which it is a part of, where the lower layers have
    been computed already.

    Raises:
        TransferKitError: the loss stopped being a number.
    """
    run = _begin(model, task, train, plan, folder, listener, forward)
    state, interrupted = run.state, False
    try:
        with threads(plan.compute.threads), training_kernels(run.model, plan.compute):
            while state.epoch <= plan.epochs and not _is_patience_over(state, plan):
                _train_epoch(run)
                _end_epoch(run, validate)
            if state.epoch <= plan.epochs:
                listener.said(f"Stopped early: no better {plan.best_metric} for {plan.early_stopping} epochs.")
    except KeyboardInterrupt:
        interrupted = True
    run.model.eval()
    averaged = state.average.epochs if len(state.epochs) >= LEAST_EPOCHS else 0
    if averaged:
        listener.said(f"Kept is the mean of the weights over epochs {FIRST_EPOCH} to {len(state.epochs)}.")
        state.average.restore(run.bare_model)
    elif state.best_epoch is not None:
        if plan.keep == "average":
            listener.said(f"Kept is the best epoch: a mean takes {LEAST_EPOCHS}, and there are {len(state.epochs)}.")
        restore_weights(run.best_path, run.bare_model)
    return Outcome(state.epochs, state.best_epoch, averaged, interrupted, run.earlier_seconds)


@dataclass
class _Run:
    model: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    sampler: LengthGroupedSampler | TokenBudgetSampler
    loader: Any
    plan: Plan
    folder: Path
    listener: Listener
    forward: Forward | None
    state: TrainingState = field(default_factory=TrainingState)
    # The state of torch's random numbers, where a training goes on in the middle of an epoch.
    random: Tensor | None = None
    earlier_seconds: float = 0.0
    begun: float = field(default_factory=time.perf_counter)
    started: float = field(default_factory=time.perf_counter)
    saved: float = field(default_factory=time.perf_counter)

    @property
    def bare_model(self) -> nn.Module:
        bare: nn.Module = self.accelerator.unwrap_model(self.model)
        return bare

    @property
    def best_path(self) -> Path:
        return self.folder / "checkpoints" / "best.safetensors"

    @property
    def state_path(self) -> Path:
        return self.folder / "checkpoints" / "state.safetensors"

    def learning_rate(self, step: int) -> float:
        """Of a step, counted from 0."""
        plan = self.plan
        steps = -(-len(self.loader) // plan.accumulation) * plan.epochs
        return plan.learning_rate * learning_rate_factor(step, steps, plan.warmup_ratio, plan.schedule)

    def restore_random(self) -> None:
        """Called when the loader has drawn its number, as it does when an epoch begins."""
        if self.random is not None:
            torch.set_rng_state(self.random)
            self.random = None

    def save(self) -> None:
        if self.plan.checkpoint_minutes is not None:
            self.state.seconds = self.earlier_seconds + time.perf_counter() - self.begun
            save_state(self.state_path, self.state, self.bare_model, self.optimizer)
            self.saved = time.perf_counter()

    def save_if_due(self) -> None:
        minutes = self.plan.checkpoint_minutes
        if minutes is not None and time.perf_counter() - self.saved >= 60 * minutes:
            self.save()


def _begin(
    model: nn.Module, task: Task, train: Table, plan: Plan, folder: Path, listener: Listener, forward: Forward | None
) -> _Run:
    # What is measured, kept to go on from and translated is the processor's: an accelerator would have half of a run.
    accelerator = Accelerator(cpu=True)
    sampler = _sampler(train, plan)
    # The table collates whole batches itself.
    loader: Any = DataLoader(train, batch_sampler=sampler, collate_fn=lambda batch: batch)  # type: ignore[arg-type]
    optimizer = make_optimizer(model, plan.learning_rate, plan.weight_decay, plan.adam)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    run = _Run(model, task, optimizer, accelerator, sampler, loader, plan, folder, listener, forward)
    torch.manual_seed(plan.seed)
    if plan.checkpoint_minutes is not None and run.state_path.is_file():
        run.state, random = restore_state(run.state_path, run.bare_model, run.optimizer)
        run.earlier_seconds = run.state.seconds
        write_epochs(folder / "metrics.jsonl", run.state.epochs)
        listener.said(f"Going on after {run.state.step:,} steps, {len(run.state.epochs)} of {plan.epochs} epochs.")
        if run.state.batches:
            run.random = random
        else:
            torch.set_rng_state(random)
    listener.begun(run.state.step)
    return run


def _sampler(train: Table, plan: Plan) -> LengthGroupedSampler | TokenBudgetSampler:
    if plan.batch_tokens is not None:
        return TokenBudgetSampler(train.side_lengths, plan.batch_tokens, plan.seed)
    return LengthGroupedSampler(train.lengths, plan.batch_size, plan.seed)


def _train_epoch(run: _Run) -> None:
    """Train over the data once, or over what is left of it."""
    run.started = time.perf_counter()
    set_training_mode(run.model, run.plan.frozen_dropout)
    state = run.state
    run.loader.set_epoch(state.epoch - 1)
    run.sampler.skip = state.batches
    tracked = (state.loss_sum, state.weight_sum)
    for batches, group in _groups(run):
        run.restore_random()
        loss, weight, rate = _optimize(run, group)
        # Sums stay tensors: reading a number would make every step wait for the last one.
        state.loss_sum, state.weight_sum = state.loss_sum + loss, state.weight_sum + weight
        state.batches += batches
        if state.step % STEPS_PER_LINE == 0:
            mean = (state.loss_sum - tracked[0]) / (state.weight_sum - tracked[1])
            run.listener.stepped(state.step, float(mean), rate)
            tracked = (state.loss_sum, state.weight_sum)
        run.save_if_due()
    run.restore_random()


def _end_epoch(run: _Run, validate: Validate) -> None:
    """Validate, write down what was reached, and be ready for the next epoch."""
    state, plan = run.state, run.plan
    train_loss = float(state.loss_sum / state.weight_sum)
    _refuse_divergence("training loss", train_loss, run)
    release_memory()
    run.model.eval()
    validation = validate(run.bare_model)
    scores = validation.scores
    for name, value in scores.items():
        _refuse_divergence(f"validation {name}", value, run)
    record = EpochRecord(
        epoch=state.epoch,
        step=state.step,
        learning_rate=run.learning_rate(state.step - 1),
        train_loss=train_loss,
        validation_loss=scores["loss"],
        metrics={name: value for name, value in scores.items() if name != "loss"},
        seconds=time.perf_counter() - run.started,
        best=_is_better(scores, state, plan.best_metric),
        examples=validation.examples,
    )
    for name, weights in validation.attentions.items():
        run.listener.looked(name, weights, state.step)
    with held_interrupt():
        _keep(run, record)


def _refuse_divergence(what: str, value: float, run: _Run) -> None:
    """No training comes back from a value that is no number."""
    if not math.isfinite(value):
        raise TransferKitError(
            f"The {what} is {value} in epoch {run.state.epoch}; lower --set training.learning_rate "
            f"(it is {run.plan.learning_rate:g}) or train with --precision fp32."
        )


def _keep(run: _Run, record: EpochRecord) -> None:
    """Write down an epoch and its weights, which a stop must not part."""
    state = run.state
    state.epochs.append(record)
    if run.plan.keep == "average" and state.epoch >= FIRST_EPOCH:
        state.average.add(run.bare_model)
    if record.best:
        save_weights(run.best_path, run.bare_model)
        state.best_epoch = state.epoch
    write_epochs(run.folder / "metrics.jsonl", state.epochs)
    run.listener.epoch_ended(record)
    state.begin_epoch(state.epoch + 1)
    run.save()


def _optimize(run: _Run, group: list[Batch]) -> tuple[Tensor, Tensor, float]:
    """One step of the optimizer on the batches of `group`; returns the loss sum, the weight sum and the rate."""
    rate = run.learning_rate(run.state.step)
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
    run.state.step += 1
    return total, weight, rate


def _groups(run: _Run) -> Iterator[tuple[int, list[Batch]]]:
    """The batches that share a step of the optimizer, and how many; each in parts not too large to be fast."""
    plan, group, batches = run.plan, list[Batch](), 0
    for number, batch in enumerate(run.loader, start=run.state.batches + 1):
        group += split(batch, plan.max_batch_tokens)
        batches += 1
        if number % plan.accumulation == 0 or number == len(run.loader):
            yield batches, group
            group, batches = [], 0


def _is_better(scores: Mapping[str, float], state: TrainingState, metric: str) -> bool:
    if state.best_epoch is None:
        return True
    best = state.epochs[state.best_epoch - 1]
    if metric != "loss" and scores[metric] != best.metrics[metric]:
        return bool(scores[metric] > best.metrics[metric])
    return scores["loss"] < best.validation_loss


def _is_patience_over(state: TrainingState, plan: Plan) -> bool:
    if plan.early_stopping is None or state.best_epoch is None:
        return False
    return len(state.epochs) - state.best_epoch >= plan.early_stopping
