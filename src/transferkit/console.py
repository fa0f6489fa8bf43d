"""What a person sees in the terminal: progress with the time left, the log, tables.

Numbers and words are those of the report. Text of the user, such as a label, is never read as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import wrap

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from transferkit.evaluation.results import (
    Comparison,
    EpochRecord,
    RunResult,
    Scores,
    TranslationExample,
    TranslationScores,
)
from transferkit.formatting import (
    MISSING,
    clip_apart,
    count,
    metric,
    metric_interval,
    metric_name,
    metrics_in_order,
    percent,
    percent_interval,
    score,
    seconds,
    size,
    small_share,
)
from transferkit.report.tables import troubled
from transferkit.report.views import StrategyView, gather
from transferkit.training.tracking import Listener

# Progress and log go to standard error, so that standard output is the answer and nothing else.
LOG = Console(stderr=True, highlight=False, markup=False, emoji=False)
OUT = Console(highlight=False, markup=False, emoji=False)

_LABEL_LETTERS = 40
# The metrics of an epoch that have a column, where the task has them.
_EPOCH_METRICS = ("accuracy", "f1_macro", "perplexity", "bleu", "chrf")


class ProgressListener(Listener):
    """Shows two bars, for the whole job and for the run, and a table line for every epoch."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._job: TaskID | None = None
        self._run: TaskID | None = None
        self._heading_is_due = True

    def planned(self, rows: int) -> None:
        """Start the bar of the whole job."""
        if self._run is not None:
            self._progress.remove_task(self._run)
            self._run = None
        self._job = self._progress.add_task("all runs", total=rows)

    def started(self, label: str, rows: int | None) -> None:
        """Start the bar of a run; of several at once none has its own."""
        if self._run is not None:
            self._progress.remove_task(self._run)
            self._run = None
        if rows is not None:
            self._run = self._progress.add_task(label, total=rows)
        self._heading_is_due = True
        self.said(label)

    def extended(self, rows: int) -> None:
        """Lengthen both bars."""
        for bar in self._progress.tasks:
            self._progress.update(bar.id, total=(bar.total or 0) + rows)

    def advanced(self, rows: int) -> None:
        """Move both bars."""
        for task in (self._job, self._run):
            if task is not None:
                self._progress.advance(task, rows)

    def epoch_ended(self, record: EpochRecord) -> None:
        """Print the line of an epoch, under a heading where it is the first that is shown of a run."""
        shown = [name for name in _EPOCH_METRICS if name in record.metrics]
        measured = [f"{metric_name(name):>8}" for name in shown]
        headings = ["  Epoch", "Training loss", "Validation loss", *measured]
        if self._heading_is_due:
            self._print_line("  ".join([*headings, " " * 6 + "Time"]), style="bold")
            self._heading_is_due = False
        cells = (
            str(record.epoch),
            score(record.train_loss),
            score(record.validation_loss),
            *(metric(name, record.metrics[name]) for name in shown),
        )
        aligned = [f"{cell:>{len(heading)}}" for cell, heading in zip(cells, headings, strict=True)]
        self._print_line("  ".join([*aligned, f"{seconds(record.seconds):>10}", "best" if record.best else ""]))
        for one in record.examples:
            # A classifier's are for TensorBoard: texts may be long, and the line above says how many are right.
            if isinstance(one, TranslationExample):
                self._print_line(f"    source     {one.source}")
                self._print_line(f"    target     {one.target}")
                self._print_line(f"    predicted  {one.predicted}")

    def said(self, message: str) -> None:
        """Print a line of the log."""
        _print_text(self._progress.console, message)

    def _print_line(self, line: str, style: str = "") -> None:
        # A line of a table is never folded, however narrow the terminal: its columns would be lost.
        self._progress.console.print(line.rstrip(), style=style, soft_wrap=True)


