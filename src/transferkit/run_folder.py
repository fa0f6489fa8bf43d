"""A run is a folder: what is in it, how it is made, and how it is read back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, RootModel

from transferkit.environment import cache_folder, user_path
from transferkit.errors import RunError
from transferkit.evaluation.results import Comparison, LoRAUpdates, RunResult, read_json, reading, write_json
from transferkit.models.hub import BUILTIN, BackboneFiles, locate
from transferkit.run_record import RunRecord, TranslationRecord

RUN_FILE = "run.json"
RESULT_FILE = "results.json"
COMPARISON_FILE = "comparison.json"
MISTAKES_FILE = "mistakes.json"
LORA_FILE = "lora.json"
METRICS_FILE = "metrics.jsonl"
LABELS_FILE = "labels.json"
TOKENIZER_FILE = "tokenizer/tokenizer.json"
PREDICTIONS_FILE = "predictions.safetensors"
REPORT_FILE = "report.html"
CAPSULE_FILE = "capsule.safetensors"
TRANSLATOR_FILE = "translator.safetensors"
ATTENTION_FILE = "attention.safetensors"
STATE_FILE = "checkpoints/state.safetensors"
# What a run that has not begun is to replace.
EARLIER = ".earlier"


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def reserved(path: Path) -> Iterator[None]:
    """Inside the context no other process of the user writes a run or a comparison to `path`.

    Each would remove what the other has begun.

    Raises:
        RunError: another process does.
    """
    from filelock import FileLock, Timeout

    folder, name = cache_folder() / "locks", hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    lock = FileLock(folder / f"{name}.lock", blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise RunError(f"Another process is writing to {path}; wait for its end, or choose another --out.") from None
    except (OSError, NotImplementedError):
        # Where the cache cannot be written, or its disk has no locks, one process does not know of the other.
        pass
    try:
        yield
    finally:
        lock.release()


def check_free(path: Path, overwrite: bool | None = None) -> None:
    """Whether `path` may be written to; what a run left there may go only with `overwrite`, which exports do not have.

    Raises:
        RunError: something is there already.
    """
    if file := next((place for place in (path, *path.parents) if place.is_file()), None):
        raise RunError(f"{file} is a file; name a folder with --out.")
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not overwrite:
        or_replace = "" if overwrite is None else ", or replace it with --overwrite"
        raise RunError(f"{path} exists and is not empty; choose another --out{or_replace}.")
    if not is_ours(path):
        raise RunError(f"{path} holds other things than a run, so --overwrite leaves it alone; choose another --out.")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to write to, which becomes `path` at the end: nobody meets half of what is to be there.

    Where the block fails, what it wrote is removed and `path` is as it was: missing, or empty.

    Raises:
        RunError: something is there already.
    """
    check_free(path)
    place = path.resolve()
    # The nearest folder that exists: it is on the disk of `path`, and a failure leaves no parents in it. Where it is
    # `path` itself, which may be the root of a disk, it stays.
    home = next(folder for folder in (place, *place.parents) if folder.is_dir())
    partial = home / f"{place.name}.{os.getpid()}.part"
    partial.mkdir()
    try:
        yield partial
        if home == place:
            _move_entries(partial, place)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move_entries(source: Path, target: Path) -> None:
    """All of them or, where one cannot be moved, none."""
    with ExitStack() as undo:
        for entry in sorted(source.iterdir()):
            undo.callback(entry.rename(target / entry.name).rename, entry)
        undo.pop_all()


def make_folder(path: Path, overwrite: bool) -> None:
    """Make room for a run at `path`, after `check_free`; what was there is aside until the run has begun.

    `write_record` and `forget_earlier` remove that, and `put_back` puts it back.
    """
    check_free(path, overwrite)
    earlier = path / EARLIER
    if earlier.is_dir():
        # A run was killed before it had begun.
        _erase(path, but=earlier)
        return
    earlier.mkdir(parents=True)
    # The folder itself may be a link or the root of a disk, and stays.
    for entry in path.iterdir():
        if entry != earlier:
            entry.rename(earlier / entry.name)


def forget_earlier(path: Path) -> None:
    """Remove what `make_folder` put aside."""
    shutil.rmtree(path / EARLIER)


