"""Figures say in words what they draw, and survive what runs may hand them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from transferkit.evaluation.results import ReliabilityBin
from transferkit.report import figures, palette, tables
from transferkit.report.labels import Box
from transferkit.report.svg import Picture
from transferkit.report.views import StrategyView, gather
from transferkit.settings import compare_config

from . import samples


def views(*names: str) -> list[StrategyView]:
    return gather(samples.compare([samples.run(name) for name in names]))


def luminance(colour: str) -> float:
    """Relative luminance of '#rrggbb' (WCAG 2.1)."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("ground", [palette.PAPER, palette.PANEL], ids=["paper", "panel"])
def test_contrast_of_text_is_aa(ground: palette.Colour) -> None:
    for text in (palette.INK, palette.MUTED, palette.LINK):
        assert contrast(text.light, ground.light) >= 4.5
        assert contrast(text.dark, ground.dark) >= 4.5


def test_contrast_of_warnings_is_aa() -> None:
    for ground in (palette.PAPER, palette.WARN_PANEL):
        assert contrast(palette.WARN.light, ground.light) >= 4.5
        assert contrast(palette.WARN.dark, ground.dark) >= 4.5


@pytest.mark.parametrize("series", palette.SERIES, ids=lambda series: series.name)
def test_contrast_of_marks_is_three_to_one(series: palette.Colour) -> None:
    assert contrast(series.light, palette.PAPER.light) >= 3
    assert contrast(series.dark, palette.PAPER.dark) >= 3


def test_colours_can_be_told_from_each_other_when_themed() -> None:
    assert len({colour.light for colour in palette.COLOURS}) == len(palette.COLOURS)
    assert len({palette.look(index) for index in range(56)}) == 56


def test_a_strategy_keeps_its_colour_in_every_figure() -> None:
    shown = views("full", "lora")
    lora = next(view for view in shown if view.name == "lora")
    drawn = [
        figures.accuracy(shown, 0.5),
        figures.pareto(shown, "trainable_parameters", "costs", "parameters"),
        figures.efficiency(tables.efficiency(shown, 0.5)),
    ]
    assert all(lora.look.colour.css in one.markup for one in drawn)


def test_alternative_says_the_numbers() -> None:
    alternative = figures.accuracy(views("full", "lora"), 0.5).alternative.replace("\u00a0", " ")
    assert "full 82.0 % (80.0 \u2013 84.0); lora 81.3 %" in alternative
    assert "Majority baseline 50.0 %." in alternative


