"""Text files, plain or gzipped, as decoded lines; what is not text is refused with its place."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from transferkit.errors import ConfigError, DataError

_DEFAULT = "utf-8-sig"
_BLOCK = 1 << 16
# UTF-32 comes first, since its little-endian mark begins with that of UTF-16.
_MARKS = {
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


@dataclass(frozen=True)
class FileOptions:
    """How a file is read: its characters and quotes, where the user says so, and how much of it."""

    encoding: str | None = None
    quoting: Literal["auto", "csv", "none"] = "auto"
    whole: bool = False  # whether all of it is kept, also what nothing learns from: its rows are written again


def lines(path: Path, encoding: str | None, newline: Literal["", "\n"] = "") -> Iterator[str]:
    """Each line of a file with its line end as it stands; a byte-order mark is dropped.

    Args:
        path: the file.
        encoding: its name; None for UTF-8.
        newline: empty where a line ends at LF, CR LF or a CR alone, LF where it ends at that only.

    Raises:
        ConfigError: there is no encoding of that name.
        DataError: a byte cannot be decoded (with file, line and offset), or the file is not text.
    """
    codec = _codec(encoding)
    try:
        with _opened(path) as raw, io.TextIOWrapper(raw, codec, newline=newline) as text:
            for number, line in enumerate(text, start=1):
                if number == 1:
                    # utf-16-le and its kind leave it to the reader.
                    line = line.removeprefix("\ufeff")
                if "\0" in line:
                    raise _not_text(path, number)
                yield line
    except UnicodeError:
        raise _undecodable(path, codec) from None


def whole_text(path: Path, encoding: str | None) -> str:
    """All of a file as one string, under the rules of `lines`."""
    return "".join(lines(path, encoding))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as raw:
            yield cast(BinaryIO, raw)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file ({error}); fetch or compress it again.") from None
    except PermissionError:
        raise DataError(f"{path} may not be read; change its permissions.") from None


def _codec(encoding: str | None) -> str:
    if encoding is None:
        return _DEFAULT
    try:
        name = codecs.lookup(encoding).name
        "a".encode(name)  # raises for codecs such as hex, which do not give text
    except LookupError:
        raise ConfigError(
            f"There is no text encoding {encoding!r}; --encoding takes names such as latin-1 or cp1252."
        ) from None
    return _DEFAULT if name == "utf-8" else name


def _not_text(path: Path, line: int) -> DataError:
    return DataError(f"{path}, line {line}: holds a NUL byte, so this is not text; name a text file.")


def _undecodable(path: Path, codec: str) -> DataError:
    """Read the file again up to the first byte that does not decode, and name its place."""
    decoder = codecs.getincrementaldecoder(codec)()
    fed, line, block = 0, 1, b""
    with _opened(path) as raw:
        start = raw.read(_BLOCK)
        raw.seek(0)
        try:
            while block := raw.read(_BLOCK):
                fed += len(block)
                line += decoder.decode(block).count("\n")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            # The decoder's input ends with the last byte fed to it, and may begin within an earlier block.
            offset = fed - len(error.object) + error.start
            line += error.object[: error.start].decode(codec, errors="ignore").count("\n")
            what = f"byte 0x{error.object[error.start]:02X} at offset {offset:,} is not {_shown(codec)}"
        except UnicodeError as error:
            what = f"{error}"
    mark = next((name for name, marks in _MARKS.items() if start.startswith(marks)), None)
    if mark is None and b"\0" in start:
        return _not_text(path, 1 + start[: start.index(b"\0")].count(b"\n"))
    advice = f"its first bytes mark {mark}: give --encoding {mark}" if mark else "name its encoding with --encoding"
    return DataError(f"{path}, line {line}: {what}; {advice}{'' if mark else ', such as latin-1 or cp1252'}.")


def _shown(codec: str) -> str:
    return "UTF-8" if codec == _DEFAULT else codec
