"""From evidence to a recommendation: the verdict, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transferkit.comparison.evidence import oriented
from transferkit.evaluation.results import Pair, StrategySummary, Verdict
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

SIGNIFICANCE = 0.05


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
        sentences.append("No other strategy has results to compare it with.")
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
