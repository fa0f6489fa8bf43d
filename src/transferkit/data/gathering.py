"""The tables of all the sources that a configuration names, by split."""

from __future__ import annotations

from collections.abc import Callable

from transferkit.config import RowsConfig
from transferkit.data import sources, tabular
from transferkit.data.tables import Source, Table
from transferkit.data.text_lines import FileOptions
from transferkit.errors import DataError

# What a stage has to say of the choices that it made.
Notes = list[str]


def file_options(config: RowsConfig) -> FileOptions:
    """How the files of a configuration are read."""
    return FileOptions(config.encoding, config.quoting)


def gather(config: RowsConfig, read_main: Callable[[str, FileOptions], Source]) -> tuple[dict[str, Table], Notes]:
    """The tables by split; a source named for a split comes before the main source's own.

    Args:
        config: the sources, and how they are read.
        read_main: reads the main one.

    Raises:
        DataError: a source cannot be read, or has no rows for the split that it is named for.
        ConfigError: no source has a use for an option.
    """
    options = file_options(config)
    main = read_main(config.source, options)
    tables, notes, used = dict(main.splits), list(main.notes), main.options_used
    for split, name in (("validation", config.validation), ("test", config.test)):
        if name is None:
            continue
        source = sources.read(name, options)
        table = source.splits.get(split) or (source.splits["train"] if len(source.splits) == 1 else None)
        if table is None:
            raise DataError(f"{name}, given as {split} data, has the splits {', '.join(source.splits)}; name a file.")
        if split in tables:
            notes.append(f"The {split} split of {config.source} is left aside for {name}.")
        tables[split] = table
        notes += source.notes
        used |= source.options_used
    tabular.refuse_idle(options, used, config.source)
    return tables, notes
