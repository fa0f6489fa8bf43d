from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transferkit.data.prediction_input import iter_texts
from transferkit.data.text_lines import FileOptions
from transferkit.errors import ConfigError, DataError

WriteCsv = Callable[..., Path]


def test_rows_come_in_batches_with_all_their_cells(write_csv: WriteCsv) -> None:
    path = write_csv("in.csv", ["id", "review"], [(i, f"text {i}") for i in range(9000)])
    batches = list(iter_texts(path, is_pair=False))
    assert {len(batch) for batch in batches[:-1]} == {1024}
    rows = [row for batch in batches for row in batch]
    assert rows[8500] == ({"id": "8500", "review": "text 8500"}, ("text 8500",))
    assert len(rows) == 9000


def test_columns_named_trained_on_and_usual_in_this_order(write_csv: WriteCsv) -> None:
    path = write_csv("in.csv", ["text", "notes", "remarks"], [("a", "b", "c")])

    def first(**columns: list[str]) -> tuple[str, ...]:
        return next(iter_texts(path, is_pair=False, **columns))[0][1]  # type: ignore[arg-type]

    assert first(named=["remarks"], usual=["notes"]) == ("c",)
    assert first(usual=["notes"]) == ("b",)
    assert first(usual=["absent"]) == ("a",)
    with pytest.raises(DataError, match=r"no column 'noets'. Did you mean notes"):
        first(named=["noets"])
    notes: list[str] = []
    iter_texts(path, is_pair=False, usual=["absent"], said=notes.append)
    assert notes == [f"{path} has no column 'absent'; read is 'text'. --column names another."]
    iter_texts(path, is_pair=False, usual=["notes"], said=notes.append)
    iter_texts(path, is_pair=False, named=["remarks"], usual=["absent"], said=notes.append)
    assert len(notes) == 1
    strange = write_csv("strange.csv", ["a", "b"], [("x", "y")])
    with pytest.raises(DataError, match=r"no text column has a usual name .* Name it with --column"):
        iter_texts(strange, is_pair=False)


@pytest.mark.parametrize(
    ("named", "is_pair", "message"),
    [
        (["a", "b"], False, "reads single texts, and --column names 'a', 'b'; name one column"),
        (["a", "a"], False, "reads single texts, and --column names 'a', 'a'; name one column"),
        (["a"], True, "reads pairs of texts, and --column names 'a'; name two columns"),
        (["a", "a"], True, "reads pairs of texts, and --column names 'a', 'a'; name two columns"),
        (["a", "b", "c"], True, "reads pairs of texts, and --column names 'a', 'b', 'c'; name two columns"),
    ],
)
def test_one_column_is_named_for_each_text(write_csv: WriteCsv, named: list[str], is_pair: bool, message: str) -> None:
    path = write_csv("in.csv", ["a", "b", "c"], [("x", "y", "z")])
    with pytest.raises(ConfigError, match=message):
        list(iter_texts(path, is_pair=is_pair, named=named))


def test_pairs_from_json_lines_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"text_a": "x", "text_b": "y", "n": 3}))
    pq.write_table(pa.table({"text_a": ["x"], "text_b": ["y"], "n": [3]}), tmp_path / "in.parquet")
    for name in ("in.jsonl", "in.parquet"):
        assert list(iter_texts(tmp_path / name, is_pair=True)) == [
            [({"text_a": "x", "text_b": "y", "n": "3"}, ("x", "y"))]
        ]


@pytest.mark.parametrize("name", ["in.csv", "in.tsv", "in.jsonl", "in.parquet"])
def test_a_column_that_the_answers_would_replace_is_refused_by_the_call(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"text": ["x"], "answer": ["mine"]}), path)
    elif name.endswith(".jsonl"):
        path.write_text('{"text": "x", "answer": "mine"}\n')
    else:
        path.write_text("text,answer\nx,mine\n".replace(",", "\t" if name.endswith(".tsv") else ","))
    with pytest.raises(DataError, match=f"{name} has a column 'answer' already, .*; rename it"):
        iter_texts(path, is_pair=False, added=["score", "answer"])
    assert len(list(iter_texts(path, is_pair=False, added=["score"]))) == 1


def test_lists_and_objects_of_parquet_keep_their_values(tmp_path: Path) -> None:
    columns = {
        "text": ["x", "y"],
        "tags": [["a", None], None],
        "meta": [{"score": 0.5, "at": date(2026, 1, 2)}, {"score": math.nan, "at": None}],
        "names": [{"en": "x", "it": "z"}, {"en": "y", "it": None}],
        "counts": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    (first, _), (second, _) = next(iter_texts(tmp_path / "in.parquet", is_pair=False))
    assert first == {
        "text": "x",
        "tags": ["a", None],
        "meta": {"score": 0.5, "at": "2026-01-02"},
        "names": {"en": "x", "it": "z"},
        "counts": [["a", 1]],
    }
    assert second == {
        "text": "y",
        "tags": None,
        "meta": {"score": None, "at": None},
        "names": {"en": "y", "it": None},
        "counts": [],
    }


@pytest.mark.parametrize("blank", ["\u200b", "\ufeff \u200b"])
def test_a_text_that_training_drops_is_empty_here_too(write_csv: WriteCsv, blank: str) -> None:
    path = write_csv("in.csv", ["text", "id"], [("words", 1), (blank, 2)])
    with pytest.raises(DataError, match="line 3: the column 'text' is empty"):
        list(iter_texts(path, is_pair=False))


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(1)])
def test_bytes_are_no_text(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"text": pa.array([b"a"], kind)}), tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"in.parquet: the column 'text' holds bytes, not text; name"):
        iter_texts(tmp_path / "in.parquet", is_pair=False)


@pytest.mark.parametrize("name", ["tags", "names"])
def test_lists_and_objects_are_no_text(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({"tags": [["a"]], "names": [{"en": "x"}]}), tmp_path / "in.parquet")
    with pytest.raises(DataError, match=f"in.parquet: the column {name!r} holds lists or structures, not text; name"):
        iter_texts(tmp_path / "in.parquet", is_pair=False, named=[name])


def test_a_row_without_text_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('text,id\n"two\nlines",1\n ,2\n')
    with pytest.raises(DataError, match="line 4: the column 'text' is empty"):
        list(iter_texts(path, is_pair=False))
    assert [texts for _, texts in next(iter_texts(path, is_pair=False, may_be_empty=True))] == [("two\nlines",), (" ",)]


def test_mistakes_of_path_and_options(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", "~nosuchuser/absent.csv"):
        with pytest.raises(DataError, match="There is no file"):
            list(iter_texts(path, is_pair=False))
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "in.parquet")
    with pytest.raises(ConfigError, match="--encoding has no effect"):
        list(iter_texts(tmp_path / "in.parquet", is_pair=False, options=FileOptions(encoding="latin-1")))


def test_a_file_with_columns_and_no_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("id,text\n", encoding="utf-8")
    with pytest.raises(DataError, match="has columns and no rows"):
        iter_texts(tmp_path / "empty.csv", is_pair=False)


def test_a_key_that_comes_late_is_refused_and_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transferkit.data.json_lines.CHUNK_ROWS", 2)
    rows = [{"text": "one"}, {"text": "two"}, {"text": "three", "note": "late"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError, match=r"line 3: has the key 'note', which none of the first 2 rows has"):
        list(iter_texts(tmp_path / "rows.jsonl", is_pair=False))
    rows[0]["note"] = "early"
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert [row["note"] for batch in iter_texts(tmp_path / "rows.jsonl", is_pair=False) for row, _ in batch] == [
        "early", "", "late"
    ]  # fmt: skip