def test_published_figures_are_drawn_and_said_beside_ours() -> None:
    full, lora = views("full", "lora")
    assert "published" not in figures.accuracy([full, lora], None).alternative
    drawn = figures.accuracy([full, replace(lora, published=0.897)], None)
    assert "lora 81.3\u00a0% (79.4 \u2013 83.3, published 89.7\u00a0%)." in drawn.alternative
    assert drawn.alternative.count("published") == 1


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn in a test, before they become pictures."""
    kept: list[Figure] = []
    into_picture = figures.picture

    def keep(figure: Figure, *words: str) -> Picture:
        kept.append(figure)
        return into_picture(figure, *words)

    monkeypatch.setattr(figures, "picture", keep)
    return kept


def test_long_names_of_one_beginning_differ_in_every_picture(drawn: list[Figure]) -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "ag-news-to-imdb.yaml"
    comparison = samples.compare([samples.run(name) for name in compare_config(recipe, {}, ()).labels()])
    shown = gather(comparison)
    figures.accuracy(shown, 0.5)
    figures.differences(shown[0], tables.alternatives(comparison, shown))
    figures.efficiency(tables.efficiency(shown, 0.5))
    figures.pareto(shown, "stored_bytes", "costs", "bytes")
    *rows, points = (figure.axes[0] for figure in drawn)
    written = [[label.get_text() for label in axes.get_yticklabels()] for axes in rows]
    written.append([text.get_text() for text in points.texts])
    assert [len(set(names)) for names in written] == [7, 6, 7, 7]
    assert all({"bottleneck…epochs=5)", "bottleneck…epochs=6)"} <= set(names) for names in written)


def test_a_published_star_stands_above_the_mark_that_it_would_hide(drawn: list[Figure]) -> None:
    shown = [replace(view, published=view.accuracy) for view in views("full", "lora")]
    figures.accuracy(shown, 0.5)
    (axes,) = drawn[0].axes
    stars = [line for line in axes.lines if line.get_marker() == "*"]
    marks = [line for line in axes.lines if line.get_marker() in {view.look.marker for view in shown}]
    assert (len(stars), len(marks)) == (2, 2)
    assert not any(star.get_window_extent().overlaps(mark.get_window_extent()) for star in stars for mark in marks)
    assert all(axes.bbox.contains(*star.get_window_extent().max) for star in stars)


def test_costs_and_efficiency_are_on_log_axes(drawn: list[Figure]) -> None:
    shown = views("full", "lora", "linear-probe")
    figures.pareto(shown, "trainable_parameters", "costs", "parameters")
    figures.efficiency(tables.efficiency(shown, 0.5))
    assert [axes.get_xscale() for figure in drawn for axes in figure.axes] == ["log", "log"]


def test_pareto_names_the_front() -> None:
    drawn = figures.pareto(views("full", "lora", "scratch"), "stored_bytes", "costs", "bytes")
    assert "lora 2.37\u00a0MB, 81.3\u00a0%, on the front" in drawn.alternative
    assert "scratch 90.9\u00a0MB, 72.0\u00a0%." in drawn.alternative


def test_calibration_says_what_each_confidence_keeps() -> None:
    (view,) = views("lora")
    drawn = figures.calibration(view, 0, figures.lowest_share([view]))
    spoken = drawn.alternative.replace("\u00a0", " ")
    assert spoken.startswith("Expected calibration error 0.031: confidence 50.0 %, right 48.0 % (2 rows); ")
    assert spoken.count("confidence") == len(view.reliability)
    assert view.look.colour.css in drawn.markup


def test_calibration_pools_the_rows_of_all_seeds() -> None:
    (both,) = gather(samples.compare([samples.run("lora", 0), samples.run("lora", 1)]))
    (one,) = views("lora")
    assert [b.rows for b in both.reliability] == [2 * b.rows for b in one.reliability]
    assert [b.accuracy for b in both.reliability] == pytest.approx([b.accuracy for b in one.reliability])


def test_calibration_of_one_bin_and_of_certainty_without_a_right_answer() -> None:
    run = samples.run("lora")
    assert run.scores is not None
    certain = ReliabilityBin(lower=14 / 15, upper=1, rows=9, confidence=1, accuracy=0)
    scores = run.scores.model_copy(update={"reliability": (certain,)})
    (view,) = gather(samples.compare([run.model_copy(update={"scores": scores})]))
    lowest = figures.lowest_share([view])
    assert lowest == 0
    assert "confidence 100.0" in figures.calibration(view, 0, lowest).alternative


def test_no_colour_escapes_the_theme() -> None:
    drawn = figures.pareto(views("full", "lora"), "train_seconds", "costs", "seconds")
    themed = drawn.markup
    for colour in palette.COLOURS:
        themed = themed.replace(colour.css, "")
    assert "#" not in themed.replace("#pareto-train_seconds-", "")


def test_reader_settings_change_nothing() -> None:
    plain = figures.accuracy(views("full", "lora"), 0.5)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert figures.accuracy(views("full", "lora"), 0.5) == plain
        assert matplotlib.rcParams["font.size"] == 20


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_diverged_loss_is_drawn_around(loss: float) -> None:
    run = samples.run("lora")
    ((_, records),) = samples.histories([run]).items()
    broken = [*records[:-1], records[-1].model_copy(update={"train_loss": loss})]
    limits = figures.common_limits([broken], None)
    assert all(map(math.isfinite, limits.loss))
    (view,) = views("lora")
    assert "Seed 0, 3 epochs" in figures.learning(view, 0, {0: broken}, limits, None).alternative


def test_the_best_epoch_is_the_last_that_was_better_than_before() -> None:
    ((_, records),) = samples.histories([samples.run("lora")]).items()
    said = [True, True, False]
    marked = [record.model_copy(update={"best": best}) for record, best in zip(records, said, strict=True)]
    assert figures.best_epoch(marked).epoch == 2


def test_one_epoch_and_one_length_are_enough() -> None:
    run = samples.run("lora")
    histories = samples.histories([run], epochs=1)
    limits = figures.common_limits(histories.values(), 0.5)
    (view,) = views("lora")
    assert "Seed 0, 1 epoch:" in figures.learning(view, 0, {0: histories["lora", 0]}, limits, 0.5).alternative
    data = samples.data_facts().model_copy(update={"length_histogram": ((4, 10),), "tokens": {"max": 9.0}})
    assert "4 to 9 tokens: 10 rows" in figures.lengths(data).alternative


def test_overlap_is_an_area() -> None:
    box = Box(0, 0, 4, 2)
    assert box.overlap(Box(3, 1, 9, 9)) == 1
    assert box.overlap(Box(5, 0, 6, 1)) == 0
    assert box.overlap(box) == box.area == 8
