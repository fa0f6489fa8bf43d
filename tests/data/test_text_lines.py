from __future__ import annotations

import codecs
import gzip
from pathlib import Path

import pytest

from transferkit.data.text_lines import lines
from transferkit.errors import ConfigError, DataError


@pytest.mark.parametrize("encoding", [None, "utf-8", "UTF8", "utf-8-sig"])
def test_a_byte_order_mark_is_dropped(tmp_path: Path, encoding: str | None) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(codecs.BOM_UTF8 + "é\r\nb".encode())
    assert list(lines(path, encoding)) == ["é\r\n", "b"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_so_it_is_where_the_order_of_bytes_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\n\ufefftwo".encode(encoding))
    assert list(lines(path, encoding)) == ["one\n", "\ufefftwo"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_other_encodings_are_read_when_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("één\ntwee".encode(encoding))
    assert list(lines(path, encoding)) == ["één\n", "twee"]


def test_a_line_may_end_at_any_end_or_at_lf_only(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\rb\r\nc\nd")
    assert list(lines(path, None)) == ["a\r", "b\r\n", "c\n", "d"]
    assert list(lines(path, None, newline="\n")) == ["a\rb\r\n", "c\n", "d"]


@pytest.mark.parametrize("padding", [0, 70_000])
def test_an_undecodable_byte_is_named_with_its_line_and_offset(tmp_path: Path, padding: int) -> None:
    path = tmp_path / "a.csv"
    before = b"good line\n" + b"x" * padding + b"\ncaf"
    path.write_bytes(before + b"\xe9\nmore\n")
    with pytest.raises(DataError, match=rf"line 3: byte 0xE9 at offset {len(before):,} is not UTF-8.*--encoding"):
        list(lines(path, None))


def test_the_offset_counts_the_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(codecs.BOM_UTF8 + b"ab\xff")
    with pytest.raises(DataError, match="line 1: byte 0xFF at offset 5 "):
        list(lines(path, "utf-8"))


def test_a_utf_16_file_is_told_by_its_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label".encode("utf-16"))
    with pytest.raises(DataError, match="--encoding utf-16"):
        list(lines(path, None))


def test_binary_files_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with pytest.raises(DataError, match="not text"):
        list(lines(path, None))


@pytest.mark.parametrize("name", ["latin-99", "hex"])
def test_an_unknown_encoding_is_a_mistake_of_the_option(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"no text encoding '{name}'"):
        list(lines(tmp_path / "a.txt", name))


def test_gzip_is_read_and_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    whole = gzip.compress(b"a\nb\n" * 1000)
    path.write_bytes(whole)
    assert len(list(lines(path, None))) == 2000
    path.write_bytes(whole[:-12])
    with pytest.raises(DataError, match="not a whole gzip file"):
        list(lines(path, None))
    path.write_bytes(b"plain text")
    with pytest.raises(DataError, match="not a whole gzip file"):
        list(lines(path, None))
