"""A strategy as the page shows it: its runs put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from transferkit.comparison.evidence import failing
from transferkit.config import StrategySpec, labels_of
from transferkit.evaluation.calibration import pooled
from transferkit.evaluation.results import (
    ClassScores,
    Comparison,
    Interval,
    ReliabilityBin,
    RunResult,
    Scores,
    StrategySummary,
)
from transferkit.formatting import clip_apart
from transferkit.report.palette import Look, look
from transferkit.settings import is_named

# Of a name in a picture: beside a point in the middle of the narrowest one it still fits.
_SHORT_LETTERS = 20
_LEFT_OUT = "left out"


@dataclass(frozen=True)
class StrategyView:
    """All runs of one strategy, its summary unless it has none or was left out, and its look."""

    name: str
    # The name in pictures, which no other strategy of the page has.
    short: str
    look: Look
    runs: tuple[RunResult, ...]
    summary: StrategySummary | None
    flags: tuple[str, ...]
    # Accuracy that others have published for the strategy.
    published: float | None = None

    @property
    def scored(self) -> tuple[RunResult, ...]:
        """The runs that its numbers are means of: those of the summary, else all with scores."""
        if self.summary is not None:
            return tuple(run for run in self.runs if run.status == "finished" and run.seed in self.summary.seeds)
        return tuple(run for run in self.runs if run.metrics)

    @property
    def detailed(self) -> tuple[Scores, ...]:
        """The full scores of the scored runs."""
        return tuple(run.scores for run in self.scored if run.scores is not None)

    @property
    def accuracy(self) -> float | None:
        """Mean accuracy over seeds."""
        return self.summary.accuracy_mean if self.summary else self.metric("accuracy")

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the accuracy."""
        return self.summary.accuracy_interval if self.summary else self.metric_interval("accuracy")

    def metric(self, name: str) -> float | None:
        """Mean of a metric over seeds."""
        return self._mean(lambda run: run.metrics.get(name))

    def metric_interval(self, name: str) -> Interval | None:
        """95 % interval of a metric; with several seeds only that of accuracy is known."""
        if name == "accuracy" and self.summary:
            return self.summary.accuracy_interval
        return self.scored[0].intervals.get(name) if len(self.scored) == 1 else None

    def cost(self, name: str) -> float | None:
        """Mean over seeds of a field of the runs, such as `train_seconds`."""
        return self._mean(lambda run: getattr(run, name))

    def on_front(self, cost: str) -> bool:
        """Whether no strategy is better at this cost."""
        return self.summary is not None and cost in self.summary.pareto

    @property
    def collapsed(self) -> bool:
        """Whether it has learnt nothing, so that its costs are the price of nothing."""
        return self.summary is not None and self.summary.collapsed

    @property
    def left_out(self) -> bool:
        """Whether so many of its runs failed that the scores of the others do not count."""
        return _LEFT_OUT in self.flags

    @property
    def trainable_share(self) -> float | None:
        """Trainable parameters over all."""
        trainable, total = self.cost("trainable_parameters"), self.cost("total_parameters")
        return trainable / total if trainable is not None and total else None

    @property
    def confusion(self) -> list[list[int]]:
        """Counts summed over seeds; rows are true classes, columns predicted ones."""
        matrices = [scores.confusion for scores in self.detailed]
        return [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]

    @property
    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """Test rows of all seeds by confidence, from low to high."""
        return pooled(one for scores in self.detailed for one in scores.reliability)

    def class_score(self, label: str, field: str) -> float | None:
        """Mean over seeds of a field of `ClassScores`."""
        found = [one for scores in self.detailed for one in scores.per_class if one.label == label]
        return fmean(_number(one, field) for one in found) if found else None

    def _mean(self, value: Callable[[RunResult], float | None]) -> float | None:
        known = [number for number in map(value, self.scored) if number is not None]
        return fmean(known) if known else None


def gather(comparison: Comparison) -> list[StrategyView]:
    """The strategies of a comparison, best first; those without a summary follow in order of running."""
    summaries = {summary.strategy: summary for summary in comparison.summaries}
    names = list(dict.fromkeys(result.strategy for result in comparison.results))
    looks = {name: look(index) for index, name in enumerate(names)}
    short = clip_apart(names, _SHORT_LETTERS)
    ordered = [name for name in summaries if name in looks] + [name for name in names if name not in summaries]
    return [
        StrategyView(
            name=name,
            short=short[name],
            look=looks[name],
            runs=tuple(result for result in comparison.results if result.strategy == name),
            summary=summaries.get(name),
            flags=_flags(comparison, name),
            published=_published(comparison, name),
        )
        for name in ordered
    ]


def _published(comparison: Comparison, name: str) -> float | None:
    """The figure of others for a strategy with its options, or else for its name.

    Of several kinds of one strategy that of the name would be known of one alone.
    """
    figures: dict[str, float] = comparison.config.get("published", {})
    specs = [StrategySpec.model_validate(spec) for spec in comparison.config.get("strategies", ())]
    own = dict(zip(labels_of(specs), specs, strict=True)).get(name)
    for label, figure in figures.items():
        if label != StrategySpec.name_of(label) and own is not None and is_named(label, own):
            return figure
    plain = StrategySpec.name_of(name)
    kinds = {one.strategy for one in comparison.results if StrategySpec.name_of(one.strategy) == plain}
    return figures.get(plain) if len(kinds) == 1 else None


def _flags(comparison: Comparison, name: str) -> tuple[str, ...]:
    """What a reader must know of a strategy at first sight, in words."""
    runs = [result for result in comparison.results if result.strategy == name]
    several = len({result.strategy for result in comparison.results}) > 1
    flags = []
    if several and name == comparison.verdict.use:
        flags.append("recommended")
    elif name in comparison.verdict.ties:
        flags.append("ties with the best")
    if collapsed := [run for run in runs if run.collapsed]:
        flags.append(_among("collapsed", len(collapsed), len(runs)))
    if name in failing(comparison.results, comparison.summaries):
        flags.append(_LEFT_OUT)
    for status in ("failed", "interrupted"):
        if met := [run for run in runs if run.status == status]:
            flags.append(_among(status, len(met), len(runs)))
    return tuple(flags)


def _among(word: str, some: int, every: int) -> str:
    return word if some == every else f"{word} in {some} of {every} runs"


def _number(scores: ClassScores, field: str) -> float:
    return float(getattr(scores, field))
