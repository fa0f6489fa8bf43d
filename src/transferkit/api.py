"""The public functions, which the verbs of the command line call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transferkit import run_folder
from transferkit.comparison import conclusion, grid
from transferkit.config import CompareConfig, DataConfig, PretrainConfig, RunConfig, TranslationConfig
from transferkit.environment import write_file
from transferkit.errors import RunError
from transferkit.evaluation.results import Comparison, RunResult, Scores
from transferkit.inference.evaluation import evaluate as evaluate_predictor
from transferkit.inference.predictor import load_exact
from transferkit.job import Job, prepare_job
from transferkit.pipeline import rows_to_process, run_one
from transferkit.run_record import RunRecord, TranslationRecord
from transferkit.tokenization.parallel import Tokenizers
from transferkit.training.precision import fixed
from transferkit.training.tracking import Listener, read_epochs
from transferkit.translation_pipeline import (
    TranslationJob,
    prepare_translation,
    rows_to_translate,
    run_translation,
)


def train(
    config: RunConfig | TranslationConfig, out: str | Path, *, overwrite: bool = False, listener: Listener | None = None
) -> RunResult:
    """Train one classifier, by one strategy with one seed, or one translator into the run folder `out`.

    Raises:
        TransferKitError: a setting, the data or the backbone does not allow it; `out` is then as it was.
    """
    folder = Path(out)
    with run_folder.reserved(folder):
        run_folder.check_free(folder, overwrite)
        is_new = not folder.exists()

        def begin(job: Job | TranslationJob) -> None:
            if isinstance(job, Job):
                run_folder.refuse_own_backbone(job.files, folder)
            run_folder.make_folder(folder, overwrite)

        try:
            return _run(config, folder, listener or Listener(), begin)
        except BaseException:
            run_folder.put_back(folder, is_new)
            raise


def pretrain(
    config: PretrainConfig, out: str | Path, *, overwrite: bool = False, listener: Listener | None = None
) -> RunResult:
    """Train a new text encoder on word vectors into the run folder `out`, which is a backbone for other runs.

    Raises:
        TransferKitError: as `train`.
    """
    return train(config, out, overwrite=overwrite, listener=listener)


def resume(out: str | Path, *, listener: Listener | None = None) -> RunResult:
    """Go on with the run in `out`, which was stopped, from its last checkpoint, or from its beginning before the first.

    It ends with the weights that it would have had without the stop, bit for bit, so long as the prefix cache has room
    for the states that it had room for before.

    Raises:
        RunError: there is nothing to go on with, or the data, the backbone or the tokenizers have changed.
    """
    with run_folder.reserved(Path(out)):
        return _resume(Path(out), listener or Listener())


def _resume(folder: Path, listener: Listener) -> RunResult:
    record = run_folder.read_stopped(folder)

    def check(job: Job | TranslationJob) -> None:
        if job.facts.hashes != record.data.hashes:
            raise RunError(f"The data of {folder} has changed since it began; train again with --overwrite.")
        if isinstance(job, Job) and isinstance(record, RunRecord) and not job.has_base_of(record):
            raise RunError(f"The backbone of {folder} has changed since it began; train again with --overwrite.")

    tokenizers, revision = None, None
    if isinstance(record, TranslationRecord):
        # Trained anew they need not be the same: WordPiece settles ties by chance.
        tokenizers = Tokenizers.of_run(folder, record.tokenizer_hash)
    else:
        # The hub may have a newer one by now.
        revision = record.backbone.revision
    # It computes as it did before, whatever would be measured now.
    training = fixed(record.config.training, record.compute.model_dump())
    config = record.config.model_copy(update={"training": training})
    return _run(config, folder, listener, check, tokenizers, revision)


def _run(
    config: RunConfig | TranslationConfig, folder: Path, listener: Listener,
    begin: Callable[[Job | TranslationJob], None], tokenizers: Tokenizers | None = None, revision: str | None = None,
) -> RunResult:  # fmt: skip
    """Prepare, let `begin` see what was prepared and make the folder ready, then train, score and report.

    A run that goes on brings its `tokenizers`, or the `revision` of its backbone on the hub.
    """
    if isinstance(config, TranslationConfig):
        translation = prepare_translation(config, listener, tokenizers)
        listener.planned(rows_to_translate(config, translation))
        begin(translation)
        result = run_translation(config, translation, folder, listener)
    else:
        job = prepare_job(config, listener, revision=revision)
        listener.planned(rows_to_process(config, job))
        begin(job)
        result = run_one(config, job, folder, config.strategy.label, listener)
        if result.status == "finished":
            conclusion.write_mistakes(folder, job, *conclusion.read_logits(folder, [result]))
    draw_report(folder)
    return result


def compare(
    config: CompareConfig, out: str | Path, *, overwrite: bool = False, jobs: int = 1, listener: Listener | None = None
) -> Comparison:
    """Compare strategies x seeds in the folder `out`; runs that are finished there already are kept.

    `jobs` runs are made at once, each in a process of its own with its share of torch's threads; of several at once
    `listener` hears when they are over, and of no attention weights.

    Raises:
        TransferKitError: a setting, the data or the backbone does not allow it.
        KeyboardInterrupt: the user stopped the job; what was finished is written.
    """
    folder = Path(out)
    with run_folder.reserved(folder):
        try:
            return grid.compare(config, folder, overwrite, listener or Listener(), jobs)
        finally:
            if (folder / run_folder.COMPARISON_FILE).is_file():
                draw_report(folder)


def evaluate(run: str | Path, data: DataConfig, *, listener: Listener | None = None) -> Scores:
    """Score a run on new labelled data."""
    return evaluate_predictor(load_exact(run), data, listener or Listener())


def draw_report(folder: str | Path) -> Path:
    """Draw `report.html` of a run or a comparison anew from its files and return its path."""
    # What draws takes 26 MB: it is loaded when the training before has given its memory back.
    from transferkit.report import page, translation_page

    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"There is no folder {folder}; name one that `transferkit train` or `compare` has written.")
    if run_folder.is_translation(folder):
        return translation_page.write(folder)
    comparison, mistakes = conclusion.read_comparison(folder)
    histories = {
        (result.strategy, result.seed): read_epochs(folder / result.run / run_folder.METRICS_FILE)
        for result in comparison.results
    }
    updates = {
        (result.strategy, result.seed): found
        for result in comparison.results
        if (found := run_folder.read_lora(folder / result.run))
    }
    path = folder / run_folder.REPORT_FILE
    write_file(path, page.render(comparison, histories, mistakes, updates))
    return path
