"""The page: typed results in, one self-contained HTML file out. Same input, same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from transferkit import formatting
from transferkit.comparison.evidence import COSTS
from transferkit.evaluation.results import Comparison, EpochRecord, Mistake
from transferkit.parsing import flatten
from transferkit.report import figures, palette, tables
from transferkit.report.lora import LoRAView, Updates, lora_views
from transferkit.report.svg import Picture
from transferkit.report.views import StrategyView, gather

_TEMPLATES = Path(__file__).parent / "templates"
# Title and unit of the picture of each cost.
_COST_PICTURES = {
    "trainable_parameters": ("Accuracy against trainable parameters", "parameters"),
    "train_seconds": ("Accuracy against training time", "seconds"),
    "stored_bytes": ("Accuracy against stored size", "bytes"),
}
_FILTERS = (
    formatting.percent,
    formatting.percent_interval,
    formatting.small_share,
    formatting.points,
    formatting.points_interval,
    formatting.p_value,
    formatting.count,
    formatting.three_figures,
    formatting.two_decimals,
    formatting.size,
    formatting.seconds,
    formatting.ratio,
    formatting.moment,
    formatting.plain,
)
_FUNCTIONS = (formatting.metric, formatting.metric_interval, formatting.metric_name, flatten)

History = dict[tuple[str, int], list[EpochRecord]]
Panel = tuple[StrategyView, Picture]


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor, which also names its template, and its heading."""

    anchor: str
    title: str
    folder: str = ""

    @property
    def template(self) -> str:
        """The file that draws it."""
        return f"{self.folder}{self.anchor}.html.jinja"


def render(comparison: Comparison, histories: History, mistakes: list[Mistake], updates: Updates | None = None) -> str:
    """The report as one HTML document that loads nothing.

    Args:
        comparison: of any number of strategies and seeds; a single run is a comparison with one result.
        histories: the epochs of each (strategy, seed); a run without any is left out of the learning curves.
        mistakes: in the order in which they are to be listed.
        updates: of the (strategy, seed) that have any; of each strategy the first seed is shown.
    """
    strategies = gather(comparison)
    scored = [strategy for strategy in strategies if strategy.accuracy is not None]
    baseline = comparison.baseline.get("accuracy")
    chosen = _chosen(comparison, strategies)
    sound = [strategy for strategy in scored if not strategy.collapsed and not strategy.left_out]
    alternatives = tables.alternatives(comparison, sound)
    efficiency = tables.efficiency(sound, baseline)
    learning = _learning(strategies, histories, baseline)
    calibration = _calibration(scored)
    lora = lora_views(strategies, updates or {})
    context = {
        "title": _title(comparison, strategies),
        "facts": _facts(comparison),
        "asked": _asked(comparison.config),
        "comparison": comparison,
        "strategies": strategies,
        "scored": scored,
        "sound": sound,
        "chosen": chosen,
        "several": len(strategies) > 1,
        "many_seeds": any(len(strategy.scored) > 1 for strategy in scored),
        "has_published": any(strategy.published is not None for strategy in strategies),
        "positive": tables.positive_label(scored),
        "alternatives": alternatives,
        "efficiency": efficiency,
        "evidence": _evidence_pictures(scored, chosen, alternatives, baseline),
        "costs": _cost_pictures(sound),
        "efficiency_picture": figures.efficiency(efficiency) if len(efficiency) > 1 else None,
        "learning": learning,
        "calibration": calibration,
        "lora": lora,
        "lengths": figures.lengths(comparison.data) if comparison.data.length_histogram else None,
        "mistakes": mistakes,
        "sections": _sections(comparison, scored, sound, learning, lora, calibration, mistakes),
    }
    return draw(context)


def draw(context: Mapping[str, Any]) -> str:
    """The page with `title`, `facts` (name and value), `sections`, and what their templates read."""
    return _environment().get_template("report.html.jinja").render(context)


def _title(comparison: Comparison, strategies: Sequence[StrategyView]) -> str:
    subject = comparison.data.source
    return (
        f"{strategies[0].name} on {subject}" if len(strategies) == 1 else f"{len(strategies)} strategies on {subject}"
    )


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    """What stands under the title."""
    seeds = list(dict.fromkeys(result.seed for result in comparison.results))
    return [
        *_base(comparison.config),
        ("task", comparison.task),
        *split_facts(comparison.data.rows),
        ("seed" if len(seeds) == 1 else "seeds", ", ".join(map(str, seeds))),
        ("made", formatting.moment(comparison.created)),
    ]


