"""The public functions: each is one verb of the command line."""

from __future__ import annotations

from pathlib import Path

from transferkit import run_folder
from transferkit.comparison import conclusion, grid
from transferkit.config import CompareConfig, DataConfig, RunConfig
from transferkit.environment import write_file
from transferkit.errors import RunError, TransferKitError
from transferkit.evaluation.results import Comparison, RunResult, Scores
from transferkit.inference.evaluation import evaluate as evaluate_predictor
from transferkit.inference.predictor import load_exact
from transferkit.pipeline import prepare_job, rows_to_process, run_one
from transferkit.report import page
from transferkit.training.tracking import Listener, Silent, read_epochs


def train(
    config: RunConfig, out: str | Path, *, overwrite: bool = False, listener: Listener | None = None
) -> RunResult:
    """Train one strategy with one seed into the run folder `out`.

    Raises:
        TransferKitError: a setting, the data or the backbone does not allow it; nothing is written then.
    """
    listener = listener or Silent()
    folder = Path(out)
    run_folder.check_free(folder, overwrite)
    job = prepare_job(config, listener)
    listener.planned(rows_to_process(config, job))
    run_folder.make_folder(folder, overwrite)
    try:
        result = run_one(config, job, folder, config.strategy.label, listener)
    except TransferKitError:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    if result.status == "finished":
        conclusion.write_mistakes(folder, job, *conclusion.read_logits(folder, [result]))
    report(folder)
    return result


def compare(
    config: CompareConfig, out: str | Path, *, overwrite: bool = False, listener: Listener | None = None
) -> Comparison:
    """Compare strategies x seeds in the folder `out`; runs that are finished there already are kept.

    Raises:
        TransferKitError: a setting, the data or the backbone does not allow it.
        KeyboardInterrupt: the user stopped the job; what was finished is written.
    """
    folder = Path(out)
    try:
        comparison = grid.compare(config, folder, overwrite, listener or Silent())
    finally:
        if (folder / run_folder.COMPARISON_FILE).is_file():
            report(folder)
    return comparison


def evaluate(run: str | Path, data: DataConfig, *, listener: Listener | None = None) -> Scores:
    """Score a run on new labelled data."""
    return evaluate_predictor(load_exact(run), data, listener or Silent())


def report(folder: str | Path) -> Path:
    """Draw `report.html` of a run or a comparison anew from its files and return its path."""
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"There is no folder {folder}; name one that `transferkit train` or `compare` has written.")
    comparison, mistakes = conclusion.read_comparison(folder)
    histories = {
        (result.strategy, result.seed): read_epochs(folder / result.run / run_folder.METRICS_FILE)
        for result in comparison.results
    }
    path = folder / run_folder.REPORT_FILE
    write_file(path, page.render(comparison, histories, mistakes))
    return path
