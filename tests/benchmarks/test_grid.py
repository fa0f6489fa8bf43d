"""Quality of the grid, strategy by strategy."""

from __future__ import annotations

import numpy as np

from benchmarks import data, grid, harness, recipe

OURS, PEER, STRATEGIES = harness.OURS, harness.PEER, recipe.STRATEGIES
ROWS = data.Rows([("a",), ("b",), ("c",), ("d",)], ["no", "no", "yes", "yes"])
TRUTH = np.array([0, 0, 1, 1])


def attempt(right: list[int]) -> harness.Attempt:
    """Two seeds of every strategy, of which the first `right` rows are classified as they should be."""
    answers = [np.where(np.arange(4) < number, TRUTH, 1 - TRUTH) for number in right for _ in range(2)]
    return harness.Attempt(1.0, 1.0, 0, np.stack(answers))


def test_every_strategy_is_scored_on_its_own_runs() -> None:
    right = [number % 5 for number in range(len(STRATEGIES))]
    splits = data.Splits("some", ROWS, ROWS, ROWS)
    found = grid.by_strategy(splits, {OURS: [attempt(right)], PEER: [attempt([4] * len(STRATEGIES))]}, seeds=2)
    assert [found[strategy][OURS]["accuracy"] for strategy in STRATEGIES] == [number / 4 for number in right]
    assert found["full"][PEER]["accuracy"] == 1
    assert found["full"]["paired"]["difference"] == right[-1] / 4 - 1


def test_a_side_without_answers_is_left_out() -> None:
    splits = data.Splits("some", ROWS, ROWS, ROWS)
    none = harness.Attempt(1.0, 1.0, 0, None)
    found = grid.by_strategy(splits, {OURS: [attempt([4] * len(STRATEGIES))], PEER: [none]}, seeds=2)
    assert set(found["lora"]) == {OURS}
    assert found["lora"][OURS]["accuracy"] == 1
