"""idx files as the web has them: whole, packed, torn, of other types, and no idx files at all."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from transferkit.data.idx import read_idx
from transferkit.errors import DataError

NUMBERS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def idx(numbers: np.ndarray, kind: int = 0x08) -> bytes:
    """As the description of MNIST says: 0, 0, type, dimensions, sizes in 32 bits, numbers."""
    header = struct.pack(f">BBBB{numbers.ndim}I", 0, 0, kind, numbers.ndim, *numbers.shape)
    return header + numbers.tobytes()


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_numbers_come_in_the_shape_that_is_stated(tmp_path: Path, name: str, packed: bool) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(idx(NUMBERS)) if packed else idx(NUMBERS))
    found = read_idx(path, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, NUMBERS)


WHOLE = idx(NUMBERS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is no idx file: it begins with nothing"),
        (b"\x89PNG\r\n\x1a\n", r"is no idx file: it begins with 89 50 4e 47, not 00 00 08"),
        (b"\0\0\x07\x03" + WHOLE[4:], r"is no idx file: it begins with 00 00 07 03"),
        (idx(NUMBERS.astype(">f4"), kind=0x0D), r"holds numbers of the type float32; .* are bytes \(uint8\)"),
        (idx(NUMBERS[0]), r"states 2 as its dimensions, not 3"),
        (WHOLE[:12], r"ends within its header"),
        (WHOLE[:-1], r"states 2 x 3 x 4 numbers, 24 in all, and holds 23; get it again"),
        (WHOLE + b"\0", r"24 in all, and holds 25"),
        (gzip.compress(WHOLE)[:-12], r"cannot be read \(Compressed file ended"),
        (gzip.compress(WHOLE)[:10] + b"\xff" * 30, r"cannot be read \(Error -3"),
    ],
    ids=["empty", "picture", "type", "float", "dimensions", "header", "short", "long", "torn gzip", "damaged gzip"],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_idx(path, 3)
    assert str(error.value).startswith(str(path))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no file .*images\."):
        read_idx(tmp_path / "images", 3)
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_idx(tmp_path, 3)
