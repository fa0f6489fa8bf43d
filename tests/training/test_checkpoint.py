"""A training that is stopped at any moment and goes on ends as one that was never stopped."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.training.test_loop import PLAN, TASK, Bag, Impatient, on, table, weights
from transferkit.errors import AdaptationError, RunError
from transferkit.training import loop
from transferkit.training.checkpoint import TrainingState, restore_state, save_state
from transferkit.training.loop import Outcome, Plan, fit
from transferkit.training.optimizer import make_optimizer
from transferkit.training.tracking import Listener, read_epochs

# 64 rows in batches of 8: eight steps an epoch, and a checkpoint after every one.
EACH_STEP = replace(PLAN, checkpoint_minutes=0.0, epochs=4, keep="average")


class Killed(BaseException):
    """Ends the process, as far as the loop can see."""


def train(folder: Path, plan: Plan, listener: Listener | None = None) -> tuple[Bag, Outcome]:
    torch.manual_seed(7)
    model = Bag(dropout=0.3)
    listener = listener or Listener()
    validate = on(table(40, seed=1), listener)
    return model, fit(model, TASK, table(), plan, validate=validate, folder=folder, listener=listener)


# In the first step, inside an epoch, in validation, at the end of an epoch, and in the last step.
@pytest.mark.parametrize("rows", [4, 17, 64 + 12, 64 + 40, 2 * (64 + 40) + 33, 3 * (64 + 40) + 60])
@pytest.mark.parametrize("changes", [{}, {"accumulation": 3}, {"keep": "best", "early_stopping": 3}], ids=str)
def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path, rows: int, changes: dict[str, object]) -> None:
    plan = replace(EACH_STEP, **changes)
    whole, expected = train(tmp_path / "whole", plan)
    with pytest.raises(Killed):
        train(tmp_path / "killed", plan, Impatient(rows, Killed))
    resumed, outcome = train(tmp_path / "killed", plan)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    untimed = [[r.model_copy(update={"seconds": 0}) for r in one.epochs] for one in (expected, outcome)]
    assert untimed[0] == untimed[1]
    assert read_epochs(tmp_path / "killed" / "metrics.jsonl") == outcome.epochs


def test_killed_again_and_again(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", EACH_STEP)
    deaths = 0
    while True:
        try:
            resumed, _ = train(tmp_path / "killed", EACH_STEP, Impatient(50, Killed))
            break
        except Killed:
            deaths += 1
            assert deaths < 40
    assert deaths > 3
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_a_kill_while_writing_loses_at_most_that_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = train(tmp_path / "whole", EACH_STEP)

    def torn(tensors: dict[str, Tensor], path: Path, metadata: object = None) -> None:
        written.append(path)
        if len(written) == 12:
            Path(path).write_bytes(b"half of a file")
            raise Killed
        save_file(tensors, path, metadata)

    written: list[Path] = []
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", torn)
        with pytest.raises(Killed):
            train(tmp_path / "killed", EACH_STEP)
    resumed, _ = train(tmp_path / "killed", EACH_STEP)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_no_checkpoint_is_written_unless_the_plan_says_when(tmp_path: Path) -> None:
    train(tmp_path, PLAN)
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == ["best.safetensors"]


def test_a_checkpoint_is_written_when_so_many_minutes_have_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, seconds, steps = time.perf_counter(), [0.0], list[int]()

    class Slow(Listener):
        """Each batch takes 31 seconds."""

        def advanced(self, rows: int) -> None:
            seconds[0] += 31

    monkeypatch.setattr(loop.time, "perf_counter", lambda: begun + seconds[0])
    monkeypatch.setattr(loop, "save_state", lambda _path, state, *_: steps.append(state.step))
    train(tmp_path, replace(PLAN, checkpoint_minutes=2.0, epochs=1), Slow())
    # Four steps are the first to take more than two minutes; and at the end of the epoch, whenever that is.
    assert steps == [4, 8, 8]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    model, other = Bag(), nn.Linear(8, 2)
    save_state(tmp_path / "state.safetensors", TrainingState(), model, make_optimizer(model, 0.1, 0.0))
    with pytest.raises(AdaptationError, match="does not fit the model"):
        restore_state(tmp_path / "state.safetensors", other, make_optimizer(other, 0.1, 0.0))


def test_a_checkpoint_is_safetensors_with_moments_and_random_numbers(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, EACH_STEP, Impatient(33, Killed))
    names = load_file(tmp_path / "checkpoints" / "state.safetensors").keys()
    assert {"random", "weights/head.weight", "moments/0/exp_avg", "moments/0/exp_avg_sq", "moments/0/step"} <= names


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    model: nn.Module = Bag()
    optimizer = make_optimizer(model, 0.1, 0.0)
    path = tmp_path / "state.safetensors"
    with pytest.raises(RunError, match="cannot be read"):
        restore_state(path, model, optimizer)
    save_state(path, TrainingState(), model, optimizer)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match=r"state.safetensors cannot be read .* train again with --overwrite"):
        restore_state(path, model, optimizer)
    save_file({"random": torch.zeros(1)}, path)
    with pytest.raises(RunError, match="of another version"):
        restore_state(path, model, optimizer)
