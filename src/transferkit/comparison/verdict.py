"""From finished runs to a recommendation: summaries, paired evidence, and the verdict in plain words.

    runs, predictions -> summarise -> compare_pairs -> decide

Shapes: n test rows, the same ones in every run, S seeds of a strategy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from transferkit.evaluation.results import Pair, RunResult, StrategySummary, Verdict
from transferkit.evaluation.statistics import accuracy_interval, combine_p, holm, mcnemar_p, mean_interval
from transferkit.formatting import (
    count,
    listed,
    p_equation,
    percent,
    percent_interval,
    points,
    points_interval,
    seconds,
    size,
)

# Predicted classes [n] of every run, by strategy and seed.
Predictions = Mapping[str, Mapping[int, npt.NDArray[np.int64]]]
BoolArray = npt.NDArray[np.bool_]
Number = TypeVar("Number", int, float)

SIGNIFICANCE = 0.05
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
    runs_of: dict[str, list[RunResult]] = {}
    for run in results:
        runs_of.setdefault(run.strategy, []).append(run)
    steady = {name: runs for name, runs in runs_of.items() if 2 * _number(runs, "failed") < len(runs)}
    finished = {name: [run for run in runs if run.status == "finished"] for name, runs in steady.items()}
    finished = {name: runs for name, runs in finished.items() if runs}
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
    found = {}
    for name in dict.fromkeys(run.strategy for run in results if run.status == "finished"):
        if name not in summed:
            runs = [run for run in results if run.strategy == name]
            found[name] = f"{_number(runs, 'failed')} of {len(runs)}"
    return found


def _number(runs: Sequence[RunResult], status: str) -> int:
    return sum(run.status == status for run in runs)


def pareto_front(costs: npt.ArrayLike, scores: npt.ArrayLike) -> BoolArray:
    """Which of m candidates, [m], have no other that is as good in cost and score and better in one."""
    cost, score = np.asarray(costs, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    # Entry [i, j]: j against i.
    no_worse = (cost[None, :] <= cost[:, None]) & (score[None, :] >= score[:, None])
    better = (cost[None, :] < cost[:, None]) | (score[None, :] > score[:, None])
    front: BoolArray = np.logical_not((no_worse & better).any(axis=1))
    return front


def decide(
    summaries: Sequence[StrategySummary],
    pairs: Sequence[Pair],
    baseline: Mapping[str, float],
    margin: float,
    uncounted: Sequence[int] = (),
    failed: Mapping[str, str] | None = None,
) -> Verdict:
    """Recommend the most accurate strategy, or a cheaper one that cannot be told apart from it.

    Candidates have not collapsed. Ties are those whose difference from the best is not significant after
    Holm's correction; among the best and its ties within `margin`, the one with the fewest trainable
    parameters is recommended.

    Args:
        summaries: of `summarise`, best accuracy first.
        pairs: of `compare_pairs`.
        baseline: metrics of always answering the majority class, with accuracy.
        margin: accuracy, from 0 to 1, that may be given up for a cheaper strategy.
        uncounted: finished seeds that `summarise` has left out.
        failed: of `failing`.
    """
    nothing = _nothing_to_show(summaries, baseline, failed or {})
    if nothing is not None:
        return Verdict(use=None, reason=nothing, ties=())
    candidates = [summary for summary in summaries if not summary.collapsed]
    if not candidates:
        return Verdict(use=None, reason=_all_collapsed(summaries, baseline["accuracy"]), ties=())
    best, *others = candidates
    behind = {s.strategy: pair for s in others if (pair := oriented(pairs, best.strategy, s.strategy))}
    ties = [s for s in others if s.strategy in behind and behind[s.strategy].holm_p >= SIGNIFICANCE]
    # The slack absorbs rounding: 0.85 - 0.84 is a little more than 0.01.
    affordable = [best, *(s for s in ties if best.accuracy_mean - s.accuracy_mean <= margin + 1e-9)]
    # Among equally cheap ones min takes the first, which is the most accurate.
    use = min(affordable, key=lambda s: s.trainable_parameters)
    tie_names = [s.strategy for s in ties]
    sentences = [_what_it_gives(use, baseline["accuracy"])]
    if failed:
        sentences.append(_left_out(failed))
    if len(summaries) == 1:
        sentences.append("There is no other strategy to compare it with.")
    elif use is not best:
        sentences.append(_what_it_gives_up(use, best, behind[use.strategy], tie_names))
    else:
        sentences.append(_lead_over_the_others(behind, tie_names, margin))
    if any(len(s.seeds) == 1 for s in summaries):
        sentences.append("One seed only: the intervals cover the choice of test rows, not of the seed.")
    if uncounted:
        one, names = len(uncounted) == 1, listed(map(str, uncounted))
        which, them = (f"Seed {names} is", "it") if one else (f"Seeds {names} are", "them")
        sentences.append(f"{which} left out, since not every strategy has finished with {them}.")
    return Verdict(use=use.strategy, reason=" ".join(sentences), ties=tuple(tie_names))


def _nothing_to_show(
    summaries: Sequence[StrategySummary], baseline: Mapping[str, float], failed: Mapping[str, str]
) -> str | None:
    """Why these runs cannot show what is better, if they cannot."""
    if not summaries and not failed:
        return "No run finished, so there is nothing to recommend."
    if not summaries:
        return f"Nothing to recommend. {_left_out(failed)}"
    if baseline["accuracy"] == 1:
        return (
            "Nothing to recommend: all test rows are of one class, so that they cannot show what tells the classes "
            "apart; give test rows of every class."
        )
    if not set.intersection(*(set(summary.seeds) for summary in summaries)):
        return (
            "Nothing to recommend: no seed is finished by every strategy, and means over different seeds do not say "
            "which is better; mend what failed and compare again."
        )
    return None


def _left_out(failed: Mapping[str, str]) -> str:
    each = listed(f"{name} ({number})" for name, number in failed.items())
    return f"Left out, as at least half of the runs failed: {each}."


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


def _what_it_gives(use: StrategySummary, baseline: float) -> str:
    seeds = f" on average over {len(use.seeds)} seeds" if len(use.seeds) > 1 else ""
    return (
        f"Use {use.strategy}: it answers {percent(use.accuracy_mean)} of the test rows correctly{seeds} "
        f"(95 % interval {percent_interval(use.accuracy_interval)}), where always answering the most frequent "
        f"class gives {percent(baseline)}; it trains {count(use.trainable_parameters)} parameters in "
        f"{seconds(use.train_seconds_mean)} and takes {size(use.stored_bytes)} to store."
    )


def _what_it_gives_up(use: StrategySummary, best: StrategySummary, best_minus_use: Pair, ties: Sequence[str]) -> str:
    also = [name for name in ties if name != use.strategy]
    if best_minus_use.difference == 0:
        return (
            f"On these test rows it is as accurate as {best.strategy}, which trains "
            f"{count(best.trainable_parameters)} parameters (95 % interval of the difference "
            f"{points_interval(best_minus_use.interval)} points)"
            + (f"; {listed(also)} cannot be told apart from {best.strategy}." if also else ".")
        )
    return (
        f"The most accurate, {best.strategy}, trains {count(best.trainable_parameters)} parameters; against it "
        f"you give up {_lead(best_minus_use)}, a difference that chance can explain"
        + (f", as it can for {listed(also)}." if also else ".")
    )


def _lead_over_the_others(behind: Mapping[str, Pair], ties: Sequence[str], margin: float) -> str:
    if ties:
        return (
            f"It has the highest accuracy; {listed(ties)} cannot be told apart from it, but no tie "
            f"that trains fewer parameters comes within {points(margin, plus=False)} points of it."
        )
    if behind:
        next_best = next(iter(behind.values()))
        return (
            f"The next best, {next_best.b}, gives up {_lead(next_best)}, more than chance explains "
            f"({p_equation(next_best.holm_p)} after Holm's correction)."
        )
    return "The others stayed at the majority baseline."


def _all_collapsed(summaries: Sequence[StrategySummary], baseline: float) -> str:
    top = summaries[0]
    return (
        "Nothing to recommend: no strategy beats always answering the most frequent class, which gives "
        f"{percent(baseline)}; the most accurate, {top.strategy}, reaches {percent(top.accuracy_mean)} "
        f"(95 % interval {percent_interval(top.accuracy_interval)}). "
        "More training rows, more epochs or another learning rate may help."
    )


def _lead(pair: Pair) -> str:
    """The difference of a pair and its interval, in points."""
    return f"{points(pair.difference, plus=False)} points (95 % interval {points_interval(pair.interval)})"
