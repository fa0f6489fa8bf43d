"""The figures of a report: each takes typed values and gives inline SVG with the same content in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from transferkit import formatting
from transferkit.evaluation.results import DataFacts, EpochRecord
from transferkit.formatting import percent, percent_interval
from transferkit.report.labels import Point, label_points
from transferkit.report.palette import HEAT, INK, MUTED, PAPER
from transferkit.report.svg import Picture, picture, plot_style, sheet
from transferkit.report.tables import Alternative, Efficiency
from transferkit.report.views import StrategyView

_ROW_INCHES = 0.27
_DASHED = (0, (4, 3))
_DOTTED = (0, (2, 2))
# Tick steps that readers count in.
_STEPS = [1, 2, 2.5, 5, 10]

Histories = dict[int, list[EpochRecord]]


@plot_style()
def accuracy(strategies: Sequence[StrategyView], baseline: float | None) -> Picture:
    """Mean accuracy with its 95 % interval by strategy; strokes below are single seeds, stars above published."""
    means = [strategy.accuracy or 0.0 for strategy in strategies]
    figure = sheet(0.75 + _ROW_INCHES * len(strategies))
    axes = figure.add_subplot()
    for row, (strategy, mean) in enumerate(zip(strategies, means, strict=True)):
        colour = strategy.look.colour.light
        seeds = [run.metrics["accuracy"] for run in strategy.scored if "accuracy" in run.metrics]
        if len(seeds) > 1:
            axes.plot(seeds, [row + 0.28] * len(seeds), "|", color=colour, markersize=5)
        if strategy.interval:
            axes.plot(strategy.interval, [row, row], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot(mean, row, strategy.look.marker, color=colour, markersize=7)
        if strategy.published is not None:
            # Above the mark, which it would hide where both agree.
            axes.plot(strategy.published, row - 0.3, "*", color=INK.light, mfc=PAPER.light, markersize=6.5)
    legend = ["stars: published"] if any(s.published is not None for s in strategies) else []
    if baseline is not None:
        axes.axvline(baseline, color=MUTED.light, linewidth=1, linestyle=_DASHED)
        legend.insert(0, f"dashed: majority, {percent(baseline)}")
    axes.set_title("; ".join(legend))
    _rows_by_name(axes, strategies)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(_percent_tick))
    spoken = [
        f"{s.name} {percent(s.accuracy)} ({percent_interval(s.interval)}"
        f"{'' if s.published is None else f', published {percent(s.published)}'})"
        for s in strategies
    ]
    alternative = f"{_sentence(spoken)} Majority baseline {percent(baseline)}."
    return picture(figure, "accuracy", "Test accuracy with 95 % interval", alternative)


@plot_style()
def differences(reference: StrategyView, alternatives: Sequence[Alternative]) -> Picture:
    """Paired differences in accuracy from the recommended strategy, in points, with 95 % intervals."""
    figure = sheet(0.75 + _ROW_INCHES * len(alternatives))
    axes = figure.add_subplot()
    axes.axvline(0, color=MUTED.light, linewidth=1, linestyle=_DASHED)
    for row, other in enumerate(alternatives):
        look = other.strategy.look
        axes.plot(
            [100 * end for end in other.interval],
            [row, row],
            color=look.colour.light,
            linewidth=2,
            solid_capstyle="round",
        )
        fill = look.colour.light if other.told_apart else PAPER.light
        axes.plot([100 * other.difference], [row], look.marker, color=look.colour.light, mfc=fill, markersize=7)
    axes.set_title("open marks: not told apart")
    _rows_by_name(axes, [other.strategy for other in alternatives])
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(_points_tick))
    spoken = [
        f"{other.strategy.name} {formatting.points(other.difference)} "
        f"({formatting.points_interval(other.interval)}, {'' if other.told_apart else 'not '}told apart)"
        for other in alternatives
    ]
    title = f"Difference in accuracy from {reference.name}, points"
    return picture(figure, "differences", title, _sentence(spoken))


@plot_style()
def pareto(strategies: Sequence[StrategyView], cost: str, title: str, unit: str) -> Picture:
    """Accuracy against one cost; filled marks and the stepped line are the front."""
    shown = [(s, value, s.accuracy) for s in strategies if (value := s.cost(cost)) and s.accuracy is not None]
    figure = sheet(2.7)
    axes = figure.add_subplot()
    front = _steps(sorted((x, y) for s, x, y in shown if s.on_front(cost)))
    axes.plot(*_columns(front), color=MUTED.light, linewidth=1, linestyle=_DASHED, zorder=1)
    for strategy, x, y in shown:
        look = strategy.look
        fill = look.colour.light if strategy.on_front(cost) else PAPER.light
        axes.plot([x], [y], look.marker, color=look.colour.light, mfc=fill, markersize=7, zorder=2)
    _log_axis(axes, [x for _, x, _ in shown], unit)
    axes.set_ylim(*_padded([y for _, _, y in shown], 0.12))
    axes.yaxis.set_major_formatter(FuncFormatter(_percent_tick))
    axes.grid(visible=True, axis="y")
    axes.set_title("accuracy; filled marks: on the front")
    label_points(figure, axes, [Point(x, y, strategy.short) for strategy, x, y in shown], front)
    spoken = [
        f"{s.name} {_amount(x, unit)}, {percent(y)}{', on the front' if s.on_front(cost) else ''}" for s, x, y in shown
    ]
    return picture(figure, f"pareto-{cost}", title, _sentence(spoken))


@plot_style()
def efficiency(rows: Sequence[Efficiency]) -> Picture:
    """Points of accuracy gained over the baseline for each thousand trainable parameters, on a log axis."""
    figure = sheet(0.75 + _ROW_INCHES * len(rows))
    axes = figure.add_subplot()
    for row, one in enumerate(rows):
        look = one.strategy.look
        axes.plot([one.per_thousand], [row], look.marker, color=look.colour.light, markersize=7)
    _log_axis(axes, [one.per_thousand for one in rows], "")
    axes.set_title("points over the majority baseline")
    _rows_by_name(axes, [one.strategy for one in rows])
    spoken = [f"{one.strategy.name} {formatting.three_figures(one.per_thousand)}" for one in rows]
    title = "Accuracy gained for each thousand trainable parameters"
    return picture(figure, "efficiency", title, _sentence(spoken))


@dataclass(frozen=True)
class Limits:
    """Axis limits that every panel of learning curves shares, so that they can be compared by eye."""

    epochs: tuple[float, float]
    loss: tuple[float, float]
    accuracy: tuple[float, float]


def common_limits(histories: Iterable[list[EpochRecord]], baseline: float | None) -> Limits:
    """Limits that hold every learning curve of the page, and the baseline."""
    records = [record for history in histories for record in history]
    epochs = [record.epoch for record in records]
    losses = [loss for record in records for loss in (record.train_loss, record.validation_loss)]
    reached = [record.metrics["accuracy"] for record in records] + ([] if baseline is None else [baseline])
    return Limits((min(epochs) - 0.3, max(epochs) + 0.3), _padded(losses), _padded(reached))


@plot_style()
def learning(
    strategy: StrategyView, index: int, histories: Histories, limits: Limits, baseline: float | None
) -> Picture:
    """Loss and validation accuracy by epoch, one line a seed; `limits` are common to all strategies."""
    figure = sheet(1.9)
    loss, score = figure.subplots(1, 2)
    colour, marker = strategy.look.colour.light, strategy.look.marker
    for records in histories.values():
        epochs = [record.epoch for record in records]
        marks = marker if len(records) == 1 else "none"
        train = [record.train_loss for record in records]
        validation = [record.validation_loss for record in records]
        reached = [record.metrics["accuracy"] for record in records]
        loss.plot(epochs, train, marker=marks, linestyle=_DOTTED, color=MUTED.light, linewidth=1.3, mfc=PAPER.light)
        loss.plot(epochs, validation, marker=marks, linestyle="-", color=colour, linewidth=1.6)
        score.plot(epochs, reached, marker=marks, linestyle="-", color=colour, linewidth=1.6)
        best = best_epoch(records)
        score.plot([best.epoch], [best.metrics["accuracy"]], marker, color=colour, markersize=6)
    if baseline is not None:
        score.axhline(baseline, color=MUTED.light, linewidth=1, linestyle=_DASHED)
    loss.set_title("loss")
    score.set_title("validation accuracy")
    for axes, limit in ((loss, limits.loss), (score, limits.accuracy)):
        axes.set_ylim(*limit)
        axes.set_xlim(*limits.epochs)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
        axes.grid(visible=True, axis="y")
    score.yaxis.set_major_formatter(FuncFormatter(_percent_tick))
    spoken = [_spoken_history(seed, records) for seed, records in histories.items()]
    return picture(figure, f"learning-{index}", strategy.name, " ".join(spoken))


def lowest_share(strategies: Iterable[StrategyView]) -> float:
    """The lower end of the axes that all reliability diagrams of the page share."""
    ends = [end for s in strategies for one in s.reliability for end in (one.lower, one.accuracy)]
    return max(0.0, math.floor(10 * min(ends)) / 10)


@plot_style()
def calibration(strategy: StrategyView, index: int, lowest: float) -> Picture:
    """Share of right answers by stated confidence, with the rows of each bin below; `lowest` is common to all.

    A mark's area grows with its rows; the stroke to the diagonal is the gap that the calibration error weighs.
    """
    bins, colour = strategy.reliability, strategy.look.colour.light
    every = sum(one.rows for one in bins)
    figure = sheet(2.7)
    shares, rows = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    shares.plot([lowest, 1], [lowest, 1], color=MUTED.light, linewidth=1, linestyle=_DASHED)
    for one in bins:
        shares.plot([one.confidence] * 2, [one.confidence, one.accuracy], color=colour, linewidth=1)
        size = 3 + 9 * math.sqrt(one.rows / every)
        shares.plot([one.confidence], [one.accuracy], strategy.look.marker, color=colour, markersize=size)
    widths = [one.upper - one.lower for one in bins]
    rows.bar(
        [one.lower for one in bins],
        [one.rows for one in bins],
        widths,
        align="edge",
        color=colour,
        edgecolor=PAPER.light,
        linewidth=0.6,
    )
    ece = formatting.score(strategy.metric("ece"))
    shares.set_title(f"share of right answers; ECE {ece}")
    shares.set_ylim(lowest - 0.02, 1.03)
    rows.set_xlim(lowest - 0.02, 1.03)
    rows.set_xlabel("confidence; bars: test rows")
    for axes, axis in ((shares, shares.yaxis), (rows, rows.xaxis)):
        axis.set_major_locator(MaxNLocator(5, steps=_STEPS))
        axis.set_major_formatter(FuncFormatter(_percent_tick))
        axes.grid(visible=True, axis="y")
    rows.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    rows.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formatting.short_count(value)))
    spoken = [
        f"confidence {percent(one.confidence)}, right {percent(one.accuracy)} ({formatting.count(one.rows)} rows)"
        for one in bins
    ]
    alternative = f"Expected calibration error {ece}: {_sentence(spoken)}"
    return picture(figure, f"calibration-{index}", f"Calibration of {strategy.name}", alternative)


@plot_style()
def lengths(data: DataFacts) -> Picture:
    """Training rows by length in tokens, with the length beyond which rows are cut."""
    edges, rows = _columns(data.length_histogram)
    longest = max(int(data.tokens.get("max", 0)), edges[-1])
    widths = [right - left for left, right in pairwise([*edges, longest + 1])]
    figure = sheet(1.9)
    axes = figure.add_subplot()
    axes.bar(edges, rows, widths, align="edge", color=HEAT.light, edgecolor=PAPER.light, linewidth=0.6)
    if edges[-1] + widths[-1] > data.max_length:
        axes.axvline(data.max_length, color=INK.light, linewidth=1, linestyle=_DASHED)
    axes.set_title(f"training rows; cut beyond {data.max_length} tokens")
    axes.set_xlabel("length in tokens")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formatting.short_count(value)))
    axes.grid(visible=True, axis="y")
    spoken = [
        f"{edge} to {edge + width - 1} tokens: {formatting.count(number)} rows"
        for edge, width, number in zip(edges, widths, rows, strict=True)
    ]
    return picture(figure, "lengths", "Length of the training rows in tokens", _sentence(spoken))


def _rows_by_name(axes: Axes, strategies: Sequence[StrategyView]) -> None:
    """One row a strategy, the first on top, its name on the left."""
    axes.set_yticks(range(len(strategies)), [s.short for s in strategies])
    axes.set_ylim(len(strategies) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK.light)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=True, axis="x")


def _log_axis(axes: Axes, values: Sequence[float], unit: str) -> None:
    """A log axis wide enough for names at its ends and for one whole decade."""
    axes.set_xscale("log")
    low, high = min(values), max(values)
    margin = max(2.5, (high / low) ** 0.12, math.sqrt(10 * low / high))
    axes.set_xlim(low / margin, high * margin)
    decades = math.log10(high / low * margin**2)
    subs = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(10, subs=subs, numticks=6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _amount(value, unit)))


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return formatting.size(value)
    if unit == "seconds":
        return formatting.seconds(value)
    return formatting.short_count(value)


def _padded(values: Iterable[float], share: float = 0.06) -> tuple[float, float]:
    """Limits a little beyond the finite values; a diverged loss must not decide the axis."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    margin = (high - low) * share or 0.05
    return low - margin, high + margin


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [first for first, _ in pairs], [second for _, second in pairs]


def _percent_tick(value: float, _: int) -> str:
    return f"{100 * value:g}\u00a0%"


def _points_tick(value: float, _: int) -> str:
    return formatting.signed(f"{value:+g}")


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of the line that stays level until the next point and then rises to it."""
    corners = [corner for (x, y), (right, _) in pairwise(points) for corner in ((x, y), (right, y))]
    return [*corners, *points[-1:]]


def best_epoch(records: Sequence[EpochRecord]) -> EpochRecord:
    """The last of those that were better than all before them."""
    return max(records, key=lambda record: (record.best, record.epoch))


def _spoken_history(seed: int, records: Sequence[EpochRecord]) -> str:
    first, last = records[0], records[-1]
    best = best_epoch(records)
    epochs = "1 epoch" if len(records) == 1 else f"{len(records)} epochs"
    return (
        f"Seed {seed}, {epochs}: training loss {first.train_loss:.3f} to {last.train_loss:.3f}, "
        f"validation loss {first.validation_loss:.3f} to {last.validation_loss:.3f}, "
        f"validation accuracy {percent(best.metrics['accuracy'])} at epoch {best.epoch}."
    )


def _sentence(parts: Sequence[str]) -> str:
    return f"{'; '.join(parts)}."
