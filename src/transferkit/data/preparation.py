"""The straight path from a data configuration to splits that a task can tokenize."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from transferkit.config import DataConfig
from transferkit.data import cleaning, columns, gathering, labels, overlap, sources, splits, tabular
from transferkit.data.columns import Selection
from transferkit.data.gathering import Notes, file_options
from transferkit.data.labels import LabelMap
from transferkit.data.rows import Rows, counted
from transferkit.data.tables import Table
from transferkit.environment import uncollected
from transferkit.errors import ConfigError, DataError


@dataclass(frozen=True)
class TextData:
    """Labelled text, ready to tokenize: memory-mapped, split, and without rows that stand in two splits."""

    splits: dict[str, datasets.Dataset]  # train, validation, test; columns text, text_pair (pairs only), label
    labels: tuple[str, ...]  # the name of class number i
    source: str
    columns: dict[str, Any]  # {"text": "review"} or {"pair": ["s1", "s2"]}, and "label", as the training data has them
    dropped_empty: int  # rows without text or label
    leaked: int  # rows taken out of training since they also stand in validation or test
    notes: tuple[str, ...]  # a sentence for each choice made for the user


@uncollected()
def prepare(config: DataConfig) -> TextData:
    """Read, clean, label and split the data of a run.

    Raises:
        DataError: the data cannot be read or cannot be learnt from.
        ConfigError: a setting does not fit the data.
    """
    tables, gathered = gathering.gather(config, sources.read)
    selections, selected = _select_all(tables, config)
    train = selections["train"]
    classes, rows, dropped, cleaned = _number(selections, config)
    rows, leaked, separated = _separate(rows, classes.names)
    rows, drawn = _draw_missing(rows, classes.names, config)
    rows, leaked_by_drawing, separated_again = _separate(rows, classes.names)
    rows, sampled = _sample(rows, config)
    return TextData(
        splits={split: rows[split].dataset() for split in ("train", "validation", "test")},
        labels=classes.names,
        source=config.source,
        columns={
            **({"pair": list(train.text_names)} if train.is_pair else {"text": train.text_names[0]}),
            "label": train.label_name,
        },
        dropped_empty=dropped,
        leaked=leaked + leaked_by_drawing,
        notes=(*gathered, *selected, *cleaned, *separated, *drawn, *separated_again, *sampled),
    )


def read_labelled(
    config: DataConfig, names: tuple[str, ...], texts: tuple[str, ...], label_name: str
) -> tuple[datasets.Dataset, tuple[str, ...]]:
    """The rows of `config.source` to score a trained model on: its test split if it has one, else all of it.

    The validation split stands in for a test split without labels.

    Args:
        config: the source, its columns and how it is read; splits and sizes are not looked at.
        names: the classes that the model knows, in the order of their numbers.
        texts: the text column, or the two of a pair, that the model was trained on; taken where the rows have them
            and `config` names none.
        label_name: the label column that it was trained on, likewise.

    Returns:
        One data set with the columns text, text_pair (pairs only) and label, and the notes.

    Raises:
        DataError: the rows cannot be read, or have labels that the model does not know.
        ConfigError: a pair is named for a model of single texts, or the other way round; `label_names` do not fit.
    """
    source = sources.read(config.source, file_options(config))
    tabular.refuse_idle(file_options(config), source.options_used, config.source)
    parts, notes = [], list(source.notes)
    tables = _scored(source.splits, texts, config.label or label_name, notes)
    for table in tables:
        selection = _select_known(table, config, texts, label_name)
        kept = cleaning.usable(selection.texts, selection.label, selection.where)
        label = selection.label.take(kept.indices)
        classes = labels.known(names, config.label_names, label, selection.where)
        rows = Rows.of(selection.texts, kept.indices, labels.encode(label, classes, selection.where), selection.where)
        parts.append(rows.dataset())
        notes += [*_said_columns(selection, config), *_said_dropped(kept, selection.where)]
    return datasets.concatenate_datasets(parts), tuple(notes)


def _scored(splits: Mapping[str, Table], texts: tuple[str, ...], label: str, notes: list[str]) -> list[Table]:
    """The test split, in whose place the validation split stands where the test split came without labels."""
    if "test" not in splits:
        return list(splits.values())
    test, validation = splits["test"], splits.get("validation")
    if validation is None or columns.is_labelled(test, label, texts):
        return [test]
    notes.append(f"{test.where} has no labels; scored are the rows of {validation.where}.")
    return [validation]


def _select_known(table: Table, config: DataConfig, texts: tuple[str, ...], label_name: str) -> Selection:
    """The columns that `config` names; what it leaves open as in training, else by the usual names."""
    known, asked, is_pair = table.columns.column_names, _texts(config), len(texts) == 2
    if asked and len(asked) != len(texts):
        kind, option = ("pairs", "two text columns with --pair") if is_pair else ("single texts", "one with --text")
        raise ConfigError(f"The run was trained on {kind}; name {option}.")
    named_texts = asked or (texts if set(texts) <= set(known) else ())
    named_label = config.label or (label_name if label_name in known else None)
    return columns.select(table, named_texts, named_label, is_pair=is_pair, named=True)


def _texts(config: DataConfig) -> tuple[str, ...]:
    return (config.text,) if config.text is not None else config.pair or ()


def _select_all(tables: Mapping[str, Table], config: DataConfig) -> tuple[dict[str, Selection], Notes]:
    """Text and label of each split; a split that came along without labels is left aside."""
    train = columns.select(tables["train"], _texts(config), config.label, is_pair=None, named=True)
    selections, notes = {"train": train}, _said_columns(train, config)
    for split, came_along in (("validation", config.validation is None), ("test", config.test is None)):
        if split not in tables:
            continue
        table = tables[split]
        if came_along and not columns.is_labelled(table, train.label_name, train.text_names):
            notes.append(f"{table.where} has no labels and is left aside; another {split} split is drawn.")
            continue
        selection = columns.select(table, train.text_names, train.label_name, is_pair=train.is_pair, named=False)
        if (selection.text_names, selection.label_name) != (train.text_names, train.label_name):
            notes += _said_columns(selection, config)
        selections[split] = selection
    return selections, notes


def _number(selections: Mapping[str, Selection], config: DataConfig) -> tuple[LabelMap, dict[str, Rows], int, Notes]:
    """Drop rows without text or label, learn the classes from training, number the labels of all splits."""
    kept = {split: cleaning.usable(one.texts, one.label, one.where) for split, one in selections.items()}
    label = {split: one.label.take(kept[split].indices) for split, one in selections.items()}
    train = selections["train"]
    classes = labels.learn(label["train"], train.order, config.label_names, train.where)
    rows = {
        split: Rows.of(one.texts, kept[split].indices, labels.encode(label[split], classes, one.where), one.where)
        for split, one in selections.items()
    }
    notes = [note for split, one in selections.items() for note in _said_dropped(kept[split], one.where)]
    if classes.names != classes.codes:
        notes.append(f"The labels {', '.join(classes.codes)} are called {', '.join(classes.names)}, in this order.")
    return classes, rows, sum(part.dropped for part in kept.values()), notes


def _separate(rows: Mapping[str, Rows], names: tuple[str, ...]) -> tuple[dict[str, Rows], int, Notes]:
    """Take rows that stand in a later split out of the earlier one; the number counts those of training."""
    separate, removed, notes = dict(rows), {}, []
    for split, later in (("validation", ("test",)), ("train", ("validation", "test"))):
        others = [rows[other] for other in later if other in rows]
        if split not in rows or not others:
            continue
        separate[split] = rows[split].keep(overlap.not_in(rows[split], others))
        removed[split] = len(rows[split]) - len(separate[split])
        if removed[split]:
            where = " or ".join(other for other in later if other in rows)
            notes.append(f"{counted(removed[split])} taken out of {split}, since the same text stands in {where}.")
    _check_enough_left(separate, names)
    return separate, removed.get("train", 0), notes


def _draw_missing(
    rows: Mapping[str, Rows], names: tuple[str, ...], config: DataConfig
) -> tuple[dict[str, Rows], Notes]:
    fractions = {"test": config.test_fraction, "validation": config.validation_fraction}
    missing = {split: fraction for split, fraction in fractions.items() if split not in rows}
    splits.refuse_idle_fractions(config, missing)
    if not missing:
        return dict(rows), []
    train = rows["train"]
    drawn = splits.draw_missing(train, missing, names, config.split_seed)
    parts = " and ".join(f"{len(drawn[split]):,} for {split}" for split in missing)
    note = (
        f"Of the {len(train):,} rows of {train.where}, {parts} were drawn, stratified by label, "
        f"with split seed {config.split_seed}."
    )
    return {**rows, **drawn}, [note]


def _check_enough_left(rows: Mapping[str, Rows], names: tuple[str, ...]) -> None:
    lost = np.flatnonzero(np.bincount(rows["train"].labels, minlength=len(names)) == 0)
    if len(lost):
        raise DataError(
            f"{rows['train'].where}: every training row of the class {names[lost[0]]!r} also stands in "
            "validation or test, so none is left to learn from; give other rows for training."
        )
    validation = rows.get("validation")
    if validation is not None and not len(validation):
        raise DataError(f"{validation.where}: every validation row also stands in test; give other rows.")


def _sample(rows: Mapping[str, Rows], config: DataConfig) -> tuple[dict[str, Rows], Notes]:
    sampled, notes = dict(rows), []
    sizes = {"train": config.train_size, "validation": config.validation_size, "test": config.test_size}
    for split, size in sizes.items():
        if size is not None:
            sampled[split] = splits.sample(rows[split], split, size, config.split_seed)
            notes.append(f"{size:,} of {len(rows[split]):,} {split} rows were drawn, stratified by label.")
    return sampled, notes


def _said_columns(selection: Selection, config: DataConfig) -> Notes:
    """Which columns are read, unless the user named them all."""
    if selection.text_names == _texts(config) and selection.label_name == config.label:
        return []
    texts = " and ".join(repr(name) for name in selection.text_names)
    what = f"the pair {texts}" if selection.is_pair else texts
    return [f"{selection.where}: text is read from {what}, the label from {selection.label_name!r}."]


def _said_dropped(kept: cleaning.Kept, where: str) -> Notes:
    total = len(kept.indices) + kept.dropped
    return [f"{where}: {kept.dropped:,} of {total:,} rows without text or label were dropped."] if kept.dropped else []
