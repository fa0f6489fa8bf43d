"""AdamW's groups and the learning rate by step."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from transferkit.training.optimizer import learning_rate_factor, make_optimizer


def test_vectors_do_not_decay_and_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].requires_grad_(False)
    decayed, spared = make_optimizer(model, 1e-3, 0.1).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3)]
    assert [tuple(p.shape) for p in spared["params"]] == [(4,), (4,), (4,)]


def test_a_step_is_one_pass_over_all_tensors() -> None:
    assert make_optimizer(nn.Linear(3, 4), 1e-3, 0.1).defaults["fused"] is True


@pytest.mark.parametrize(("schedule", "reference"), [
    ("linear", transformers.get_linear_schedule_with_warmup),
    ("cosine", transformers.get_cosine_schedule_with_warmup),
])  # fmt: skip
def test_after_warm_up_the_schedule_is_that_of_transformers(schedule: str, reference: object) -> None:
    steps, warmup = 40, 8
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = reference(optimizer, warmup, steps)  # type: ignore[operator]
    for step in range(steps):
        if step >= warmup:
            ours = learning_rate_factor(step, steps, warmup / steps, schedule)
            assert ours == pytest.approx(scheduler.get_last_lr()[0], abs=1e-6)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("warmup", [0, 8])
def test_inverse_sqrt_is_that_of_transformers_from_the_first_step_above_zero(warmup: int) -> None:
    steps = 40
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = transformers.get_inverse_sqrt_schedule(optimizer, warmup + 1)
    for step in range(steps):
        optimizer.step()
        scheduler.step()
        ours = learning_rate_factor(step, steps, warmup / steps, "inverse-sqrt")
        assert ours == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)


def test_warm_up_rises_from_above_zero_and_meets_the_peak() -> None:
    factors = [learning_rate_factor(step, 20, 0.25, "linear") for step in range(20)]
    assert 0 < factors[0] < factors[1] < factors[4] < factors[5] == 1.0
    assert factors[-1] > 0


def test_without_warm_up_the_first_step_is_whole() -> None:
    assert learning_rate_factor(0, 10, 0.0, "linear") == 1.0
    assert {learning_rate_factor(step, 10, 0.0, "constant") for step in range(10)} == {1.0}