def put_back(path: Path, is_new: bool) -> None:
    """Leave `path` as it was before `make_folder`, which made it if it `is_new`, unless the run has begun meanwhile."""
    earlier = path / EARLIER
    # A record beside what is aside is new: removing the earlier run was stopped, or failed.
    if not earlier.is_dir() or (path / RUN_FILE).is_file():
        return
    _erase(path, but=earlier)
    for entry in earlier.iterdir():
        entry.rename(path / entry.name)
    earlier.rmdir()
    if is_new:
        path.rmdir()


def write_record(path: Path, record: RunRecord | TranslationRecord) -> None:
    """Write `run.json`: the run has begun."""
    write_json(path / RUN_FILE, record)
    if (path / EARLIER).is_dir():
        forget_earlier(path)


def _erase(path: Path, but: Path) -> None:
    for entry in path.iterdir():
        if entry == but:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def is_ours(path: Path) -> bool:
    """Whether `path` is a folder that a run or a comparison made, and not one that others have files like theirs in."""
    files = (RUN_FILE, RESULT_FILE, COMPARISON_FILE)
    if (path / EARLIER).is_dir() or any(_says_it_is_ours(path / name) for name in files):
        return True
    # A comparison that was stopped during its first run.
    return all(entry.name == "runs" and all("-seed" in run.name for run in entry.iterdir()) for entry in path.iterdir())


def _says_it_is_ours(file: Path) -> bool:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["schema"]).startswith("transferkit/")
    except (OSError, ValueError, TypeError, KeyError):
        return False


def resolve(path: str | Path) -> Path:
    """The run folder at `path`: itself, or the run that a comparison in it recommends.

    Of several seeds the first is taken: choosing one by its test score would make that score a promise.

    Raises:
        RunError: there is no run, or the comparison recommends none.
    """
    path = Path(path)
    if (path / RUN_FILE).is_file():
        return path
    if (path / COMPARISON_FILE).is_file():
        comparison = read_json(path / COMPARISON_FILE, Comparison)
        finished = [r for r in comparison.results if r.strategy == comparison.verdict.use and r.status == "finished"]
        if not finished:
            raise RunError(f"The comparison in {path} recommends no strategy; name one of the folders in {path}/runs.")
        return path / finished[0].run
    raise RunError(f"There is no run in {path}: name a folder that `transferkit train` or `compare` has written.")


def refuse_own_backbone(files: BackboneFiles, out: Path) -> None:
    """Before `out` is emptied.

    Raises:
        RunError: the backbone is in there.
    """
    if files.folder.resolve().is_relative_to(out.resolve()):
        raise RunError(f"The backbone {files.name} is in {out}, which would be overwritten; choose another --out.")


def find_backbone(name: str, revision: str | None = None) -> BackboneFiles:
    """A run by its folder, of a comparison the one that it recommends, and anything else as `locate` finds it.

    As there, a built-in name goes before a folder of that name, which `./` in front names.

    Raises:
        RunError: the run is of another task, was stopped, or holds a capsule or a quantized form and no whole model.
        BackboneError: as `locate`.
    """
    folder = user_path(name)
    if name in BUILTIN or not any((folder / file).is_file() for file in (RUN_FILE, COMPARISON_FILE)):
        return locate(name, revision)
    folder = resolve(folder)
    record = read_record(folder)
    if not record.keeps_whole_model:
        raise RunError(
            f"{folder} holds a capsule of {record.label}, not a whole model, and so is no backbone; name a run of "
            "`transferkit pretrain`, of full or of scratch."
        )
    model = folder / "model"
    if model.is_dir() and not (model / "config.json").is_file():
        raise RunError(f"{folder} holds no weights that can be trained; name the run that it was exported from.")
    if not _is_finished(folder):
        raise RunError(
            f"{folder} was stopped before its end, so it is no backbone yet; go on with it by "
            f"`transferkit train --resume --out {folder}`."
        )
    pooling = None if record.backbone.pooling == "model" else record.backbone.pooling
    return BackboneFiles(name, model, tokenizer=folder / "tokenizer", pooling=pooling)


