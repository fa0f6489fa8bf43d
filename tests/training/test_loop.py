"""The loop, on a model small enough to know what it should do."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn

from transferkit.data.batching import FeatureTable
from transferkit.errors import TransferKitError
from transferkit.evaluation.metrics import quick_metrics
from transferkit.evaluation.results import EpochRecord
from transferkit.tasks.classification import Classification
from transferkit.training import loop
from transferkit.training.checkpoint import restore_weights, save_weights
from transferkit.training.forward import predict_logits
from transferkit.training.loop import Outcome, Plan, Validate, Validation, fit
from transferkit.training.precision import Compute
from transferkit.training.tracking import Listener, read_epochs

PLAN = Plan(
    epochs=3, learning_rate=0.05, warmup_ratio=0.1, batch_size=8, accumulation=1, max_batch_tokens=4096,
    weight_decay=0.0, schedule="linear", clip_norm=1.0, best_metric="f1_macro", keep="best", early_stopping=None,
    compute=Compute(), frozen_dropout=False, seed=0,
)  # fmt: skip
TASK = Classification(("even", "odd"))


@pytest.fixture
def other_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose first device is no processor."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(PartialState, "default_device", property(lambda _: torch.device("meta")))
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


class Bag(nn.Module):
    """The mean of word vectors, and a linear head."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        weights = attention_mask.unsqueeze(-1).float()
        mean = (self.words(input_ids) * weights).sum(1) / weights.sum(1)
        logits: Tensor = self.head(self.dropout(mean))
        return logits


def table(rows: int = 64, seed: int = 0) -> FeatureTable:
    """Rows whose label is whether their first token is odd."""
    random = np.random.default_rng(seed)
    ids = [random.integers(1, 20, random.integers(2, 9)).tolist() for _ in range(rows)]
    labels = [row[0] % 2 for row in ids]
    arrow = pa.table({"input_ids": pa.array(ids, pa.list_(pa.int32())), "label": pa.array(labels, pa.int64())})
    return FeatureTable.from_arrow(arrow, pad_token_id=0)


def train(
    folder: Path, plan: Plan = PLAN, dropout: float = 0.0, listener: Listener | None = None, **changes: object
) -> tuple[Bag, Outcome]:
    torch.manual_seed(7)
    model = Bag(dropout)
    outcome = fit(
        model, TASK, table(), replace(plan, **changes), validate=on(table(40, seed=1), listener), folder=folder,
        listener=listener or Listener(),
    )  # fmt: skip
    return model, outcome


def on(rows: FeatureTable, listener: Listener | None = None) -> Validate:
    """Scores on these rows."""

    def validate(model: nn.Module) -> Validation:
        return Validation(quick_metrics(rows.labels, predict_logits(model, rows, 4096, listener or Listener())))

    return validate


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_the_loss_falls_and_every_epoch_is_written(tmp_path: Path) -> None:
    _, outcome = train(tmp_path, epochs=8)
    losses = [record.train_loss for record in outcome.epochs]
    assert losses[-1] < 0.7 * losses[0]
    assert read_epochs(tmp_path / "metrics.jsonl") == outcome.epochs


def test_the_same_seed_gives_the_same_numbers_bit_for_bit(tmp_path: Path) -> None:
    first, one = train(tmp_path, dropout=0.3)
    second, two = train(tmp_path, dropout=0.3)
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))
    assert [r.model_copy(update={"seconds": 0}) for r in one.epochs] == [
        r.model_copy(update={"seconds": 0}) for r in two.epochs
    ]


def test_another_seed_gives_other_numbers(tmp_path: Path) -> None:
    first, _ = train(tmp_path, seed=0)
    second, _ = train(tmp_path, seed=1)
    assert not torch.equal(first.head.weight, second.head.weight)