def _asked(config: dict[str, Any]) -> dict[str, Any]:
    """The settings by dotted path; a pre-training has none of the backbone's name, whatever stands there."""
    settings = flatten(config)
    if "encoder.vectors" in settings:
        settings.pop("backbone.name", None)
    return settings


def _base(config: dict[str, Any]) -> list[tuple[str, str]]:
    """What was adapted: a backbone, or in pre-training a new encoder on vectors; nothing where it is not known."""
    architecture, vectors = (tables.lookup(config, "encoder", name) for name in ("architecture", "vectors"))
    if vectors:
        return [("new encoder", f"{architecture} on {vectors}")]
    backbone = tables.lookup(config, "backbone", "name")
    return [("backbone", str(backbone))] if backbone else []


def split_facts(rows: Mapping[str, int]) -> list[tuple[str, str]]:
    """The number of rows by split."""
    return [(split, f"{formatting.count(number)} rows") for split, number in rows.items()]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {written.__name__: written for written in _FILTERS}
    environment.globals |= {"tables": tables, "palette": palette}
    environment.globals |= {written.__name__: written for written in _FUNCTIONS}
    return environment


def _chosen(comparison: Comparison, strategies: Sequence[StrategyView]) -> StrategyView | None:
    """The strategy whose figures stand beside the verdict: the recommended one, or the only one."""
    if len(strategies) == 1 and not strategies[0].left_out:
        return strategies[0]
    return next((strategy for strategy in strategies if strategy.name == comparison.verdict.use), None)


def _evidence_pictures(
    scored: Sequence[StrategyView],
    chosen: StrategyView | None,
    alternatives: Sequence[tables.Alternative],
    baseline: float | None,
) -> list[Picture]:
    pictures = [figures.accuracy(scored, baseline)] if len(scored) > 1 else []
    if chosen is not None and alternatives:
        pictures.append(figures.differences(chosen, alternatives))
    return pictures


def _cost_pictures(scored: Sequence[StrategyView]) -> list[Picture]:
    """Pareto plots of the costs that at least two strategies have on record."""
    return [
        figures.pareto(scored, cost, *_COST_PICTURES[cost])
        for cost in COSTS
        if sum(bool(strategy.cost(cost)) for strategy in scored) > 1
    ]


def _learning(strategies: Sequence[StrategyView], histories: History, baseline: float | None) -> list[Panel]:
    """A panel of learning curves for each strategy that has any."""
    known = {key: records for key, records in histories.items() if records}
    limits = figures.common_limits(known.values(), baseline) if known else None
    panels = []
    for index, strategy in enumerate(strategies):
        seeds = {run.seed: known[key] for run in strategy.runs if (key := (run.strategy, run.seed)) in known}
        if seeds and limits:
            panels.append((strategy, figures.learning(strategy, index, seeds, limits, baseline)))
    return panels


def _calibration(scored: Sequence[StrategyView]) -> list[Panel]:
    """A reliability diagram for each strategy that has one."""
    known = [strategy for strategy in scored if strategy.reliability]
    lowest = figures.lowest_share(known) if known else 0.0
    return [(strategy, figures.calibration(strategy, index, lowest)) for index, strategy in enumerate(known)]


def _sections(
    comparison: Comparison,
    scored: Sequence[StrategyView],
    sound: Sequence[StrategyView],
    learning: Sequence[Panel],
    lora: Sequence[LoRAView],
    calibration: Sequence[Panel],
    mistakes: Sequence[Mistake],
) -> list[Section]:
    """The sections that have something to say, in the order of the page."""
    several = len({result.strategy for result in comparison.results}) > 1
    detailed = any(strategy.detailed for strategy in scored)
    candidates = (
        (True, Section("verdict", "Verdict" if several else "Result")),
        (bool(scored), Section("scores", "Comparison" if several else "Scores")),
        (bool(comparison.pairs), Section("evidence", "Pairwise evidence")),
        (len(sound) > 1, Section("costs", "What accuracy costs")),
        (bool(learning), Section("learning", "Learning curves")),
        (bool(lora), Section("lora", "What LoRA learned")),
        (detailed, Section("classes", "Classes")),
        (bool(calibration), Section("calibration", "Calibration")),
        (True, Section("data", "Data")),
        (bool(mistakes), Section("mistakes", "Confident mistakes")),
        (True, Section("setup", "Configuration and environment")),
    )
    return [section for present, section in candidates if present]