class _AnyTask(RootModel[Annotated[RunRecord | TranslationRecord, Field(discriminator="task")]]):
    """`run.json`, of which the field `task` says how to read the others."""


def read_any(folder: Path) -> RunRecord | TranslationRecord:
    """`run.json` of a run of any task.

    Raises:
        RunError: it is missing or damaged.
    """
    return read_json(folder / RUN_FILE, _AnyTask).root


def read_record(folder: Path) -> RunRecord:
    """`run.json` of a classifier's run folder.

    Raises:
        RunError: it is missing or damaged, or the run is of another task.
    """
    record = read_any(folder)
    if isinstance(record, TranslationRecord):
        raise _other_task(folder, record, "classification")
    return record


def read_translation(folder: Path) -> TranslationRecord:
    """`run.json` of a translator's run folder.

    Raises:
        RunError: as `read_record`.
    """
    record = read_any(folder)
    if isinstance(record, RunRecord):
        raise _other_task(folder, record, "translation")
    return record


def is_translation(folder: Path) -> bool:
    """Whether there is a run in a folder, and it is of translation."""
    return (folder / RUN_FILE).is_file() and isinstance(read_any(folder), TranslationRecord)


def read_stopped(folder: Path) -> RunRecord | TranslationRecord:
    """`run.json` of a run that was stopped.

    Raises:
        RunError: there is no run, or it is finished.
    """
    if (folder / COMPARISON_FILE).is_file() and not (folder / RUN_FILE).is_file():
        raise RunError(f"{folder} is a comparison, which goes on when the same `transferkit compare` is called again.")
    if not (folder / RUN_FILE).is_file():
        raise RunError(f"There is no run in {folder} to go on with; name the --out of a stopped `transferkit train`.")
    record = read_any(folder)
    if _is_finished(folder):
        raise RunError(f"{folder} is finished; there is nothing to go on with.")
    return record


def remedy(folder: Path) -> str:
    """What to do about a run that lacks the weights of its model, for the end of a sentence."""
    if (folder / RESULT_FILE).is_file() and read_result(folder).status != "interrupted":
        return "train it again with --overwrite"
    return f"it was stopped, and `transferkit train --resume --out {folder}` goes on with it"


def _is_finished(folder: Path) -> bool:
    return (folder / RESULT_FILE).is_file() and read_result(folder).status == "finished"


def _other_task(folder: Path, record: RunRecord | TranslationRecord, wanted: str) -> RunError:
    return RunError(f"{folder} is a run of {record.task}, and this is for runs of {wanted}; name another run.")


def read_result(folder: Path) -> RunResult:
    """`results.json` of a run folder."""
    return read_json(folder / RESULT_FILE, RunResult)


def read_lora(folder: Path) -> LoRAUpdates | None:
    """`lora.json` of a run folder; None where the run was not of `lora`, or did not reach its end.

    Raises:
        RunError: it is damaged.
    """
    path = folder / LORA_FILE
    return read_json(path, LoRAUpdates) if path.is_file() else None


def stored_bytes(folder: Path) -> int:
    """The size of what must be kept to predict."""
    return sum(file.stat().st_size for file in (folder / "model").rglob("*") if file.is_file())


def write_result(folder: Path, result: RunResult) -> None:
    """Write `results.json`, and then remove the checkpoints, unless a stopped run is to be gone on with.

    In this order, so that a run that is killed here is either finished or has what it needs.
    """
    write_json(folder / RESULT_FILE, result)
    if result.status == "finished" or not (folder / STATE_FILE).is_file():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def write_predictions(folder: Path, labels: np.ndarray, logits: np.ndarray) -> None:
    """Keep true labels [rows] and logits [rows, classes] of the test rows, in their own order."""
    from safetensors.numpy import save_file

    save_file({"labels": labels.astype(np.int64), "logits": logits}, folder / PREDICTIONS_FILE)


def read_predictions(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """True labels [rows] and logits [rows, classes] of the test rows.

    Raises:
        RunError: they are missing or damaged.
    """
    from safetensors.numpy import load_file

    path = folder / PREDICTIONS_FILE
    with reading(path):
        tensors = load_file(path)
        return tensors["labels"], tensors["logits"]
