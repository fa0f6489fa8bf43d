"""The tokenizers of a translator, and the rows as they see them."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from transferkit.config import TokenizerConfig
from transferkit.data.parallel import ParallelData
from transferkit.errors import ConfigError, DataError
from transferkit.parsing import build
from transferkit.tokenization.parallel import Tokenizers, tokenize

ROWS = [(f"the red house number {n % 7} is big", f"la casa rossa numero {n % 7} è grande") for n in range(40)]


def data(rows: list[tuple[str, str]] = ROWS, languages: tuple[str, str] = ("en", "it")) -> ParallelData:
    part = datasets.Dataset.from_dict({"source": [s for s, _ in rows], "target": [t for _, t in rows]})
    return ParallelData({"train": part, "validation": part, "test": part}, languages, "here", 0, 0, ())


@pytest.mark.parametrize("kind", ["word", "bpe", "wordpiece"])
@pytest.mark.parametrize("joint", [True, False])
def test_they_are_saved_and_read_back(tmp_path: Path, kind: str, joint: bool) -> None:
    built = Tokenizers.build(data(), TokenizerConfig(kind=kind, joint=joint, vocabulary=200))
    assert built.is_joint == joint
    built.save(tmp_path / "tokenizer")
    for folder in (tmp_path, tmp_path / "tokenizer"):
        read = Tokenizers.load(folder)
        assert (read.hash(), read.is_joint) == (built.hash(), joint)
    again = Tokenizers.build(data(), TokenizerConfig(folder=str(tmp_path)))
    assert again.source.encode([ROWS[0][0]]) == built.source.encode([ROWS[0][0]])


def test_each_language_has_its_own_words_unless_they_are_joint() -> None:
    apart = Tokenizers.build(data(), TokenizerConfig(kind="word", joint=False))
    assert apart.source.names(apart.source.encode(["casa"])[0]) == ("[UNK]",)
    assert apart.target.names(apart.target.encode(["casa"])[0]) == ("casa",)
    joint = Tokenizers.build(data(), TokenizerConfig(kind="word"))
    assert joint.source.names(joint.source.encode(["casa"])[0]) == ("casa",)


def test_rows_end_with_the_end_token_and_give_the_text_back() -> None:
    tokenizers = Tokenizers.build(data(), TokenizerConfig(vocabulary=200))
    tokenized = tokenize(data(), "train", tokenizers, 128, is_strict=False)
    assert len(tokenized.table) == len(ROWS)
    ids = tokenized.table.targets[3].tolist()
    assert ids[-1] == tokenizers.target.end_id
    assert tokenizers.target.decode([ids]) == [ROWS[3][1]]
    assert tokenized.lengths[1][3] == len(ids)
    assert tokenized.unknown == 0


def test_rows_that_are_too_long_are_left_out_and_counted() -> None:
    rows = [*ROWS[:5], ("the " * 50, "la"), ("the", "la " * 50), *ROWS[5:]]
    tokenizers = Tokenizers.build(data(), TokenizerConfig(kind="word"))
    tokenized = tokenize(data(rows), "train", tokenizers, 20, is_strict=False)
    assert tokenized.too_long == 2
    assert tokenized.kept.tolist() == [0, 1, 2, 3, 4, *range(7, 42)]
    assert len(tokenized.table) == 40
    with pytest.raises(DataError, match=r"Row 6 of train \('the the .*\) has 51 and 2 tokens, more than --max-length"):
        tokenize(data(rows), "train", tokenizers, 20, is_strict=True)
    with pytest.raises(DataError, match="Every train row is longer than 2 tokens"):
        tokenize(data(), "train", tokenizers, 2, is_strict=False)


def test_words_that_the_vocabulary_lacks_are_counted() -> None:
    tokenizers = Tokenizers.build(data(), TokenizerConfig(kind="word"))
    tokenized = tokenize(data([("the zebra sleeps", "la zebra")]), "train", tokenizers, 20, is_strict=False)
    assert tokenized.unknown == 3


def test_a_folder_without_tokenizers_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path / "nope", tmp_path):
        with pytest.raises(DataError, match=f"There are no tokenizers in {folder}; name the folder of a whole"):
            Tokenizers.build(data(), TokenizerConfig(folder=str(folder)))


def test_one_of_two_that_is_missing_is_named(tmp_path: Path) -> None:
    Tokenizers.build(data(), TokenizerConfig(kind="word", joint=False)).save(tmp_path)
    (tmp_path / "target.json").unlink()
    with pytest.raises(DataError, match=r"target\.json holds no tokenizer"):
        Tokenizers.load(tmp_path)


def test_a_folder_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    built = Tokenizers.build(data(), TokenizerConfig(kind="word", joint=False))
    built.save(tmp_path / "run" / "tokenizer")
    assert Tokenizers.build(data(), TokenizerConfig(folder="~/run")).hash() == built.hash()
    (tmp_path / "run" / "run.json").write_text('{"data": {"languages": ["it", "en"]}}', encoding="utf-8")
    with pytest.raises(ConfigError, match="turn it round"):
        Tokenizers.build(data(), TokenizerConfig(folder="~/run"))


@pytest.mark.parametrize("joint", [True, False])
def test_those_of_a_run_the_other_way_round_are_refused_unless_they_are_joint(tmp_path: Path, joint: bool) -> None:
    built = Tokenizers.build(data(), TokenizerConfig(kind="word", joint=joint))
    built.save(tmp_path / "tokenizer")
    turned = data([(target, source) for source, target in ROWS], languages=("it", "en"))
    for folder in (tmp_path, tmp_path / "tokenizer"):
        config = TokenizerConfig(folder=str(folder))
        (tmp_path / "run.json").unlink(missing_ok=True)
        assert Tokenizers.build(turned, config).hash() == built.hash(), "no run says which way they are"
        (tmp_path / "run.json").write_text('{"data": {"languages": ["en", "it"]}}', encoding="utf-8")
        assert Tokenizers.build(data(), config).hash() == built.hash()
        if joint:
            assert Tokenizers.build(turned, config).hash() == built.hash()
            continue
        with pytest.raises(ConfigError, match=r"are from 'en' into 'it', and the data is from 'it' into 'en'; turn it"):
            Tokenizers.build(turned, config)


def test_settings_of_training_have_no_effect_on_tokenizers_that_are_trained() -> None:
    with pytest.raises(ConfigError, match=r"vocabulary has no effect with tokenizer\.folder"):
        build(TokenizerConfig, {"folder": "x", "vocabulary": 100}, "settings")
