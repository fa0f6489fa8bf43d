"""Where sentences and their translations are read: files with two columns, two files, the hub, a package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from transferkit.config import ParallelDataConfig
from transferkit.data import sources, tabular, workspace
from transferkit.data.builtin import packaged_file
from transferkit.data.chunks import CHUNK_ROWS
from transferkit.data.tables import Table
from transferkit.data.text_lines import FileOptions, lines
from transferkit.errors import ConfigError, DataError, did_you_mean

# The columns of what is read.
LANGUAGES = ("source", "target")
_SCHEMA = pa.schema([(name, pa.string()) for name in LANGUAGES])
# The column that data sets of the hub keep both languages in, an object by language.
_TRANSLATION = "translation"
CHATTERBOT = "chatterbot:english-italian"


@dataclass(frozen=True)
class Pairs:
    """The text columns `source` and `target`, memory-mapped, and the languages that they are in."""

    texts: pa.Table
    languages: tuple[str, str]
    where: str


def read(config: ParallelDataConfig) -> tuple[dict[str, Pairs], list[str]]:
    """The rows by split, `train` at least, and a sentence for each choice made for the user.

    Raises:
        DataError: a source cannot be read, or its languages cannot be told.
        ConfigError: a setting has no effect on the source.
    """
    if config.source == CHATTERBOT:
        found, notes = _chatterbot()
    elif config.target_file is not None:
        aligned = _aligned(Path(config.source), Path(config.target_file), config.encoding)
        found, notes = {"train": replace(aligned, languages=config.languages or aligned.languages)}, []
    else:
        found, notes = _tables(config.source, config)
    _refuse_idle(config)
    for split, name in (("validation", config.validation), ("test", config.test)):
        if name is not None:
            if split in found:
                notes.append(f"The {split} split of {config.source} is left aside for {name}.")
            own, more = _tables(name, config)
            found[split] = own.get(split, own["train"])
            notes += more
    return found, notes


def _refuse_idle(config: ParallelDataConfig) -> None:
    names = {"target_file": config.target_file, "languages": config.languages}
    if config.source == CHATTERBOT:
        given = [name for name, value in names.items() if value is not None]
        if given:
            raise ConfigError(f"data.{given[0]} has no effect on the built-in {CHATTERBOT}; leave it out.")


def _tables(name: str, config: ParallelDataConfig) -> tuple[dict[str, Pairs], list[str]]:
    options = FileOptions(config.encoding, config.quoting)
    source = sources.read(name, options)
    tabular.refuse_idle(options, source.options_used, name)
    found = {split: _pairs(table, config.languages) for split, table in source.splits.items()}
    notes = list(source.notes)
    if config.languages is None:
        first, second = next(iter(found.values())).languages
        notes.append(f"{name}: from {first!r} into {second!r}; --pair says it otherwise.")
    return found, notes


def _pairs(table: Table, languages: tuple[str, str] | None) -> Pairs:
    """The two columns, or the two keys of the column `translation`."""
    columns = table.columns
    if _TRANSLATION in columns.column_names:
        columns = _by_language(columns.column(_TRANSLATION), table.where)
    names = columns.column_names
    texts = [name for name in names if pa.types.is_string(columns.schema.field(name).type)]
    if languages is None:
        if len(texts) != 2:
            raise DataError(
                f"{table.where} has the text columns {', '.join(texts) or 'none'}; say with --pair which is translated "
                "into which."
            )
        languages = (texts[0], texts[1])
    if languages[0] == languages[1]:
        raise ConfigError(f"--pair names {languages[0]!r} twice; a translation needs two languages.")
    for language in languages:
        if language not in texts:
            hint = did_you_mean(language, texts)
            raise DataError(f"{table.where} has no text column {language!r}, only {', '.join(texts)}.{hint}")
    return Pairs(columns.select(list(languages)).rename_columns(list(LANGUAGES)), languages, table.where)


def _by_language(column: pa.ChunkedArray, where: str) -> pa.Table:
    """Objects such as {"en": "Hello.", "it": "Ciao."} as a column for each language."""
    if pa.types.is_struct(column.type):
        flat = {field.name: pc.struct_field(column, field.name) for field in column.type}
        return pa.table({name: texts.cast(pa.string()) for name, texts in flat.items()})
    try:
        rows = [json.loads(text) for text in column.to_pylist()]
        return pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in rows[0]})
    except (json.JSONDecodeError, TypeError, KeyError, pa.ArrowInvalid):
        raise DataError(
            f"{where}: the column translation does not hold an object of texts by language in each row, such as "
            '{"en": "Hello.", "it": "Ciao."}; name two text columns with --pair.'
        ) from None


def _aligned(source: Path, target: Path, encoding: str | None) -> Pairs:
    """Two files whose lines belong together; the languages are the ends of their names."""
    for path in (source, target):
        if not path.is_file():
            raise tabular.missing(path)
    where = f"{source} and {target}"

    def batches() -> Iterator[pa.RecordBatch]:
        rows: list[tuple[str, str]] = []
        pairs = enumerate(zip_longest(lines(source, encoding), lines(target, encoding)), start=1)
        for number, (one, other) in pairs:
            if one is None or other is None:
                shorter, longer = (source, target) if one is None else (target, source)
                raise DataError(
                    f"{shorter} ends after {number - 1:,} lines and {longer} goes on; lines that belong together must "
                    "have the same number."
                )
            rows.append((one.rstrip("\r\n"), other.rstrip("\r\n")))
            if len(rows) == CHUNK_ROWS:
                yield _batch(rows)
                rows = []
        yield _batch(rows)

    texts = workspace.open_table(workspace.write(batches(), _SCHEMA))
    if not len(texts):
        raise DataError(f"{where} are empty; there is nothing to learn from.")
    names = [path.name.removesuffix(".gz") for path in (source, target)]
    endings = [Path(name).suffix.removeprefix(".") or name for name in names]
    first, second = endings if endings[0] != endings[1] else names
    return Pairs(texts, (first, second), where)


def _batch(rows: list[tuple[str, str]]) -> pa.RecordBatch:
    return pa.record_batch([pa.array([row[side] for row in rows], pa.string()) for side in (0, 1)], schema=_SCHEMA)


def _chatterbot() -> tuple[dict[str, Pairs], list[str]]:
    """Short questions and answers; files of the two languages with as many turns belong together, by position."""
    import yaml

    english = packaged_file("chatterbot_corpus", "chatterbot-corpus", "data/english")
    rows: list[tuple[str, str]] = []
    aside = []
    for path in sorted(english.glob("*.yml")):
        other = english.parent / "italian" / path.name
        if not other.is_file():
            aside.append(path.stem)
            continue
        talks = [yaml.safe_load(one.read_text(encoding="utf-8"))["conversations"] for one in (path, other)]
        if [len(talk) for talk in talks[0]] == [len(talk) for talk in talks[1]]:
            rows += [pair for both in zip(*talks, strict=True) for pair in zip(*both, strict=True)]
        else:
            aside.append(path.stem)
    texts = workspace.open_table(workspace.write([_batch([(str(a), str(b)) for a, b in rows])], _SCHEMA))
    note = f"{CHATTERBOT}: {', '.join(aside)} left aside, where the two languages do not match turn by turn."
    return {"train": Pairs(texts, ("english", "italian"), CHATTERBOT)}, [note] if aside else []
