"""What a person sees in the terminal: progress with the time left, the log, tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn
from rich.table import Table

from transferkit.evaluation.results import Comparison, EpochRecord, RunResult, Scores

# Progress and log go to standard error, so that standard output is the answer and nothing else.
LOG = Console(stderr=True, highlight=False)
OUT = Console(highlight=False)


class ProgressListener:
    """Shows two bars, for the whole job and for the run, and a table line for every epoch."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._job: TaskID | None = None
        self._run: TaskID | None = None

    def planned(self, rows: int) -> None:
        """Start the bar of the whole job."""
        self._job = self._progress.add_task("all runs", total=rows)

    def started(self, label: str, rows: int) -> None:
        """Start the bar of a run."""
        if self._run is not None:
            self._progress.remove_task(self._run)
        self._run = self._progress.add_task(label, total=rows)
        self.said(f"{label}")

    def advanced(self, rows: int) -> None:
        """Move both bars."""
        for task in (self._job, self._run):
            if task is not None:
                self._progress.advance(task, rows)

    def epoch_ended(self, record: EpochRecord) -> None:
        """Print the line of an epoch, under a heading where it is the first."""
        if record.epoch == 1:
            self._progress.console.print(
                "  epoch  training loss  validation loss  accuracy      F1  seconds", style="bold"
            )
        self._progress.console.print(
            f"  {record.epoch:>5}  {record.train_loss:>13.4f}  {record.validation_loss:>15.4f}"
            f"  {record.accuracy:>8.4f}  {record.f1_macro:>6.4f}  {record.seconds:>7.1f}"
            + ("  best so far" if record.best else "")
        )

    def said(self, message: str) -> None:
        """Print a line of the log."""
        self._progress.console.print(message, markup=False)


@contextmanager
def progress() -> Iterator[ProgressListener]:
    """Bars while the block runs; without a terminal the log lines alone."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=LOG, transient=True, disable=not LOG.is_terminal) as bars:
        yield ProgressListener(bars)


def print_comparison(comparison: Comparison) -> None:
    """The table of strategies, best first, and the verdict."""
    several_seeds = any(len(summary.seeds) > 1 for summary in comparison.summaries)
    table = Table(title=f"{comparison.data.source}: {comparison.data.rows['test']:,} test rows")
    for heading in ("strategy", "accuracy", "95 %", "macro F1", "trains", "train s", "stored"):
        table.add_column(heading, justify="left" if heading == "strategy" else "right", no_wrap=True)
    for summary in comparison.summaries:
        low, high = summary.accuracy_interval
        spread = f" ± {summary.accuracy_sd:.1%}" if several_seeds and summary.accuracy_sd is not None else ""
        table.add_row(
            summary.strategy + (" (collapsed)" if summary.collapsed else ""),
            f"{summary.accuracy_mean:.1%}{spread}",
            f"{low:.1%} to {high:.1%}",
            f"{summary.f1_macro_mean:.1%}",
            f"{summary.trainable_parameters:,}",
            f"{summary.train_seconds_mean:.0f}",
            size(summary.stored_bytes),
        )
    if comparison.baseline:
        table.add_row("majority class", f"{comparison.baseline['accuracy']:.1%}", "",
                      f"{comparison.baseline['f1_macro']:.1%}", "0", "", "")  # fmt: skip
    OUT.print(table)
    for result in comparison.results:
        if result.status != "finished":
            OUT.print(f"{result.strategy} (seed {result.seed}) {result.status}: {result.error or 'stopped'}", markup=False)
    OUT.print(comparison.verdict.reason, markup=False)


def print_run(result: RunResult) -> None:
    """The scores of a run beside the majority baseline."""
    if result.scores is not None:
        print_scores(result.scores)


def print_scores(scores: Scores) -> None:
    """Metrics with intervals beside the baseline, then the classes one by one."""
    table = Table(title=f"{scores.rows:,} rows")
    for heading in ("metric", "value", "95 %", "majority class"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, value in scores.metrics.items():
        interval = scores.intervals.get(name)
        table.add_row(
            name,
            f"{value:.4f}",
            f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "",
            f"{scores.baseline[name]:.4f}" if name in scores.baseline else "",
        )
    OUT.print(table)
    classes = Table()
    for heading in ("class", "precision", "recall", "F1", "rows", "predicted"):
        classes.add_column(heading, justify="left" if heading == "class" else "right")
    for one in scores.per_class:
        classes.add_row(
            one.label, f"{one.precision:.4f}", f"{one.recall:.4f}", f"{one.f1:.4f}", f"{one.support}", f"{one.predicted}"
        )
    OUT.print(classes)
    if scores.collapse_reason:
        OUT.print(f"Collapsed: {scores.collapse_reason}", markup=False)


def size(count: float) -> str:
    """Bytes for people: 91 MB, 670 kB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
