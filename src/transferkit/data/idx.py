"""The idx files of MNIST (LeCun, Cortes and Burges): a header with type and sizes, then the numbers; plain or gzip."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from transferkit.errors import DataError

_UNSIGNED_BYTE = 0x08
_TYPES = {
    _UNSIGNED_BYTE: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64",
}  # fmt: skip


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The numbers in an idx file, in the shape that it states.

    The file begins with two zero bytes, the type of the numbers and how many dimensions they have; then come the sizes,
    big-endian and of 32 bits, and the numbers, the last dimension the fastest.

    Args:
        path: the file; one that begins as gzip does is unpacked, whatever its name.
        dimensions: that it is to have, 3 of images and 1 of labels.

    Raises:
        DataError: the file is missing, damaged, no idx file, or holds other numbers or dimensions.
    """
    content = _content(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise DataError(f"{path} is no idx file: it begins with {content[:4].hex(' ') or 'nothing'}, not 00 00 08.")
    if content[2] != _UNSIGNED_BYTE:
        raise DataError(f"{path} holds numbers of the type {_TYPES[content[2]]}; images and labels are bytes (uint8).")
    if content[3] != dimensions:
        raise DataError(f"{path} states {content[3]} as its dimensions, not {dimensions}: images have 3, and labels 1.")
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{path} ends within its header; get it again.")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    stated, found = math.prod(shape), len(content) - start
    if stated != found:
        sizes = " x ".join(map(str, shape))
        raise DataError(f"{path} states {sizes} numbers, {stated:,} in all, and holds {found:,}; get it again.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DataError(f"{path} cannot be read ({reason}); get it again.") from None
