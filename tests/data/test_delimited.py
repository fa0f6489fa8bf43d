from __future__ import annotations

from pathlib import Path

import pytest

from transferkit.data import tabular
from transferkit.data.text_lines import FileOptions
from transferkit.errors import DataError


def read(path: Path, content: str | bytes, **options: str) -> dict[str, list[str | None]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    columns: dict[str, list[str | None]] = (
        tabular.read(path, FileOptions(**options)).splits["train"].columns.to_pydict()  # type: ignore[arg-type]
    )
    return columns


def test_csv_cells_may_hold_separators_quotes_and_line_ends(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", 'text,label\r\n"one, ""two""\r\nthree",x\r\n"",y\r\n')
    assert found == {"text": ['one, "two"\r\nthree', ""], "label": ["x", "y"]}


def test_quotes_are_text_in_tsv_unless_asked_otherwise(tmp_path: Path) -> None:
    content = 'text\tlabel\n"a" b\t1\n"c"\t2\n'
    assert read(tmp_path / "a.tsv", content)["text"] == ['"a" b', '"c"']
    quoted = content.replace('"a" b', '"a\tb"')
    assert read(tmp_path / "a.tsv", quoted, quoting="csv")["text"] == ["a\tb", "c"]


def test_quoting_none_reads_quotes_of_csv_as_text(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", 'text,label\n5" pipe,1\n', quoting="none")["text"] == ['5" pipe']


def test_a_txt_file_with_tabs_is_tsv(tmp_path: Path) -> None:
    assert read(tmp_path / "a.txt", 'text\tlabel\n"a\t1\n') == {"text": ['"a'], "label": ["1"]}
    with pytest.raises(DataError, match="no tabs in its first line"):
        read(tmp_path / "b.txt", "just words\n")


def test_blank_lines_are_passed_over_and_spaces_around_column_names_do_not_count(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "text, label\n\na,1\n\n")["label"] == ["1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("text,label\n", "columns and no rows"),
        ("text,label\na,1\nb\n", "line 3: the row has 1 cells and the header has 2"),
        ("text,label\na,1\nb,2,3\n", "line 3: the row has 3 cells"),
        ('text,label\n"a\nb",1\nc\n', "line 4: the row has 1 cells"),
        ('text,label\na,1\n"b"c,2\n', "line 3: the row is mis-quoted"),
        ('text,label\na,1\nb "c",2\n', "line 3: the row is mis-quoted: a quote stands inside"),
        ('text,label\na,1\n"b,2\nc,3\n', "line 3: the row is mis-quoted: a quote is opened and never closed"),
        ("text,label,text\na,1,b\n", "line 1: the column name 'text' stands more than once"),
        ("text;label\na;1\n", "separated by ';', and ',' is expected"),
        (b"text,label\na\0b,1\n", "line 2: holds a NUL byte"),
    ],
)
def test_broken_files_are_refused_with_their_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=r"a.csv.*" + message):
        read(tmp_path / "a.csv", content)


def test_a_cell_may_be_as_long_as_a_book(tmp_path: Path) -> None:
    assert len(read(tmp_path / "a.csv", "text,label\n" + "x" * 300_000 + ",1\n")["text"][0] or "") == 300_000


def test_rows_of_many_chunks_keep_their_order(tmp_path: Path) -> None:
    content = "text,label\n" + "".join(f"{i},{i % 2}\n" for i in range(20_000))
    assert read(tmp_path / "a.csv", content)["text"] == [str(i) for i in range(20_000)]
