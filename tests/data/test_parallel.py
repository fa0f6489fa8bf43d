"""Sentences and their translations: sources, splits, and what is refused."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import datasets
import pytest

from transferkit.config import ParallelDataConfig
from transferkit.data.parallel import ParallelData, prepare_parallel
from transferkit.errors import ConfigError, DataError

SHARED = Path(os.environ.get("TRANSFERKIT_DATA", Path(__file__).parents[3] / "shared" / "data")) / "en_it"


def pairs(number: int) -> list[tuple[str, str]]:
    return [(f"the house number {n}", f"la casa numero {n}") for n in range(number)]


def tsv(path: Path, rows: list[tuple[str, str]], header: str = "en\tit") -> Path:
    path.write_text("\n".join([header, *("\t".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return path


def read(source: object, **settings: object) -> ParallelData:
    return prepare_parallel(ParallelDataConfig.model_validate({"source": str(source), **settings}))


def rows(data: ParallelData) -> dict[str, list[tuple[str, str]]]:
    return {split: list(zip(part["source"], part["target"], strict=True)) for split, part in data.splits.items()}


def test_a_table_is_split_ninety_to_ten_with_a_seed(tmp_path: Path) -> None:
    path = tsv(tmp_path / "a.tsv", pairs(200))
    data = read(path)
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 180, "validation": 10, "test": 10}
    assert data.languages == ("en", "it")
    assert sorted(row for part in rows(data).values() for row in part) == sorted(pairs(200))
    assert rows(read(path)) == rows(data)
    assert rows(read(path, split_seed=1)) != rows(data)


def test_sizes_take_the_place_of_shares(tmp_path: Path) -> None:
    data = read(tsv(tmp_path / "a.tsv", pairs(100)), test_size=30, validation_size=20, train_size=10)
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 10, "validation": 20, "test": 30}


def test_the_languages_may_be_turned_round(tmp_path: Path) -> None:
    data = read(tsv(tmp_path / "a.tsv", pairs(20)), languages=("it", "en"))
    assert rows(data)["test"][0][0].startswith("la casa")


@pytest.mark.parametrize("form", ["jsonl", "struct", "saved", "parquet"])
def test_a_column_translation_holds_both_languages(tmp_path: Path, form: str) -> None:
    objects = [{"id": n, "translation": {"en": one, "it": other}} for n, (one, other) in enumerate(pairs(20))]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in objects), encoding="utf-8")
    if form in ("saved", "struct"):
        path = tmp_path / "saved"
        saved = datasets.Dataset.from_list(objects)
        (datasets.DatasetDict(train=saved) if form == "saved" else saved).save_to_disk(path)
    elif form == "parquet":
        path = tmp_path / "rows.parquet"
        datasets.Dataset.from_list(objects).to_parquet(path)
    data = read(path, languages=("en", "it"))
    assert sorted(row for part in rows(data).values() for row in part) == sorted(pairs(20))


def test_two_files_whose_lines_belong_together(tmp_path: Path) -> None:
    source, target = tmp_path / "x.en.gz", tmp_path / "x.it.gz"
    for path, side in ((source, 0), (target, 1)):
        path.write_bytes(gzip.compress("".join(f"{row[side]}\n" for row in pairs(50)).encode()))
    data = read(source, target_file=str(target))
    assert data.languages == ("en", "it")
    assert read(source, target_file=str(target), languages=("English", "Italian")).languages == ("English", "Italian")
    assert sorted(row for part in rows(data).values() for row in part) == sorted(pairs(50))


def test_the_built_in_pairs() -> None:
    data = prepare_parallel(ParallelDataConfig())
    assert data.languages == ("english", "italian")
    assert sum(len(part) for part in data.splits.values()) + data.leaked > 700


def test_rows_without_a_side_are_counted_and_left_out(tmp_path: Path) -> None:
    data = read(tsv(tmp_path / "a.tsv", [*pairs(40), ("alone", " "), (" ", "sola")]))
    assert data.empty == 2
    assert "2 rows without source or target left out." in data.notes
    assert not any(side.strip() == "" for part in rows(data).values() for row in part for side in row)


@pytest.mark.parametrize("side", [0, 1])
def test_a_row_with_a_side_in_a_later_split_is_taken_out(tmp_path: Path, side: int) -> None:
    test = pairs(5)
    train = [*[("the door", "la porta")] * 3, *((f"window {n}", f"finestra {n}") for n in range(30))]
    shared = ["something else", "altro"]
    shared[side] = test[2][side]
    data = read(
        tsv(tmp_path / "train.tsv", [*train, (shared[0], shared[1])]),
        test=str(tsv(tmp_path / "test.tsv", test)), validation_size=3,
    )  # fmt: skip
    assert rows(data)["test"] == test
    assert data.leaked >= 1
    assert not any(row[side] == test[2][side] for split in ("train", "validation") for row in rows(data)[split])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"languages": ("en", "fr")}, r"no text column 'fr', only en, it\."),
        ({"languages": ("en", "en")}, "names 'en' twice"),
        ({"test_size": 30}, "too few to draw 30 for test"),
        ({"train_size": 30}, "--train-size is 30, and there are"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, settings: dict[str, object], said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        read(tsv(tmp_path / "a.tsv", pairs(20)), **settings)


def test_more_than_two_columns_want_a_choice(tmp_path: Path) -> None:
    path = tsv(tmp_path / "a.tsv", [("a\tb", "c")], header="en\tit\tnote")
    with pytest.raises(DataError, match="has the text columns en, it, note; say with --pair"):
        read(path)


def test_files_of_unequal_length_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "x.en", tmp_path / "x.it"
    one.write_text("a\nb\nc\n", encoding="utf-8")
    other.write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"x.it ends after 2 lines and .*x.en goes on"):
        read(one, target_file=str(other))


@pytest.mark.parametrize("content", [b"", b"caff\xe8\n"])
def test_files_that_hold_no_text_are_refused(tmp_path: Path, content: bytes) -> None:
    one, other = tmp_path / "x.en", tmp_path / "x.it"
    one.write_bytes(content)
    other.write_bytes(content)
    with pytest.raises(DataError, match=r"empty; there is nothing|line 1: byte 0xE8 at offset 4"):
        read(one, target_file=str(other))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no file .*x\.it"):
        read(tsv(tmp_path / "x.en", pairs(3)), target_file=str(tmp_path / "x.it"))


def test_a_setting_without_effect_on_the_built_in_pairs_is_refused() -> None:
    with pytest.raises(ConfigError, match="languages has no effect on the built-in"):
        prepare_parallel(ParallelDataConfig(languages=("en", "it")))


def test_a_column_translation_without_objects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"translation": "hello"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="does not hold an object of texts by language"):
        read(path)


@pytest.mark.skipif(not SHARED.is_dir() and "CI" not in os.environ, reason=f"{SHARED} is not on this machine")
def test_real_pairs_of_both_forms() -> None:
    help_texts = read(SHARED / "libreoffice_help.en-it.tsv.gz", test_size=1000, validation_size=500)
    assert {split: len(part) for split, part in help_texts.splits.items()} == {
        "train": 18694, "validation": 500, "test": 1000,
    }  # fmt: skip
    europarl = read(SHARED / "europarl57k.en.gz", target_file=str(SHARED / "europarl57k.it.gz"))
    assert europarl.languages == ("en", "it")
    assert sum(len(part) for part in europarl.splits.values()) + europarl.leaked + europarl.empty == 57_500
