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


def test_json_lines_may_have_a_key_for_each_language(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"en": one, "it": other}) for one, other in pairs(20)), encoding="utf-8")
    data = read(path)
    assert data.languages == ("en", "it")
    assert sorted(row for part in rows(data).values() for row in part) == sorted(pairs(20))
    turned = read(path, languages=("it", "en"))
    assert rows(turned)["test"] == [(target, source) for source, target in rows(data)["test"]]


def test_two_files_whose_lines_belong_together(tmp_path: Path) -> None:
    source, target = tmp_path / "x.en.gz", tmp_path / "x.it.gz"
    for path, side in ((source, 0), (target, 1)):
        path.write_bytes(gzip.compress("".join(f"{row[side]}\n" for row in pairs(50)).encode()))
    data = read(source, target_file=str(target))
    assert data.languages == ("en", "it")
    assert read(source, target_file=str(target), languages=("English", "Italian")).languages == ("English", "Italian")
    assert sorted(row for part in rows(data).values() for row in part) == sorted(pairs(50))


def test_lines_that_belong_together_end_at_lf_and_nowhere_else(tmp_path: Path) -> None:
    source, target = tmp_path / "x.en", tmp_path / "x.it"
    # In both files a CR, in other lines: the numbers of lines are equal however lines are counted.
    sources = ["the\rhouse number 0", *(one for one, _ in pairs(50)[1:])]
    targets = [*(other for _, other in pairs(50)[:-1]), "la casa\rnumero\u2028\x0b49"]
    source.write_bytes("".join(f"{line}\r\n" for line in sources).encode())
    target.write_bytes("".join(f"{line}\n" for line in targets).encode())
    found = sorted(row for part in rows(read(source, target_file=str(target))).values() for row in part)
    assert found == sorted(zip(sources, targets, strict=True))


def test_the_built_in_pairs() -> None:
    data = prepare_parallel(ParallelDataConfig())
    assert data.languages == ("english", "italian")
    assert sum(len(part) for part in data.splits.values()) + data.leaked == 767
    assert ("What is AI?", "Cos'è l'intelligenza artificiale?") in [row for part in rows(data).values() for row in part]
    assert any("humor" in note and "do not match turn by turn" in note for note in data.notes)
    turned = prepare_parallel(ParallelDataConfig(languages=("italian", "english")))
    assert rows(turned)["test"] == [(target, source) for source, target in rows(data)["test"]]


def test_letters_and_their_accents_become_one_character(tmp_path: Path) -> None:
    data = read(tsv(tmp_path / "a.tsv", [(f"why {n}", f"perche\u0301 {n}") for n in range(40)]))
    assert {target for split in rows(data).values() for _, target in split} == {f"perch\u00e9 {n}" for n in range(40)}


def test_rows_without_a_side_are_counted_and_left_out(tmp_path: Path) -> None:
    data = read(tsv(tmp_path / "a.tsv", [*pairs(40), ("alone", " "), (" ", "sola")]))
    assert data.empty == 2
    assert "2 rows without source or target left out." in data.notes
    assert not any(side.strip() == "" for part in rows(data).values() for row in part for side in row)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_other_sources_are_read_in_the_languages_of_training(tmp_path: Path, split: str) -> None:
    turned = tsv(tmp_path / "other.tsv", [(target, source) for source, target in pairs(60)[50:]], header="it\ten")
    data = read(tsv(tmp_path / "a.tsv", pairs(50)), **{split: str(turned)})
    assert rows(data)[split] == pairs(60)[50:]


def test_another_source_of_several_splits_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("train", "test"):
        tsv(folder / f"{name}.tsv", pairs(10))
    with pytest.raises(DataError, match="given as validation data, has the splits train, test; name a file"):
        read(tsv(tmp_path / "a.tsv", pairs(50)), validation=str(folder))


def test_sizes_are_kept_though_rows_are_taken_out(tmp_path: Path) -> None:
    path = tsv(tmp_path / "a.tsv", [*pairs(50), *[pairs(60)[55]] * 40])
    data = read(path, test=str(tsv(tmp_path / "test.tsv", pairs(60)[55:])), train_size=40, validation_size=5)
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 40, "validation": 5, "test": 5}
    assert data.leaked == 40


