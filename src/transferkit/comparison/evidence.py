"""From finished runs to evidence: what each strategy reached, and how every two of them compare on the same test rows.

    runs, predictions -> summarise -> compare_pairs

Shapes: n test rows, the same ones in every run, S seeds of a strategy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from transferkit.evaluation.results import Pair, RunResult, StrategySummary
from transferkit.evaluation.statistics import accuracy_interval, combine_p, holm, mcnemar_p, mean_interval

# Predicted classes [n] of every run, by strategy and seed.
Predictions = Mapping[str, Mapping[int, npt.NDArray[np.int64]]]
BoolArray = npt.NDArray[np.bool_]
Number = TypeVar("Number", int, float)

# Field of StrategySummary by the cost's name in its `pareto`.
COSTS = {
    "trainable_parameters": "trainable_parameters",
    "train_seconds": "train_seconds_mean",
    "stored_bytes": "stored_bytes",
}


def summarise(
    results: Sequence[RunResult], predictions: Predictions, labels: npt.NDArray[np.int64]
) -> tuple[StrategySummary, ...]:
    """Each strategy over its finished seeds, best mean accuracy first; runs that did not finish are left out.

    So is a strategy of which at least half of the runs failed: the mean of those that survived would be too good. And
    so is a seed that some strategy has not finished and others have, as where a comparison was stopped: means over
    different seeds would not say which strategy is better. Where no seed is finished by all, each has its own.

    Args:
        results: all runs.
        predictions: [n] of each finished run, by strategy and seed.
        labels: [n], true classes.
    """
    finished = {}
    for strategy, runs in _by_strategy(results).items():
        of_use = [run for run in runs if run.status == "finished"]
        if of_use and 2 * _failed(runs) < len(runs):
            finished[strategy] = of_use
    shared = set.intersection(*({run.seed for run in runs} for runs in finished.values())) if finished else set()
    counted = {strategy: [run for run in runs if run.seed in shared] or runs for strategy, runs in finished.items()}
    unranked = [
        _summary(strategy, runs, _right_answers(predictions[strategy], [run.seed for run in runs], labels))
        for strategy, runs in counted.items()
    ]
    # A collapsed strategy is of use at no cost: it is on no front, and takes no other off one.
    sound = _with_pareto([summary for summary in unranked if not summary.collapsed])
    collapsed = [summary for summary in unranked if summary.collapsed]
    return tuple(sorted(sound + collapsed, key=lambda summary: -summary.accuracy_mean))


def compare_pairs(
    summaries: Sequence[StrategySummary], predictions: Predictions, labels: npt.NDArray[np.int64]
) -> tuple[Pair, ...]:
    """Paired evidence on every two strategies that share a finished seed, over the seeds they share.

    Args:
        summaries: of `summarise`; within a pair, `a` is the one that comes first here.
        predictions: [n] of each finished run, by strategy and seed.
        labels: [n], true classes.
    """
    pairs = []
    for a, b in combinations(summaries, 2):
        common = [seed for seed in a.seeds if seed in b.seeds]
        if common:
            right_a, right_b = (_right_answers(predictions[s.strategy], common, labels) for s in (a, b))
            pairs.append(_pair(a.strategy, b.strategy, right_a, right_b))
    adjusted = holm([pair.mcnemar_p for pair in pairs])
    return tuple(pair.model_copy(update={"holm_p": p}) for pair, p in zip(pairs, adjusted, strict=True))


def oriented(pairs: Sequence[Pair], first: str, second: str) -> Pair | None:
    """The pair of these two, turned so that its difference is `first` minus `second`."""
    for pair in pairs:
        if (pair.a, pair.b) == (first, second):
            return pair
        if (pair.a, pair.b) == (second, first):
            low, high = pair.interval
            turned = {"a": first, "b": second, "difference": -pair.difference, "interval": (-high, -low)}
            return pair.model_copy(update=turned)
    return None


def failing(results: Sequence[RunResult], summaries: Sequence[StrategySummary]) -> dict[str, str]:
    """The strategies that `summarise` has left out though some of their runs finished, and how many of them failed."""
    summed = {summary.strategy for summary in summaries}
    return {
        strategy: f"{_failed(runs)} of {len(runs)}"
        for strategy, runs in _by_strategy(results).items()
        if strategy not in summed and any(run.status == "finished" for run in runs)
    }


def _by_strategy(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    runs: dict[str, list[RunResult]] = {}
    for run in results:
        runs.setdefault(run.strategy, []).append(run)
    return runs


def _failed(runs: Sequence[RunResult]) -> int:
    """How many of them."""
    return sum(run.status == "failed" for run in runs)


def pareto_front(costs: npt.ArrayLike, scores: npt.ArrayLike) -> BoolArray:
    """Which of m candidates, [m], have no other that is as good in cost and score and better in one."""
    cost, score = np.asarray(costs, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    # Entry [i, j]: j against i.
    no_worse = (cost[None, :] <= cost[:, None]) & (score[None, :] >= score[:, None])
    better = (cost[None, :] < cost[:, None]) | (score[None, :] > score[:, None])
    front: BoolArray = np.logical_not((no_worse & better).any(axis=1))
    return front


def _right_answers(
    by_seed: Mapping[int, npt.NDArray[np.int64]], seeds: Sequence[int], labels: npt.NDArray[np.int64]
) -> BoolArray:
    """Whether each row is answered rightly, [n, S]."""
    return np.column_stack([by_seed[seed] == labels for seed in seeds])


def _summary(strategy: str, runs: Sequence[RunResult], right: BoolArray) -> StrategySummary:
    accuracies = right.mean(axis=0)
    several = len(runs) > 1
    return StrategySummary(
        strategy=strategy,
        seeds=tuple(run.seed for run in runs),
        accuracy_mean=float(accuracies.mean()),
        accuracy_sd=float(accuracies.std(ddof=1)) if several else None,
        # With one seed the run has this interval already; drawn anew, it would differ in the last digit.
        accuracy_interval=accuracy_interval(right) if several else runs[0].intervals["accuracy"],
        f1_macro_mean=float(np.mean([run.metrics["f1_macro"] for run in runs])),
        trainable_parameters=max(_known(run.trainable_parameters) for run in runs),
        stored_bytes=max(_known(run.stored_bytes) for run in runs),
        train_seconds_mean=float(np.mean([_known(run.train_seconds) for run in runs])),
        # Not one to recommend if it fails on every other seed; one bad seed of many shows in the mean.
        collapsed=2 * sum(bool(run.collapsed) for run in runs) >= len(runs),
        pareto=(),
    )


def _known(value: Number | None) -> Number:
    if value is None:
        raise ValueError("a finished run must state its parameters, seconds and bytes")
    return value


def _with_pareto(summaries: Sequence[StrategySummary]) -> list[StrategySummary]:
    """Each with the costs at which it is on the front of all of them."""
    accuracies = [summary.accuracy_mean for summary in summaries]
    fronts = {
        cost: pareto_front([getattr(summary, field) for summary in summaries], accuracies)
        for cost, field in COSTS.items()
    }
    return [
        summary.model_copy(update={"pareto": tuple(cost for cost, front in fronts.items() if front[index])})
        for index, summary in enumerate(summaries)
    ]


def _pair(a: str, b: str, right_a: BoolArray, right_b: BoolArray) -> Pair:
    """Evidence from right answers [n, S]; `holm_p` awaits the other pairs."""
    differences = right_a.astype(np.float64) - right_b
    p = combine_p([mcnemar_p(*seed) for seed in zip(right_a.T, right_b.T, strict=True)])
    return Pair(
        a=a,
        b=b,
        difference=float(differences.mean()),
        interval=mean_interval(differences),
        mcnemar_p=p,
        holm_p=p,
    )
