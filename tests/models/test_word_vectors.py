"""Files of word vectors are read as they are, and a broken one is refused with its line."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from transferkit.errors import BackboneError
from transferkit.models.word_vectors import read_vectors

SHARED = Path(os.environ.get("TRANSFERKIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
LINES = "the 1 2 -3\n, 0.5 0 1e-1\ncaf\u00e9 3 4 5.25\n"


def written(folder: Path, content: str | bytes, name: str = "vectors.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_words_and_vectors_are_those_of_the_file(tmp_path: Path) -> None:
    vectors = read_vectors(written(tmp_path, LINES))
    assert vectors.words == ("<pad>", "<unk>", "the", ",", "caf\u00e9")
    rows = torch.tensor([[1, 2, -3], [0.5, 0, 0.1], [3, 4, 5.25]])
    torch.testing.assert_close(vectors.table[2:], rows)
    torch.testing.assert_close(vectors.table[1], rows.mean(0))
    assert vectors.table[0].tolist() == [0, 0, 0]


def test_a_compressed_file_is_the_same(tmp_path: Path) -> None:
    plain = read_vectors(written(tmp_path, LINES))
    packed = read_vectors(written(tmp_path, gzip.compress(LINES.encode()), "vectors.txt.gz"))
    assert packed.words == plain.words
    assert torch.equal(packed.table, plain.table)


def test_what_the_file_says_of_unknown_words_is_taken(tmp_path: Path) -> None:
    vectors = read_vectors(written(tmp_path, "the 1 1\n<unk> 7 8\n<pad> 9 9\n"))
    assert vectors.words == ("<pad>", "<unk>", "the")
    assert vectors.table.tolist() == [[0, 0], [7, 8], [1, 1]]


def test_of_a_word_that_comes_twice_the_first_counts(tmp_path: Path) -> None:
    vectors = read_vectors(written(tmp_path, "a 1 1\nb 2 2\na 3 3"))
    assert vectors.words[2:] == ("a", "b")
    assert vectors.table[2:].tolist() == [[1, 1], [2, 2]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a 1 2\nb 1\n", "line 2 has a vector of length 1, and the first line one of length 2; mend the line"),
        ("a 1 2\n. . 1 2\n", "line 2 has a vector of length 3, and the first line one of length 2; mend the line"),
        ("a 1 2\n\nb 1 2\n", "line 2 has a vector of length 0"),
        ("a 1 2\nb 1 x\n", "line 2: a value after the word is no number"),
        ("a 1 2\nb 1 nan\n", "line 2: a value after the word is no number"),
        ("a 1 2\nb 1 1e300\n", "line 2: a value after the word is no number"),
        ("hello\nworld\n", "line 1: no numbers follow 'hello'"),
        ("400000 100\nthe 1 2\n", "line 1 is the heading of word2vec's format"),
        ("", "is empty"),
        (b"a 1 2\n\xff\xfe 1 2\n", "line 2 is not UTF-8"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(BackboneError) as error:
        read_vectors(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_or_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="There is no file of word vectors"):
        read_vectors(tmp_path / "none.txt")
    cut = gzip.compress(LINES.encode() * 1000)[:-20]
    with pytest.raises(BackboneError, match=r"cannot be read: .*; get the file anew"):
        read_vectors(written(tmp_path, cut, "cut.txt.gz"))
    with pytest.raises(BackboneError, match="cannot be read"):
        read_vectors(written(tmp_path, LINES, "plain.txt.gz"))


@pytest.mark.parametrize(("words", "width"), [(2717, 100), (9163, 50)])
def test_a_part_of_glove_is_read(words: int, width: int) -> None:
    path = SHARED / "glove" / f"glove.6B.{width}d.top{words}.txt.gz"
    if not path.is_file() and "CI" not in os.environ:
        pytest.skip(f"{path} is not on this machine; TRANSFERKIT_DATA names its folder")
    vectors = read_vectors(path)
    assert vectors.table.shape == (words + 2, width)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        first = next(file).split()
    assert vectors.words[2] == first[0] == "the"
    np.testing.assert_array_equal(vectors.table[2].numpy(), np.array(first[1:], dtype=np.float32))
