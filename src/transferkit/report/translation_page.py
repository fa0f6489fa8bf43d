"""The report of a translation run: the page of a comparison with other sections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from transferkit import formatting, run_folder
from transferkit.environment import write_file
from transferkit.evaluation.results import EpochRecord, RunResult
from transferkit.generation.retrace import Retraced, read_retraced
from transferkit.models.translator import KINDS
from transferkit.report.attention import attention_map, layer_picture
from transferkit.report.figures import best_epoch
from transferkit.report.page import Section, draw, split_facts
from transferkit.report.palette import MUTED, SERIES
from transferkit.report.svg import Picture, picture, plot_style, sheet
from transferkit.run_record import TranslationRecord
from transferkit.training.tracking import read_epochs

_FOLDER = "translation/"
_DOTTED = (0, (2, 2))


def write(folder: Path) -> Path:
    """Draw `report.html` of a run from its files and return its path."""
    record, result = run_folder.read_translation(folder), run_folder.read_result(folder)
    epochs = read_epochs(folder / run_folder.METRICS_FILE)
    kept = folder / run_folder.ATTENTION_FILE
    path = folder / run_folder.REPORT_FILE
    write_file(path, render(record, result, epochs, read_retraced(kept) if kept.is_file() else None))
    return path


def render(
    record: TranslationRecord, result: RunResult, epochs: Sequence[EpochRecord],
    retraced: Retraced | None = None,
) -> str:  # fmt: skip
    """The report as one HTML document that loads nothing; `retraced` is the example whose attention it shows."""
    scores = result.translation
    examples = scores.examples if scores else epochs[-1].examples if epochs else ()
    sections = (
        (True, Section("result", "Result", _FOLDER)),
        (bool(epochs), Section("learning", "Learning curves", _FOLDER)),
        (bool(examples), Section("examples", "Examples", _FOLDER)),
        (retraced is not None, Section("attention", "Attention", _FOLDER)),
        (True, Section("data", "Data", _FOLDER)),
        (True, Section("setup", "Configuration and environment", _FOLDER)),
    )
    source, target = record.data.languages
    return draw(
        {
            "title": f"{source} to {target}, {record.data.source}",
            "facts": [
                ("task", record.task),
                *split_facts(record.data.rows),
                ("seed", str(record.config.seed)),
                ("made", formatting.moment(record.created)),
            ],
            "record": record,
            "result": result,
            "scores": scores,
            "data": record.data,
            "curves": [loss_curve(epochs), score_curve(epochs)] if epochs else [],
            "examples": examples,
            # What was stopped before its test rows were translated shows those of its last epoch.
            "examples_of": "Test" if scores else "Validation",
            "maps": attention_pictures(retraced) if retraced else [],
            "sections": [section for present, section in sections if present],
        }
    )


def attention_pictures(one: Retraced) -> list[Picture]:
    """All heads of the last layer of each kind of attention."""
    layers = {kind: len(getattr(one.attentions, kind)) for kind in KINDS}
    return [
        layer_picture(attention_map(one.attentions, kind, layers[kind] - 1, one.source, one.given)) for kind in KINDS
    ]


@plot_style()
def loss_curve(epochs: Sequence[EpochRecord]) -> Picture:
    """Training and validation loss by epoch, nats a token."""
    figure = sheet(2.2)
    axes = figure.add_subplot()
    numbers = [record.epoch for record in epochs]
    marks = "o" if len(epochs) == 1 else "none"
    axes.plot(numbers, [one.train_loss for one in epochs], marker=marks, linestyle=_DOTTED, color=MUTED.light)
    axes.plot(numbers, [one.validation_loss for one in epochs], marker=marks, color=SERIES[0].light)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(visible=True, axis="y")
    first, last = epochs[0], epochs[-1]
    spoken = (
        f"Training loss {first.train_loss:.2f} to {last.train_loss:.2f}, validation loss {first.validation_loss:.2f} "
        f"to {last.validation_loss:.2f}, in {len(epochs)} epochs."
    )
    return picture(figure, "loss", "Loss by epoch, nats a token", spoken)


@plot_style()
def score_curve(epochs: Sequence[EpochRecord]) -> Picture:
    """BLEU and chrF of the validation rows by epoch."""
    figure = sheet(2.2)
    axes = figure.add_subplot()
    numbers = [record.epoch for record in epochs]
    best = best_epoch(epochs)
    for name, colour in (("bleu", SERIES[0]), ("chrf", SERIES[1])):
        values = [record.metrics[name] for record in epochs]
        axes.plot(numbers, values, color=colour.light)
        axes.plot([best.epoch], [best.metrics[name]], "o", color=colour.light)
        axes.annotate(
            formatting.metric_name(name), (numbers[-1], values[-1]), xytext=(4, 0), textcoords="offset points",
            color=colour.light, va="center", annotation_clip=False,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(visible=True, axis="y")
    spoken = (
        f"BLEU {best.metrics['bleu']:.1f} and chrF {best.metrics['chrf']:.1f} at epoch {best.epoch}, whose weights "
        f"were kept; {epochs[0].metrics['bleu']:.1f} and {epochs[0].metrics['chrf']:.1f} after the first."
    )
    return picture(figure, "scores", "BLEU and chrF by epoch", spoken)