def test_a_row_drawn_for_test_is_taken_out_of_validation_and_train(tmp_path: Path) -> None:
    data = read(tsv(tmp_path / "a.tsv", [(f"house {n % 30}", f"casa {n}") for n in range(120)]), test_fraction=0.2)
    seen = {split: {source for source, _ in own} for split, own in rows(data).items()}
    assert not seen["train"] & (seen["validation"] | seen["test"])
    assert not seen["validation"] & seen["test"]
    assert data.leaked == 120 - sum(len(part) for part in data.splits.values()) > 0
    assert len(data.splits["test"]) == 24


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
        ({"languages": ("en", "fr")}, r"no column or language 'fr'\. There is: en, it\."),
        ({"languages": ("en", "itt")}, r"no column or language 'itt'\. Did you mean it\?"),
        ({"languages": ("en", "en")}, "names 'en' twice"),
        ({"test_size": 30}, "too few to draw 30 for test"),
        ({"train_size": 30}, "--train-size is 30, and there are"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, settings: dict[str, object], said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        read(tsv(tmp_path / "a.tsv", pairs(20)), **settings)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_share_beside_a_size_is_refused(tmp_path: Path, split: str) -> None:
    with pytest.raises(ConfigError, match=f"data.{split}_fraction has no effect"):
        read(tsv(tmp_path / "a.tsv", pairs(40)), **{f"{split}_size": 4, f"{split}_fraction": 0.2})


def test_more_than_two_columns_want_a_choice(tmp_path: Path) -> None:
    path = tsv(tmp_path / "a.tsv", [("a\tb", "c")], header="one\ttwo\tnote")
    with pytest.raises(DataError, match="has the text columns one, two, note; say with --pair"):
        read(path)


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [
        ("en", "one", r"a\.tsv has the text column en alone; a translation needs two: .* --data and --target-data\."),
        ("id\tyear", "1\t2026", r"a\.tsv has no text column; a translation needs two"),
    ],
)
def test_fewer_than_two_columns_are_no_choice(tmp_path: Path, header: str, row: str, said: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"{header}\n{row}\n{row}\n", encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read(path)


@pytest.mark.parametrize(
    ("header", "row", "languages"),
    [
        ("id\ten\tit", "7\tone\tuno", ("en", "it")),
        ("note\ttarget\tsource", "seen\tuno\tone", ("source", "target")),
        ("note\ten-GB\tit", "seen\tone\tuno", ("en-GB", "it")),
        ("sentence\ttranslation", "one\tuno", ("sentence", "translation")),
    ],
)
def test_languages_are_found_by_their_usual_forms(
    tmp_path: Path, header: str, row: str, languages: tuple[str, str]
) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(
        "\n".join([header, *(row.replace("one", f"one {n}").replace("uno", f"uno {n}") for n in range(30))])
    )
    data = read(path)
    assert data.languages == languages
    assert {source.split()[0] for source in data.splits["train"]["source"]} == {"one"}
    assert {target.split()[0] for target in data.splits["train"]["target"]} == {"uno"}
    assert any("from" in note and "--pair says it otherwise" in note for note in data.notes)


def test_a_column_translation_of_plain_text_can_be_named(tmp_path: Path) -> None:
    path = tsv(tmp_path / "a.tsv", [(*row, "seen") for row in pairs(30)], header="sentence\ttranslation\tremark")  # type: ignore[list-item]
    assert read(path, languages=("sentence", "translation")).languages == ("sentence", "translation")


def test_two_files_can_be_turned_round_and_take_no_quoting(tmp_path: Path) -> None:
    one, other = tmp_path / "x.en", tmp_path / "x.it"
    for path, side in ((one, 0), (other, 1)):
        path.write_text("".join(f"{row[side]}\n" for row in pairs(20)), encoding="utf-8")
    assert rows(read(one, target_file=str(other), languages=("it", "en")))["test"][0][0].startswith("la casa")
    with pytest.raises(ConfigError, match="--quoting has no effect on"):
        read(one, target_file=str(other), quoting="csv")
    with pytest.raises(DataError, match="given as source and as target"):
        read(one, target_file=str(one))


@pytest.mark.parametrize("languages", [("it", "fr"), ("fr", "it"), ("en", "fr"), ("en", "en")])
def test_a_pair_that_contradicts_the_names_of_two_files_is_refused(tmp_path: Path, languages: tuple[str, str]) -> None:
    one, other = tmp_path / "x.en", tmp_path / "x.it"
    for path in (one, other):
        path.write_text("a\nb\nc\n", encoding="utf-8")
    said = f"--pair names '{languages[0]}' and '{languages[1]}', and the two files are called 'en' and 'it'; name these"
    with pytest.raises(ConfigError, match=said):
        read(one, target_file=str(other), languages=languages)


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no row with a source and a target"):
        read(tsv(tmp_path / "a.tsv", [("one", " "), (" ", "due")]))
    same = tsv(tmp_path / "b.tsv", [("the house", "la casa")] * 30)
    with pytest.raises(DataError, match="Every validation row also stands in test"):
        read(same)


@pytest.mark.parametrize(("number", "said"), [(1, "The data has 1 row, too few"), (2, "The data has 2 rows, too few")])
def test_too_few_rows_are_counted_in_words_that_fit(tmp_path: Path, number: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(tsv(tmp_path / "a.tsv", pairs(number)))


def test_files_of_unequal_length_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "x.en", tmp_path / "x.it"
    one.write_text("a\nb\nc\nd\n", encoding="utf-8")
    other.write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.en has 4 lines and .*x\.it has 2;"):
        read(one, target_file=str(other))


@pytest.mark.parametrize("content", [b"", b"caff\xe8\n"])
def test_files_that_hold_no_text_are_refused(tmp_path: Path, content: bytes) -> None:
    one, other = tmp_path / "x.en", tmp_path / "x.it"
    one.write_bytes(content)
    other.write_bytes(content)
    with pytest.raises(DataError, match=r"empty; there is nothing|line 1: byte 0xE8 at offset 4"):
        read(one, target_file=str(other))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for missing in (tmp_path / "x.it", "~nosuchuser/x.it"):
        with pytest.raises(DataError, match=r"There is no file .*x\.it"):
            read(tsv(tmp_path / "x.en", pairs(3)), target_file=str(missing))


def test_what_does_not_fit_the_built_in_pairs_is_refused() -> None:
    with pytest.raises(ConfigError, match="--encoding has no effect on chatterbot:english-italian"):
        prepare_parallel(ParallelDataConfig(encoding="latin-1"))
    with pytest.raises(DataError, match=r"There is: english, italian\."):
        prepare_parallel(ParallelDataConfig(languages=("en", "xx")))
    with pytest.raises(DataError, match="Did you mean chatterbot:english-italian"):
        prepare_parallel(ParallelDataConfig(source="chatterbot:english-italain"))


def test_objects_that_are_not_there_count_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    objects = [None, {"en": "alone"}, *({"en": one, "it": other} for one, other in pairs(20))]
    path.write_text("\n".join(json.dumps({"translation": row}) for row in objects), encoding="utf-8")
    assert read(path, languages=("en", "it")).empty == 2


@pytest.mark.parametrize("wrong", ['"hello"', '{"en": 1, "it": 2}', "[1]"])
def test_a_column_translation_with_something_else_is_refused(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"translation": {{"en": "a", "it": "b"}}}}\n{{"translation": {wrong}}}\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 2: the column translation does not hold an object of texts by language"):
        read(path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            r'{"en": "\ud83d x", "it": "y"}',
            r"the column translation: holds half of a surrogate pair .*; mend the escape",
        ),
        (r'{"\ud83d": "x", "it": "y"}', "the column translation: holds half of a surrogate pair"),
        ('{"en": "x", "it": ' + "9" * 5000 + "}", "the column translation does not hold an object of texts"),
        ("[" * 100_000, "the column translation does not hold an object of texts"),
    ],
    ids=["text", "key", "digits", "brackets"],
)
@pytest.mark.parametrize("form", ["parquet", "tsv"])
def test_json_in_a_cell_is_refused_as_json_lines_are(tmp_path: Path, form: str, wrong: str, said: str) -> None:
    cells = ['{"en": "a", "it": "b"}', wrong]
    path = tmp_path / f"rows.{form}"
    if form == "parquet":
        datasets.Dataset.from_dict({"translation": cells}).to_parquet(path)
    else:
        path.write_text("\n".join(["id\ttranslation", *(f"x\t{cell}" for cell in cells)]), encoding="utf-8")
    with pytest.raises(DataError, match=rf"rows\.{form}, row 2.*{said}"):
        read(path, languages=("en", "it"))


@pytest.mark.skipif(not SHARED.is_dir() and "CI" not in os.environ, reason=f"{SHARED} is not on this machine")
def test_real_pairs_of_both_forms() -> None:
    help_texts = read(SHARED / "libreoffice_help.en-it.tsv.gz", test_size=1000, validation_size=500)
    assert {split: len(part) for split, part in help_texts.splits.items()} == {
        "train": 18694, "validation": 500, "test": 1000,
    }  # fmt: skip
    europarl = read(SHARED / "europarl57k.en.gz", target_file=str(SHARED / "europarl57k.it.gz"))
    assert europarl.languages == ("en", "it")
    assert sum(len(part) for part in europarl.splits.values()) + europarl.leaked + europarl.empty == 57_500
