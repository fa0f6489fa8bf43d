from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from transferkit.data import folders
from transferkit.data.tables import Source
from transferkit.data.text_lines import FileOptions
from transferkit.errors import DataError


def read(path: Path) -> Source:
    return folders.read(path, FileOptions())


def put(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = root / (name.replace("__", "/") + ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_layout_of_acl_imdb(tmp_path: Path) -> None:
    put(
        tmp_path,
        train__pos__0_9="great",
        train__pos__1_7="fine",
        train__neg__0_1="bad",
        train__unsup__0_0="?",
    )
    put(tmp_path, test__neg__0_2="awful")
    (tmp_path / "imdb.vocab").write_text("the")
    source = read(tmp_path)
    assert source.splits["train"].columns.to_pydict() == {
        "text": ["bad", "great", "fine"],
        "label": ["neg", "pos", "pos"],
    }
    assert source.splits["test"].columns.to_pydict() == {"text": ["awful"], "label": ["neg"]}
    assert any("unsup is left aside" in note for note in source.notes)


def test_a_flat_folder_of_labels(tmp_path: Path) -> None:
    put(tmp_path, pos__a="great", neg__b="bad")
    assert list(read(tmp_path).splits) == ["train"]


def test_an_undecodable_text_is_named(tmp_path: Path) -> None:
    put(tmp_path, pos__a="great", neg__b="bad")
    (tmp_path / "neg" / "b.txt").write_bytes(b"fine\n\xff")
    with pytest.raises(DataError, match=r"neg/b\.txt, line 2: byte 0xFF at offset 5"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["validation", "dev", "valid"])
def test_a_folder_with_a_table_for_each_split(tmp_path: Path, name: str) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,1\n")
    (tmp_path / f"{name}.tsv").write_text("text\tlabel\nb\t1\n")
    (tmp_path / "test.jsonl").write_text('{"text": "c", "label": 1}\n')
    (tmp_path / "extra.csv").write_text("text,label\nd,1\n")
    source = read(tmp_path)
    texts = {split: table.columns["text"].to_pylist() for split, table in source.splits.items()}
    assert texts == {"train": ["a"], "validation": ["b"], "test": ["c"]}
    assert any("extra.csv left aside" in note for note in source.notes)


def test_folders_without_a_clear_training_table_are_refused(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("text,label\na,1\n")
    with pytest.raises(DataError, match=r"reviews\.csv but no file train"):
        read(tmp_path)
    (tmp_path / "train.csv").write_text("text,label\na,1\n")
    (tmp_path / "train.tsv").write_text("text\tlabel\na\t1\n")
    with pytest.raises(DataError, match=r"train\.csv and train\.tsv, both for train"):
        read(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data in a layout known here"):
        read(tmp_path)


def test_saved_data_sets(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 0]})
    rows.select([2, 0]).save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=rows, dev=rows, unsupervised=rows).save_to_disk(str(tmp_path / "many"))
    assert read(tmp_path / "one").splits["train"].columns["text"].to_pylist() == ["c", "a"]
    many = read(tmp_path / "many")
    assert list(many.splits) == ["train", "validation"]
    assert many.notes == (f"{tmp_path / 'many'}: the split unsupervised is left aside.",)


def test_a_data_set_without_a_training_split_names_its_splits(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a"], "label": [0]})
    with pytest.raises(DataError, match="no split called train; it has one, two"):
        folders.from_dataset_dict(datasets.DatasetDict(one=rows, two=rows), "x")
    assert list(folders.from_dataset_dict(datasets.DatasetDict(one=rows), "x").splits) == ["train"]