@contextmanager
def progress() -> Iterator[ProgressListener]:
    """Bars while the block runs; without a terminal the log lines alone."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=LOG, transient=True, disable=not LOG.is_terminal) as bars:
        yield ProgressListener(bars)


@dataclass(frozen=True)
class _Column:
    """A column of the comparison, shown where there is room for those with its `need` and less."""

    heading: str
    cell: Callable[[StrategyView], str]
    baseline: str | None = None
    need: int = 0


def _spread(strategy: StrategyView) -> str:
    return percent(strategy.summary.accuracy_sd if strategy.summary else None)


def _metric_column(name: str, need: int = 0) -> _Column:
    # A line break where the heading has a space keeps the column as narrow as its numbers.
    heading = metric_name(name).replace(" ", "\n")
    return _Column(heading, lambda strategy: metric(name, strategy.metric(name)), name, need)


def _columns(many_seeds: bool) -> list[_Column]:
    """The columns of a comparison in the order of the page."""
    spread = [_Column("SD of\nseeds", _spread, need=2)] if many_seeds else []
    return [
        _Column("Accuracy", lambda strategy: percent(strategy.accuracy), "accuracy", need=-1),
        _Column("95 %\ninterval", lambda strategy: percent_interval(strategy.interval), need=-1),
        *spread,
        _metric_column("f1_macro"),
        _metric_column("mcc", need=3),
        _metric_column("log_loss", need=4),
        _metric_column("ece", need=4),
        _Column("Trainable\nparameters", lambda strategy: count(strategy.cost("trainable_parameters")), need=-1),
        _Column("Train", lambda strategy: seconds(strategy.cost("train_seconds"))),
        _Column("Evaluate", lambda strategy: seconds(strategy.cost("evaluate_seconds")), need=5),
        _Column("Peak\nmemory", lambda strategy: size(strategy.cost("peak_memory_bytes")), need=5),
        _Column("Stored", lambda strategy: size(strategy.cost("stored_bytes"))),
    ]


# The need that is met and the letters at which a name folds, the richest layout first. The first that fits is shown.
# Need 0 fits 80 columns. From 1 on the flags have a column; in less room they stand below the names.
_LAYOUTS = ((5, 24), (4, 24), (3, 24), (2, 24), (1, 24), (0, 24), (0, 20), (0, 16), (-1, 16))
_FLAGS_NEED = 1


def print_comparison(comparison: Comparison) -> None:
    """The table of strategies, best first; what went wrong; the verdict."""
    strategies = gather(comparison)
    boundless = OUT.options.update(width=10_000)
    for need, letters in _LAYOUTS:
        table = _comparison_table(comparison, strategies, need, letters)
        if OUT.measure(table, options=boundless).maximum <= OUT.width:
            break
    OUT.print(table)
    OUT.print()
    for run in troubled(comparison.results):
        if run.status != "finished":
            _print_text(OUT, f"{run.status.capitalize()}: {run.strategy}, seed {run.seed}. {run.error or ''}".rstrip())
        if run.collapsed:
            _print_text(OUT, f"Collapsed: {run.strategy}, seed {run.seed}. {run.collapse_reason or ''}".rstrip())
    _print_text(OUT, comparison.verdict.reason)


def _comparison_table(comparison: Comparison, strategies: Sequence[StrategyView], need: int, letters: int) -> Table:
    """All columns whose need is at most `need`, with names folded at so many letters."""
    seeds = max((len(strategy.scored) for strategy in strategies), default=0)
    rows = comparison.data.rows["test"]
    columns = [column for column in _columns(seeds > 1) if column.need <= need]
    means = f", means over {seeds} seeds" if seeds > 1 else ""
    title = f"{comparison.data.source}: {count(rows)} test rows{means}"
    table = _table(title, "Strategy", *(column.heading for column in columns))
    flags_apart = need >= _FLAGS_NEED
    if flags_apart:
        table.add_column(no_wrap=True)
    for strategy in strategies:
        name, flags = _folded(strategy.name, letters), ", ".join(strategy.flags)
        if flags and not flags_apart:
            name += "\n" + _folded(flags, letters, indent="  ")
        cells = [column.cell(strategy) for column in columns]
        style = "bold" if strategy.name == comparison.verdict.use else ""
        table.add_row(name, *cells, *([flags] if flags_apart else []), style=style)
    table.add_section()
    values = comparison.baseline
    baseline = [metric(c.baseline, values.get(c.baseline)) if c.baseline else MISSING for c in columns]
    table.add_row(_folded("majority baseline", letters), *baseline, style="dim")
    return table


def _folded(text: str, letters: int, indent: str = "") -> str:
    """Lines of at most so many letters; the options of a strategy part after a comma."""
    lines = wrap(text.replace(",", ", "), letters, initial_indent=indent, subsequent_indent=indent or "  ")
    return "\n".join(line.replace(", ", ",") for line in lines)


def print_run(result: RunResult) -> None:
    """The scores of a run beside the majority baseline, and what it cost."""
    if result.scores is not None:
        print_scores(result.scores)
    elif result.status != "finished":
        _print_text(OUT, f"The run was {result.status} before it was scored. {result.error or ''}".rstrip())
    if result.translation:
        print_translation(result.translation)
    trainable, total = result.trainable_parameters, result.total_parameters
    share = small_share(trainable / total) if trainable is not None and total else MISSING
    _print_text(
        OUT,
        f"{result.strategy}: {count(trainable)} of {count(total)} parameters trained ({share}) "
        f"in {seconds(result.train_seconds)}; {size(result.stored_bytes)} to store.",
    )


def print_translation(scores: TranslationScores) -> None:
    """BLEU and chrF with intervals and signatures."""
    table = _table(f"{count(scores.rows)} test rows", "Metric", "Value", "95 % interval")
    for name, value in scores.metrics.items():
        table.add_row(metric_name(name), metric(name, value), metric_interval(name, scores.intervals[name]))
    OUT.print(table)
    OUT.print()
    for name, signature in scores.signatures.items():
        _print_text(OUT, f"{metric_name(name)}: {signature}")


def print_scores(scores: Scores) -> None:
    """Metrics with intervals beside the baseline, then the classes one by one."""
    names = clip_apart((one.label for one in scores.per_class), _LABEL_LETTERS)
    table = _table(f"{count(scores.rows)} rows", "Metric", "Value", "95 % interval", "Majority\nbaseline")
    for name in metrics_in_order(scores.metrics):
        table.add_row(
            metric_name(name, scores.positive_label and names[scores.positive_label]),
            metric(name, scores.metrics[name]),
            metric_interval(name, scores.intervals.get(name)),
            metric(name, scores.baseline.get(name)),
        )
    OUT.print(table)
    OUT.print()
    classes = _table("", "Class", "Precision", "Recall", "F1", "True\nrows", "Predicted\nrows")
    for one in scores.per_class:
        shares = (percent(share) for share in (one.precision, one.recall, one.f1))
        classes.add_row(names[one.label], *shares, count(one.support), count(one.predicted))
    OUT.print(classes)
    OUT.print()
    if scores.collapse_reason:
        _print_text(OUT, f"Collapsed: {scores.collapse_reason}")


def _table(title: str, first: str, *others: str) -> Table:
    """An empty table: names on the left, numbers on the right."""
    # Two spaces between columns: the padding and the invisible line of the box.
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="",
    )
    # Where there is no room a name folds: a number that is cut is another number.
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _print_text(console: Console, text: str) -> None:
    """Sentences, broken between words at the edge of a terminal, and left whole for a pipe or a file."""
    console.print(text, soft_wrap=not console.is_terminal)
