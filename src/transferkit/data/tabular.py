"""Files of rows and columns, told apart by their name: CSV, TSV, JSON lines (each also .gz) and Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from transferkit.data import delimited, json_lines, parquet, workspace
from transferkit.data.chunks import Chunk
from transferkit.data.tables import Source, Table
from transferkit.data.text_lines import FileOptions, lines
from transferkit.errors import ConfigError, DataError


@dataclass(frozen=True)
class Format:
    """How files of one kind are read, and which of the user's options say anything about them."""

    chunks: Callable[[Path, FileOptions], Iterator[Chunk]]
    options: frozenset[str]
    has_header: bool = False


def _delimited(delimiter: str, quoted: bool) -> Format:
    def chunks(path: Path, options: FileOptions) -> Iterator[Chunk]:
        chosen = quoted if options.quoting == "auto" else options.quoting == "csv"
        return delimited.chunks(path, delimited.Dialect(delimiter, chosen), options)

    return Format(chunks, frozenset({"encoding", "quoting"}), has_header=True)


_CSV = _delimited(",", quoted=True)
# In tab-separated files quotes are text, as in those of the GLUE benchmark.
_TSV = _delimited("\t", quoted=False)
_JSON_LINES = Format(json_lines.chunks, frozenset({"encoding"}))
_PARQUET = Format(parquet.chunks, frozenset())
_FORMATS = {
    ".csv": _CSV,
    ".tsv": _TSV,
    ".jsonl": _JSON_LINES,
    ".ndjson": _JSON_LINES,
    ".json": _JSON_LINES,
    ".parquet": _PARQUET,
}
_KINDS = "CSV (.csv), TSV (.tsv, .txt with tabs), JSON lines (.jsonl, .ndjson, .json), each also .gz, or .parquet"


def is_tabular(name: str) -> bool:
    """Whether a file name ends like one of a kind that is read here."""
    return _suffix(name) in {*_FORMATS, ".txt"}


def chunks(path: Path, options: FileOptions) -> tuple[Format, Iterator[Chunk]]:
    """The format of a file and its rows as a stream of at least one chunk."""
    found = _format(path, options)
    return found, found.chunks(path, options)


def read(path: Path, options: FileOptions) -> Source:
    """One file as a source with the single split `train`, streamed to the workspace and memory-mapped."""
    found, parts = chunks(path, options)
    first = next(parts)
    batches = (part.batch for part in chain([first], parts))
    table = workspace.open_table(workspace.write(batches, first.batch.schema))
    if not table.num_rows:
        raise DataError(f"{path} has columns and no rows; there is nothing to learn from.")
    return Source({"train": Table(table, str(path), found.has_header)}, options_used=found.options)


def missing(path: Path) -> DataError:
    """The error for a file that is not there."""
    looked = "" if path.is_absolute() else f", which is taken from the folder {Path.cwd()}"
    return DataError(f"There is no file {path}; check the path{looked}.")


def refuse_idle(options: FileOptions, used: frozenset[str], where: str) -> None:
    """Refuse options that nothing read from `where` has a use for."""
    for name, is_given in (
        ("encoding", options.encoding is not None),
        ("quoting", options.quoting != "auto"),
    ):
        if is_given and name not in used:
            raise ConfigError(f"--{name} has no effect on {where}; leave it out.")


def _suffix(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def _format(path: Path, options: FileOptions) -> Format:
    suffix = _suffix(path.name)
    if suffix == ".txt" and "\t" in next(lines(path, options.encoding), ""):
        return _TSV
    if suffix not in _FORMATS:
        because = "it has no tabs in its first line" if suffix == ".txt" else f"its name ends in {suffix!r}"
        raise DataError(f"{path} is of no kind that is read here, since {because}; give {_KINDS}.")
    return _FORMATS[suffix]
