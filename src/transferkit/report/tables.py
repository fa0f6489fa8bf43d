"""The tables of a report: rows computed from the results, before any mark-up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transferkit.comparison.evidence import COSTS, oriented
from transferkit.comparison.verdict import SIGNIFICANCE
from transferkit.evaluation.results import Comparison, DataFacts, Interval, Mistake, Pair, RunResult
from transferkit.formatting import metrics_in_order
from transferkit.report.views import StrategyView


@dataclass(frozen=True)
class Alternative:
    """A strategy seen from the recommended one: what changes for whom takes it instead."""

    strategy: StrategyView
    difference: float
    interval: Interval
    told_apart: bool
    ratios: dict[str, float | None]


@dataclass(frozen=True)
class Efficiency:
    """What the trainable parameters of a strategy buy over the majority baseline."""

    strategy: StrategyView
    trainable: float
    gained: float

    @property
    def per_thousand(self) -> float:
        """Share of accuracy gained, in points, for each thousand trainable parameters."""
        return 100 * self.gained / (self.trainable / 1000)


def told_apart(pair: Pair) -> bool:
    """Whether the evidence separates the two strategies of a pair."""
    return pair.holm_p < SIGNIFICANCE


def alternatives(comparison: Comparison, strategies: Sequence[StrategyView]) -> list[Alternative]:
    """Every strategy that can be set against the recommended one, as a difference from it."""
    use = next((s for s in strategies if s.name == comparison.verdict.use), None)
    if use is None:
        return []
    found = []
    for other in strategies:
        if pair := oriented(comparison.pairs, other.name, use.name):
            ratios = {cost: _ratio(other.cost(cost), use.cost(cost)) for cost in COSTS}
            found.append(Alternative(other, pair.difference, pair.interval, told_apart(pair), ratios))
    return found


def efficiency(strategies: Sequence[StrategyView], baseline: float | None) -> list[Efficiency]:
    """Strategies above the baseline, the most accuracy for each parameter first."""
    if baseline is None:
        return []
    rows = [
        Efficiency(strategy, trainable, strategy.accuracy - baseline)
        for strategy in strategies
        if (trainable := strategy.cost("trainable_parameters"))
        and strategy.accuracy is not None
        and strategy.accuracy > baseline
    ]
    return sorted(rows, key=lambda row: -row.per_thousand)


def metric_names(strategies: Sequence[StrategyView]) -> list[str]:
    """The metrics that any run has: the known ones in the order of a reader's interest, then the others."""
    return metrics_in_order(name for s in strategies for run in s.scored for name in run.metrics)


def troubled(runs: Sequence[RunResult]) -> list[RunResult]:
    """The runs that a reader must be warned of: failed, interrupted or collapsed."""
    return [run for run in runs if run.status != "finished" or run.collapsed]


def positive_label(strategies: Sequence[StrategyView]) -> str | None:
    """The class that two-class precision, recall and F1 speak of."""
    return next((scores.positive_label for s in strategies for scores in s.detailed), None)


def wrong_answers(mistake: Mistake) -> str:
    """As JSON: the probability that each strategy with a wrong answer gave to it."""
    wrong = {name: chance for name, (label, chance) in mistake.answers.items() if label != mistake.label}
    return json.dumps(wrong)


def true_counts(strategies: Sequence[StrategyView]) -> dict[str, int]:
    """Test rows by true class."""
    details = next((s.detailed[0] for s in strategies if s.detailed), None)
    return {one.label: one.support for one in details.per_class} if details else {}


def class_counts(data: DataFacts) -> list[tuple[str, list[tuple[int, float]]]]:
    """By label: (rows, share of the split) for each split."""
    totals = {split: sum(counts) or 1 for split, counts in data.class_counts.items()}
    return [
        (
            label,
            [(counts[index], counts[index] / totals[split]) for split, counts in data.class_counts.items()],
        )
        for index, label in enumerate(data.labels)
    ]


def lookup(settings: dict[str, Any], *path: str) -> Any:
    """The value at a path of nested settings, or None."""
    value: Any = settings
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None