@pytest.mark.parametrize("class_weights", [None, (1.0, 3.0)])
def test_eight_rows_at_once_equal_eight_steps_of_one(
    tmp_path: Path, class_weights: tuple[float, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Classification(TASK.labels, class_weights=class_weights, label_smoothing=0.1)
    monkeypatch.setattr("transferkit.data.batching.POOL_BATCHES", 10_000)
    results = []
    for batch_size, accumulation in ((8, 1), (1, 8)):
        torch.manual_seed(7)
        model = Bag()
        rows = table(8)
        plan = replace(PLAN, batch_size=batch_size, accumulation=accumulation, epochs=4, clip_norm=None)
        fit(model, task, rows, plan, validate=on(rows), folder=tmp_path, listener=Listener())
        results.append(weights(model))
    for whole, accumulated in zip(*results, strict=True):
        torch.testing.assert_close(whole, accumulated, atol=1e-5, rtol=1e-4)


# Of one batch a pool, rows are drawn as they come.
@pytest.mark.parametrize("pool", [1, 50])
def test_every_row_is_trained_on_once_an_epoch_whatever_rows_share_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: int
) -> None:
    monkeypatch.setattr("transferkit.data.batching.POOL_BATCHES", pool)
    rows, seen = table(61), list[int]()
    collate = FeatureTable.__getitems__

    def watched(self: FeatureTable, index: list[int]) -> dict[str, Tensor]:
        if self is rows:
            seen.extend(index)
        return collate(self, index)

    monkeypatch.setattr(FeatureTable, "__getitems__", watched)
    fit(Bag(), TASK, rows, PLAN, validate=on(table(40, seed=1)), folder=tmp_path, listener=Listener())
    for epoch in range(PLAN.epochs):
        assert sorted(seen[61 * epoch : 61 * (epoch + 1)]) == list(range(61))
    assert len(seen) == 61 * PLAN.epochs


def test_the_best_epoch_is_kept_and_not_the_last(tmp_path: Path) -> None:
    # With a rate this large the model gets worse again.
    model, outcome = train(tmp_path, epochs=12, learning_rate=0.3, schedule="constant")
    best = outcome.epochs[outcome.best_epoch - 1]
    assert best.metrics["f1_macro"] == max(record.metrics["f1_macro"] for record in outcome.epochs)
    validation = table(40, seed=1)
    scores = quick_metrics(validation.labels, predict_logits(model, validation, 16, Listener()))
    assert scores["f1_macro"] == best.metrics["f1_macro"]


def test_early_stopping_looks_at_validation(tmp_path: Path) -> None:
    _, outcome = train(tmp_path, epochs=80, learning_rate=0.3, schedule="constant", early_stopping=2)
    assert len(outcome.epochs) == outcome.best_epoch + 2 < 80


def test_frozen_parameters_do_not_move(tmp_path: Path) -> None:
    torch.manual_seed(7)
    model = Bag()
    model.words.requires_grad_(False)
    before = model.words.weight.clone()
    fit(model, TASK, table(), PLAN, validate=on(table()), folder=tmp_path, listener=Listener())
    assert torch.equal(before, model.words.weight)


def test_a_step_reads_no_number_from_a_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Reading one waits for all that was computed before.
    step = loop._optimize

    def watched(*arguments: object) -> object:
        with monkeypatch.context() as patch:
            for name in ("item", "tolist", "__float__", "__int__", "__bool__"):
                patch.setattr(Tensor, name, lambda _, name=name: pytest.fail(f"{name} was called"))
            return step(*arguments)

    monkeypatch.setattr(loop, "_optimize", watched)
    train(tmp_path, epochs=1)


class Impatient(Listener):
    """Presses Ctrl-C, or ends it in another way, after so many rows."""

    def __init__(self, rows: int, way: type[BaseException] = KeyboardInterrupt) -> None:
        self.left, self.way = rows, way

    def advanced(self, rows: int) -> None:
        self.left -= rows
        if self.left <= 0:
            raise self.way


class Album(Impatient):
    """Keeps the weights at the end of every epoch."""

    def __init__(self, model: nn.Module, rows: int) -> None:
        super().__init__(rows)
        self.model = model
        self.epochs: list[list[Tensor]] = []
        self.lines: list[str] = []

    def epoch_ended(self, record: EpochRecord) -> None:
        self.epochs.append(weights(self.model))

    def said(self, message: str) -> None:
        self.lines.append(message)


@pytest.mark.parametrize(("rows", "interrupted", "epochs"), [(10**6, False, 4), (3 * (64 + 40) + 16, True, 3)])
def test_the_mean_over_epochs_leaves_out_the_first(tmp_path: Path, rows: int, interrupted: bool, epochs: int) -> None:
    model = Bag()
    album = Album(model, rows)
    plan = replace(PLAN, epochs=4, keep="average")
    validate = on(table(40, seed=1), album)
    outcome = fit(model, TASK, table(), plan, validate=validate, folder=tmp_path, listener=album)
    assert (outcome.interrupted, len(album.epochs), outcome.averaged) == (interrupted, epochs, epochs - 1)
    for mean, *each in zip(weights(model), *album.epochs[1:], strict=True):
        torch.testing.assert_close(mean, torch.stack(each).mean(0))
        assert not torch.allclose(mean, each[-1])


def test_a_training_too_short_for_a_mean_keeps_its_best_epoch(tmp_path: Path) -> None:
    model = Bag()
    album = Album(model, 2 * (64 + 40) + 16)
    validate = on(table(40, seed=1), album)
    plan = replace(PLAN, epochs=4, keep="average")
    outcome = fit(model, TASK, table(), plan, validate=validate, folder=tmp_path, listener=album)
    assert (outcome.interrupted, len(outcome.epochs), outcome.averaged) == (True, 2, 0)
    assert album.lines == ["Kept is the best epoch: a mean takes 3, and there are 2."]
    assert outcome.best_epoch is not None
    best = album.epochs[outcome.best_epoch - 1]
    assert all(torch.equal(a, b) for a, b in zip(weights(model), best, strict=True))


def test_ctrl_c_keeps_the_best_epoch_so_far(tmp_path: Path) -> None:
    reached, full = train(tmp_path, epochs=1, schedule="constant", warmup_ratio=0.0)
    model, outcome = train(tmp_path, listener=Impatient(64 + 40 + 20), epochs=3, schedule="constant", warmup_ratio=0.0)
    assert outcome.interrupted
    assert outcome.best_epoch == 1
    assert all(torch.equal(a, b) for a, b in zip(weights(model), weights(reached), strict=True))
    assert not full.interrupted


def test_ctrl_c_in_the_first_epoch_keeps_the_weights_as_they_are(tmp_path: Path) -> None:
    model, outcome = train(tmp_path, listener=Impatient(30))
    assert outcome.interrupted
    assert outcome.best_epoch is None
    assert not model.training


def test_ctrl_c_while_the_best_weights_are_written_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(path: Path, model: nn.Module) -> None:
        signal.raise_signal(signal.SIGINT)
        save_weights(path, model)

    monkeypatch.setattr(loop, "save_weights", save)
    model, outcome = train(tmp_path, epochs=3)
    assert outcome.interrupted
    assert outcome.best_epoch == 1
    assert len(read_epochs(tmp_path / "metrics.jsonl")) == 1
    kept = Bag()
    restore_weights(tmp_path / "checkpoints" / "best.safetensors", kept)
    assert all(torch.equal(a, b) for a, b in zip(weights(model), weights(kept), strict=True))


def test_a_loss_that_is_no_number_ends_with_advice(tmp_path: Path) -> None:
    model = Bag()
    with torch.no_grad():
        model.head.bias.fill_(torch.inf)
    with pytest.raises(TransferKitError, match=r"training loss is nan in epoch 1; lower --set training.learning_rate"):
        fit(model, TASK, table(), PLAN, validate=on(table()), folder=tmp_path, listener=Listener())


def test_logits_come_in_the_order_of_the_rows_whatever_the_batches(tmp_path: Path) -> None:
    model, rows = Bag().eval(), table(33)
    single = predict_logits(model, rows, 1, Listener())
    assert single.shape == (33, 2)
    np.testing.assert_allclose(predict_logits(model, rows, 8, Listener()), single, atol=1e-6)


def test_a_tie_goes_to_the_lower_loss(tmp_path: Path) -> None:
    _, outcome = train(tmp_path, epochs=6, best_metric="accuracy")
    best = outcome.epochs[outcome.best_epoch - 1]
    equal = [record for record in outcome.epochs if record.metrics["accuracy"] == best.metrics["accuracy"]]
    assert best.validation_loss == min(record.validation_loss for record in equal)
    assert isinstance(best, EpochRecord)


@pytest.mark.usefixtures("other_device")
def test_it_trains_on_the_processor_wherever_it_is(tmp_path: Path) -> None:
    model, _ = train(tmp_path)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_an_epoch_is_recorded_with_the_rate_of_its_last_step(tmp_path: Path) -> None:
    heard: dict[int, float] = {}

    class Ear(Listener):
        def stepped(self, step: int, loss: float, learning_rate: float) -> None:
            heard[step] = learning_rate

    _, outcome = train(tmp_path, listener=Ear(), epochs=5, batch_size=32)
    last = outcome.epochs[-1]
    assert last.learning_rate == heard[last.step] > 0
