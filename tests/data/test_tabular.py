from __future__ import annotations

import gzip
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transferkit.data import tabular
from transferkit.data.tables import Table
from transferkit.data.text_lines import FileOptions
from transferkit.errors import ConfigError, DataError


def read(path: Path) -> Table:
    return tabular.read(path, FileOptions()).splits["train"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz"])
def test_json_lines_become_text_columns(tmp_path: Path, name: str) -> None:
    rows = [{"text": "a\nb", "label": 1}, {"label": True, "text": None}, {"text": "ü", "more": [1]}]
    content = "\n\n".join(json.dumps(row) for row in rows).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read(tmp_path / name).columns.to_pydict() == {
        "text": ["a\nb", None, "ü"],
        "label": ["1", "true", None],
        "more": [None, None, "[1]"],
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "line 2: not JSON"),
        ('["a"]', "line 2: holds a JSON list; each line must be one object"),
        ('{"text": "\\ud83d"}', "line 2: holds half of a surrogate pair"),
        (f'{{"text": {"9" * 5000}}}', "line 2: holds a number of thousands of digits"),
        (f'{{"text": {"[" * 100_000}', "line 2: holds a number .* or thousands of brackets"),
    ],
)
def test_broken_json_lines_are_refused_with_their_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.jsonl")


def test_half_a_character_in_a_key_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine", "\\ud83d": "x"}\n')
    with pytest.raises(DataError, match="line 1: holds half of a surrogate pair"):
        read(tmp_path / "a.jsonl")


def test_parquet_text_is_plain_whatever_its_storage(tmp_path: Path) -> None:
    columns = {
        "plain": ["a", "b"],
        "large": pa.array(["a", "b"], pa.large_string()),
        "view": pa.array(["a", "b"], pa.string_view()),
        "coded": pa.array(["a", "b"]).dictionary_encode(),
        "number": [1, 2],
        "nested": [["a"], ["b"]],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    table = read(tmp_path / "a.parquet").columns
    assert {str(table.schema.field(name).type) for name in ("plain", "large", "view", "coded")} == {"string"}
    assert table["coded"].to_pylist() == ["a", "b"]
    assert table["number"].to_pylist() == [1, 2]
    assert pa.types.is_nested(table.schema.field("nested").type)
    assert table["nested"].null_count == 2, "nothing learns from lists, and they may be large"


def test_parquet_of_a_data_set_keeps_the_names_of_its_classes(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    rows = datasets.Dataset.from_dict({"text": ["one", "two", "three"], "label": [1, 0, -1]}, features=features)
    pq.write_table(rows.data.table, tmp_path / "a.parquet")
    label = read(tmp_path / "a.parquet").columns["label"]
    assert label.to_pylist() == ["a", "z", None]
    assert label.chunk(0).dictionary.to_pylist() == ["z", "a"]


def test_what_is_not_parquet_and_what_is_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"ends in '.xlsx'; give CSV"):
        read(tmp_path / "a.xlsx")


def test_parquet_columns_of_one_name_are_refused_even_if_nothing_reads_them(tmp_path: Path) -> None:
    table = pa.table([pa.array([name]) for name in "abcd"], names=["text", "note", "label", "note"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet: the column name 'note' stands more than once; give each column"):
        read(tmp_path / "a.parquet")


def test_parquet_whose_first_page_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b"]}), path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 16 + content[20:])
    with pytest.raises(DataError, match=r"a.parquet cannot be read as Parquet: .* thrift.*; fetch or write the file"):
        read(path)


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    latin = pa.array([b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"text": latin}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet cannot be read as Parquet: .*UTF8"):
        read(tmp_path / "a.parquet")


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="columns and no rows"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("options", "used", "name"),
    [
        (FileOptions(encoding="utf-8"), {"quoting"}, "encoding"),
        (FileOptions(quoting="csv"), {"encoding"}, "quoting"),
    ],
)
def test_options_without_effect_are_refused(options: FileOptions, used: set[str], name: str) -> None:
    with pytest.raises(ConfigError, match=f"--{name} has no effect on a.parquet"):
        tabular.refuse_idle(options, frozenset(used), "a.parquet")
    tabular.refuse_idle(options, frozenset({"encoding", "quoting"}), "a.csv")
