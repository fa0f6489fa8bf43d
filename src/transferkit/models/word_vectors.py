"""Word vectors in the text format of GloVe (Pennington et al. 2014): a word and its numbers on each line."""

from __future__ import annotations

import gzip
import math
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from transferkit.errors import BackboneError
from transferkit.tokenization.words import PADDING, UNKNOWN


@dataclass(frozen=True)
class WordVectors:
    """Words, and a vector of each in the rows of `table`, float32 [words, width].

    The first word is `<pad>`, of zeros. The second is `<unk>`, the vector that the file gives it, or else the mean of
    all: what is known of a word of which nothing is known.
    """

    words: tuple[str, ...]
    table: Tensor


def read_vectors(path: Path) -> WordVectors:
    """Read a file such as `glove.6B.100d.txt`, plain or `.gz`, line by line; of a word that comes twice, the first.

    Raises:
        BackboneError: the file is missing, empty, broken or not UTF-8, or a line has other than a word and as many
            numbers as the first.
    """
    words: dict[str, None] = {}
    numbers = array("f")
    width = 0
    for line, text in enumerate(_lines(path), start=1):
        word, *values = text.rstrip().split(" ")
        if not width:
            width = _width(path, word, values)
        if len(values) != width:
            raise BackboneError(
                f"{path}, line {line} has a vector of length {len(values)}, and the first line one of length {width}; "
                "mend the line or take it out."
            )
        vector = _vector(path, line, values)
        if word not in words:
            words[word] = None
            numbers.extend(vector)
    if not words:
        raise BackboneError(f"{path} is empty; name a file with a word and its numbers on each line.")
    table = torch.from_numpy(np.frombuffer(numbers, dtype=np.float32).reshape(-1, width))
    known = list(words)
    unknown = table[known.index(UNKNOWN)] if UNKNOWN in words else table.mean(0)
    kept = [row for row, word in enumerate(known) if word not in (PADDING, UNKNOWN)]
    return WordVectors(
        (PADDING, UNKNOWN, *(known[row] for row in kept)),
        torch.cat([torch.zeros(1, width), unknown.unsqueeze(0), table[kept]]),
    )


def _width(path: Path, word: str, values: list[str]) -> int:
    if not values:
        raise BackboneError(f"{path}, line 1: no numbers follow {word!r}; name a file of word vectors.")
    if len(values) == 1 and word.isdigit() and values[0].isdigit():
        raise BackboneError(
            f"{path}, line 1 is the heading of word2vec's format ({word} words of {values[0]} numbers); take it out."
        )
    return len(values)


def _vector(path: Path, line: int, values: list[str]) -> array[float]:
    try:
        vector = array("f", map(float, values))
    except (ValueError, OverflowError):
        vector = array("f", [math.nan])
    if not all(map(math.isfinite, vector)):
        raise BackboneError(f"{path}, line {line}: a value after the word is no number; mend the line or take it out.")
    return vector


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise BackboneError(f"There is no file of word vectors {path}; name one such as glove.6B.100d.txt.")
    try:
        # Not universal newlines: a word may hold any other character that looks like one.
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield line.decode("utf-8")
                except UnicodeDecodeError:
                    raise BackboneError(f"{path}, line {number} is not UTF-8; convert the file.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise BackboneError(f"{path} cannot be read: {error}; get the file anew.") from None
