"""Files are answered as they are read: nothing waits for the last row, and no row waits in memory."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.small_data import write_csv
from transferkit.data import delimited
from transferkit.data.chunks import CHUNK_ROWS
from transferkit.data.prediction_input import iter_texts
from transferkit.errors import DataError, RunError
from transferkit.inference import answers
from transferkit.inference.predictor import Prediction, Text

ROWS = 3 * CHUNK_ROWS


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "in.csv", ("text",), [(f"film {number}",) for number in range(ROWS)])


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the lines that were read so far."""
    seen: list[int] = []
    lines = delimited.lines

    def counted(*arguments: Any) -> Iterator[str]:
        for number, line in enumerate(lines(*arguments), start=1):
            seen.append(number)
            yield line

    monkeypatch.setattr(delimited, "lines", counted)
    return seen


class FakeRun:
    """Finds every text good."""

    labels = ("bad", "good")
    record = SimpleNamespace(is_pair=False, data=SimpleNamespace(columns={"text": "text"}))

    def __call__(self, texts: list[str]) -> list[Prediction]:
        return [Prediction("good", {"bad": 0.0, "good": 1.0})] * len(texts)


class Out(io.StringIO):
    """Notes how much had been read when each part was written."""

    def __init__(self, read: list[int]) -> None:
        super().__init__()
        self.read_lines, self.at_writes = read, list[int]()

    def write(self, text: str) -> int:
        self.at_writes.append(len(self.read_lines))
        return super().write(text)


def test_the_first_rows_come_before_the_rest_is_read(source: Path, read: list[int]) -> None:
    assert len(next(iter_texts(source, is_pair=False))) == 1024
    assert len(read) <= CHUNK_ROWS + 2


@pytest.mark.parametrize("as_json", [False, True])
def test_answers_are_written_while_the_file_is_read(
    source: Path, read: list[int], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    out = Out(read)
    monkeypatch.setattr(answers, "load", lambda *_, **__: FakeRun())
    monkeypatch.setattr(sys, "stdout", out)
    answers.predict_file(
        Path("run"), source, precision="auto", columns=(), encoding=None, quoting="auto", out=None, overwrite=False,
        as_json=as_json,
    )  # fmt: skip
    assert out.at_writes[0] <= CHUNK_ROWS + 2 < ROWS < len(read)
    assert len(out.getvalue().splitlines()) == ROWS + (not as_json)


def test_lines_of_standard_input_end_at_lf_and_nowhere_else() -> None:
    content = "the cat\rthe dog\r\nthe\u2028tree\n\nthe last".encode()
    # As Python opens standard input.
    piped = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
    assert answers.read_texts(["-"], piped) == ["the cat\rthe dog", "the\u2028tree", "", "the last"]


@pytest.mark.parametrize("row", ["a film\nof\rlines\r\n", ("a film\nof", "lines\r\n")])
def test_a_text_of_several_lines_has_one_line_of_answer(row: Text) -> None:
    line = answers._as_line(row, Prediction("good\nor so", {"good\nor so": 1.0}))
    assert len(line.splitlines()) == 1
    assert line.startswith("good or so\tgood or so 100.0")
    assert answers._as_json(row, Prediction("good", {"good": 1.0}))["text"] == row


def test_a_link_stays_and_the_file_that_it_names_is_written(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "file.csv")
    answers.write_rows(tmp_path / "link.csv", [{"text": "one"}], as_json=False)
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "file.csv").read_text(encoding="utf-8") == "text\none\n"


def test_a_device_is_left_alone() -> None:
    with pytest.raises(RunError, match="is no file"):
        answers.check_out(Path(os.devnull), overwrite=True)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("locale", ["utf-8", "latin-1", "ascii"])
def test_standard_input_is_the_same_text_whatever_wrote_it(mark: bytes, end: bytes, locale: str) -> None:
    content = io.BytesIO(mark + "café".encode() + end + b"tea" + end)
    assert answers.read_texts(["-"], io.TextIOWrapper(content, locale, newline="\n")) == ["café", "tea"]


def test_standard_input_that_is_closed_is_empty() -> None:
    with pytest.raises(DataError, match="Standard input is empty"):
        answers.read_texts(["-"], None)
