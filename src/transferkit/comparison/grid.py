"""Strategies x seeds as one job: what is finished is kept, what fails is reported and stops nothing."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from transferkit import run_folder
from transferkit.adaptation.strategies import make_strategy
from transferkit.comparison.cell import Cell, Outcome, run
from transferkit.comparison.conclusion import conclude, read_logits, write_mistakes
from transferkit.comparison.workers import order, side_by_side
from transferkit.config import CompareConfig, RunConfig
from transferkit.environment import describe
from transferkit.errors import ConfigError, RunError
from transferkit.evaluation.results import Comparison, RunResult, write_json
from transferkit.job import Job, prepare_job
from transferkit.parsing import first_difference
from transferkit.pipeline import FROZEN_DROPOUT, rows_to_process
from transferkit.settings import is_named, parse_strategy
from transferkit.training.precision import Compute, threads
from transferkit.training.tracking import Listener

# Of the name of a folder, of which disks take 255 bytes, and some systems 260 letters of the whole path.
_SLUG_BYTES = 100


def compare(config: CompareConfig, out: Path, overwrite: bool, listener: Listener, jobs: int = 1) -> Comparison:
    """Run what is not finished yet, `jobs` runs at once, and compare what is.

    Ctrl-C ends the job after writing what was reached; the same call goes on from there.

    Raises:
        ConfigError: a strategy or an option is unknown, also one with a published figure, or a setting has no effect.
        RunError: `out` holds something else, or runs of another configuration or other data.
    """
    if "checkpoint_minutes" in config.training.model_fields_set:
        raise ConfigError(
            "training.checkpoint_minutes has no effect on a comparison, which goes on with the runs that are not "
            "finished; leave it out."
        )
    cells = list(_cells(config))
    if not 1 <= jobs <= len(cells):
        raise ConfigError(f"There are {len(cells)} runs, of which {jobs} cannot be made at once; change --jobs.")
    for spec in (*config.strategies, *map(parse_strategy, config.published)):
        make_strategy(spec)
    goes_on = not overwrite and (out / "runs").is_dir() and run_folder.is_ours(out)
    if not goes_on:
        run_folder.check_free(out, overwrite)
    # Measured with the threads that a run will have.
    with threads(max(1, torch.get_num_threads() // jobs)):
        job = prepare_job(config, listener, is_shared=True)
    if goes_on:
        earlier = _earlier_runs(out, job)
        cells = [_where_it_is(cell, earlier) for cell in cells]
    # Before anything is removed or made: it refuses settings that no run can have.
    rows = {cell.folder: rows_to_process(cell.config, job) for cell in cells}
    if not goes_on:
        run_folder.refuse_own_backbone(job.files, out)
        run_folder.make_folder(out, overwrite)
        run_folder.forget_earlier(out)
        (out / "runs").mkdir()
    idle = [label for label in config.published if not any(is_named(label, spec) for spec in config.strategies)]
    if idle:
        listener.said(f"Not compared, so that its published figure is not shown: {', '.join(sorted(idle))}.")
    finished = {cell.folder: result for cell in cells if (result := _finished(out, cell))}
    waiting = [cell for cell in cells if cell.folder not in finished]
    if finished:
        listener.said(f"{len(finished)} of {len(cells)} runs are finished already and are kept.")
        if waiting and (others := _other_ways(out, finished, job)):
            listener.said(
                f"Some of them computed in {' and '.join(others)}; their times do not compare with those to come."
            )
    listener.planned(sum(rows[cell.folder] for cell in waiting))
    results, used_cache = dict(finished), False
    try:
        with closing(_outcomes(config, job, out, waiting, jobs, listener)) as outcomes:
            for outcome in outcomes:
                results[outcome.cell.folder] = outcome.result
                used_cache |= outcome.used_cache
                if outcome.result.status == "interrupted":
                    raise KeyboardInterrupt
    finally:
        in_order = [results[cell.folder] for cell in cells if cell.folder in results]
        comparison = _conclude(config, job, out, in_order)
    asked = config.training.prefix_cache
    if waiting and asked in ("memory", "disk") and not used_cache:
        why = (
            FROZEN_DROPOUT if config.training.frozen_dropout else "no strategy here leaves the first layers as they are"
        )
        listener.said(f"--prefix-cache {asked} had no effect: {why}.")
    return comparison


def _outcomes(
    config: CompareConfig, job: Job, out: Path, cells: Sequence[Cell], jobs: int, listener: Listener
) -> Generator[Outcome]:
    """What comes of each cell, as soon as it is known."""
    firsts = {cell.label: cell for cell in reversed(cells)}.values()
    if jobs > 1:
        yield from side_by_side(order(config, job, out, jobs), cells, firsts, listener)
        return
    for cell in cells:
        result = run(out, cell, job, listener, with_table=cell in firsts)
        yield Outcome(cell, result, job.cache.is_used)


def _conclude(config: CompareConfig, job: Job, out: Path, results: list[RunResult]) -> Comparison:
    """Write `comparison.json` and `mistakes.json`."""
    labels, logits = read_logits(out, results)
    comparison = conclude(
        results, logits, labels, config.margin,
        task=job.task.name, created=run_folder.now(), config=config.model_dump(mode="json"),
        environment=describe(), data=job.facts,
    )  # fmt: skip
    write_json(out / run_folder.COMPARISON_FILE, comparison)
    write_mistakes(out, job, labels, logits)
    return comparison


def _cells(config: CompareConfig) -> Iterator[Cell]:
    slugs = {label: re.sub(r"[^\w.=+-]+", "-", label).strip("-") for label in config.labels()}
    labels_of = Counter(slugs.values())
    for label, run_config in config.runs():
        slug = slugs[label]
        cut = slug.encode()[:_SLUG_BYTES].decode(errors="ignore")
        if labels_of[slug] > 1 or cut != slug:
            # They may differ only in what a folder's name does not show, as `layer.5.*` and `layer.5.**` do.
            slug = f"{cut}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"
        yield Cell(label, run_config, f"runs/{slug}-seed{run_config.seed}")


def _earlier_runs(out: Path, job: Job) -> dict[str, RunConfig]:
    """The configuration of each run that is there, by its folder.

    Raises:
        RunError: one is on other rows or from another base, and cannot be compared, whichever strategy it is of.
    """
    found = {}
    for file in (out / "runs").glob(f"*/{run_folder.RUN_FILE}"):
        record = run_folder.read_record(file.parent)
        has_data = record.data.hashes == job.facts.hashes
        if not has_data or not job.has_base_of(record):
            other = "from another backbone" if has_data else "on other data"
            raise RunError(f"{file.parent} is a run {other}; choose another --out, or begin anew with --overwrite.")
        found[f"runs/{file.parent.name}"] = record.config
    return found


def _where_it_is(cell: Cell, earlier: Mapping[str, RunConfig]) -> Cell:
    """The cell with the folder of its run, which has another name where the strategies beside it were others."""
    folder = next((folder for folder, config in earlier.items() if config == cell.config), cell.folder)
    return replace(cell, folder=folder)


def _finished(out: Path, cell: Cell) -> RunResult | None:
    """The result of a run that needs no repeating, None where there is none.

    Raises:
        RunError: there is a finished run of another configuration.
    """
    folder = out / cell.folder
    if not (folder / run_folder.RESULT_FILE).is_file():
        return None
    result = run_folder.read_result(folder)
    if result.status != "finished":
        return None
    earlier = run_folder.read_record(folder).config
    if earlier != cell.config:
        raise RunError(
            f"{folder} is a run with other settings ({first_difference(cell.config, earlier)}); choose another "
            "--out, or begin anew with --overwrite."
        )
    return cell.placed(result)


def _other_ways(out: Path, finished: Iterable[str], job: Job) -> list[str]:
    """How runs have computed that did not as `job` does, as a run beside others or on another machine."""
    ways = {str(Compute(**run_folder.read_record(out / folder).compute.model_dump())) for folder in finished}
    return sorted(ways - {str(job.compute)})
