"""Folders: one text file per example (as aclImdb), one table per split, or a data set saved by `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa

from transferkit.data import tabular, workspace
from transferkit.data.arrow_types import with_class_names
from transferkit.data.chunks import CHUNK_ROWS
from transferkit.data.tables import SPLIT_NAMES, Source, Table, split_called
from transferkit.data.text_lines import FileOptions, whole_text
from transferkit.errors import DataError, first_line

# aclImdb keeps its reviews without a label among the labelled ones.
_UNLABELLED = "unsup"
_TEXT_SCHEMA = pa.schema([("text", pa.string()), ("label", pa.string())])


def read(folder: Path, options: FileOptions) -> Source:
    """A folder as a source, by the layout found in it.

    Raises:
        DataError: the folder has none of the layouts.
    """
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _read_saved(folder)
    if texts := _text_folders(folder):
        return _read_texts(texts, options)
    if any(tabular.is_tabular(path.name) for path in folder.iterdir() if path.is_file()):
        return _read_tables(folder, options)
    raise DataError(
        f"The folder {folder} holds no data in a layout known here: train/LABEL/*.txt, LABEL/*.txt, "
        "train.csv (.tsv, .jsonl, .parquet), or what save_to_disk writes."
    )


def from_dataset_dict(splits: datasets.DatasetDict, where: str) -> Source:
    """The splits of a loaded data set; any that is not training, validation or test is left aside."""
    found = {split: name for split in SPLIT_NAMES if (name := split_called(splits, split)) is not None}
    if "train" not in found and len(splits) == 1:
        found = {"train": next(iter(splits))}
    if "train" not in found:
        raise DataError(f"{where} has no split called train; it has {', '.join(splits)}.")
    tables = {
        split: Table(with_class_names(splits[name].data.table, splits[name].features), f"{where} ({name})")
        for split, name in found.items()
    }
    aside = [name for name in splits if name not in found.values()]
    return Source(tables, tuple(f"{where}: the split {name} is left aside." for name in aside))


def _read_saved(folder: Path) -> Source:
    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise DataError(f"The data set saved in {folder} cannot be read: {first_line(error)}") from None
    if isinstance(saved, datasets.Dataset):
        saved = datasets.DatasetDict(train=saved)
    return from_dataset_dict(saved, str(folder))


def _text_folders(folder: Path) -> dict[str, Path]:
    """The folders that hold a folder of .txt files per label, by split."""
    inside = {path.name: path for path in folder.iterdir() if path.is_dir()}
    names = {split: split_called(inside, split) for split in SPLIT_NAMES}
    found = {split: inside[name] for split, name in names.items() if name is not None and _labels(inside[name])}
    if found:
        return found if "train" in found else {}
    return {"train": folder} if _labels(folder) else {}


def _labels(folder: Path) -> list[str]:
    """The names of the folders in `folder` that hold .txt files, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and any(path.glob("*.txt")))


def _read_texts(folders: dict[str, Path], options: FileOptions) -> Source:
    tables, notes = {}, []
    for split, folder in folders.items():
        labels = _labels(folder)
        if _UNLABELLED in labels:
            labels.remove(_UNLABELLED)
            notes.append(f"{folder / _UNLABELLED} is left aside, since its texts have no label.")
        stored = workspace.write(_text_batches(folder, labels, options), _TEXT_SCHEMA)
        tables[split] = Table(workspace.open_table(stored), str(folder))
    return Source(tables, tuple(notes), frozenset({"encoding"}))


def _text_batches(folder: Path, labels: list[str], options: FileOptions) -> Iterator[pa.RecordBatch]:
    for label in labels:
        paths = sorted((folder / label).glob("*.txt"))
        for start in range(0, len(paths), CHUNK_ROWS):
            texts = [whole_text(path, options.encoding) for path in paths[start : start + CHUNK_ROWS]]
            yield pa.record_batch([pa.array(texts, pa.string()), pa.array([label] * len(texts))], schema=_TEXT_SCHEMA)


def _read_tables(folder: Path, options: FileOptions) -> Source:
    files = sorted(path for path in folder.iterdir() if path.is_file() and tabular.is_tabular(path.name))
    found: dict[str, Path] = {}
    for split, names in SPLIT_NAMES.items():
        matching = [path for path in files if path.name.partition(".")[0].lower() in names]
        if len(matching) > 1:
            both = " and ".join(path.name for path in matching[:2])
            raise DataError(f"The folder {folder} holds {both}, both for {split}; take one away, or name a file.")
        if matching:
            found[split] = matching[0]
    if "train" not in found:
        raise DataError(
            f"The folder {folder} has {', '.join(path.name for path in files[:5])} but no file train; "
            "name one file as the data, with --validation-data and --test-data beside it."
        )
    sources = {split: tabular.read(path, options) for split, path in found.items()}
    aside = [path.name for path in files if path not in found.values()]
    notes = [f"{folder}: {', '.join(aside)} left aside."] if aside else []
    used = frozenset[str]().union(*(source.options_used for source in sources.values()))
    return Source({split: source.splits["train"] for split, source in sources.items()}, tuple(notes), used)
