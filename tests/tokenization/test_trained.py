"""Trained tokenizers: what they learn, how text comes back, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from transferkit.errors import DataError
from transferkit.tokenization.trained import SPECIAL, Kind, TrainedTokenizer

TEXTS = [
    "The cat sat on the mat.",
    "The dog sat on the log.",
    "Where is the cat, and where is the dog?",
    "Città e perché.",
] * 3
KINDS: tuple[Kind, ...] = ("word", "bpe", "wordpiece")


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> TrainedTokenizer:
    return TrainedTokenizer.train(TEXTS, request.param, vocabulary=200)


def test_special_entries_come_first(tokenizer: TrainedTokenizer) -> None:
    ids = [tokenizer.unknown_id, tokenizer.padding_id, tokenizer.start_id, tokenizer.end_id]
    assert [tokenizer.backend.id_to_token(number) for number in ids] == list(SPECIAL)


def test_encoding_adds_no_start_and_no_end(tokenizer: TrainedTokenizer) -> None:
    (ids,) = tokenizer.encode(["The cat sat"])
    assert ids
    assert not set(ids) & {tokenizer.padding_id, tokenizer.start_id, tokenizer.end_id}
    assert tokenizer.encode([""]) == [[]]


def test_decoding_leaves_out_what_is_no_text(tokenizer: TrainedTokenizer) -> None:
    (ids,) = tokenizer.encode(["The cat sat"])
    framed = [tokenizer.start_id, *ids, tokenizer.end_id, tokenizer.padding_id]
    assert tokenizer.decode([framed, []]) == ["The cat sat", ""]


def test_saved_it_is_the_same(tokenizer: TrainedTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    again = TrainedTokenizer.load(tmp_path / "tokenizer.json")
    assert (again.hash(), len(again)) == (tokenizer.hash(), len(tokenizer))
    assert again.encode(TEXTS) == tokenizer.encode(TEXTS)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


# The library's WordPiece settles ties by chance: it is trained once, saved, and read from then on.
@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_training_gives_the_same_vocabulary_each_time(kind: Kind) -> None:
    first, second = (TrainedTokenizer.train(iter(TEXTS), kind, vocabulary=60) for _ in range(2))
    assert first.hash() == second.hash()


def test_the_vocabulary_stays_below_its_bound(tokenizer: TrainedTokenizer) -> None:
    small = TrainedTokenizer.train(TEXTS, "bpe", vocabulary=40)
    assert len(small) == 40
    assert len(tokenizer) <= 200


def test_bpe_gives_the_text_back_with_its_spaces_and_punctuation() -> None:
    tokenizer = TrainedTokenizer.train(TEXTS, "bpe", vocabulary=200)
    assert tokenizer.decode(tokenizer.encode(TEXTS)) == TEXTS


def test_wordpiece_joins_what_is_frequent_and_cuts_words_into_the_longest_parts() -> None:
    # a and b stand together ten times and hardly apart: a likelihood would join x and y first, which are rarer.
    texts = ["ab"] * 10 + ["xy"] * 3 + ["ba", "yx"]
    letters = {"a", "b", "x", "y", "##a", "##b", "##x", "##y"}
    tokenizer = TrainedTokenizer.train(texts, "wordpiece", vocabulary=len(SPECIAL) + len(letters) + 1)
    assert set(tokenizer.vocabulary()) == {*SPECIAL, *letters, "ab"}
    assert tokenizer.tokens("abb xy") == ["ab", "##b", "x", "##y"]


def test_words_are_cut_at_punctuation_and_rare_or_strange_ones_are_unknown() -> None:
    tokenizer = TrainedTokenizer.train([*TEXTS, "once"], "word")
    assert tokenizer.tokens("The cat, once: zebra.") == ["The", "cat", ",", "[UNK]", "[UNK]", "[UNK]", "."]
    assert tokenizer.decode(tokenizer.encode(["The zebra"])) == ["The [UNK]"]
    assert "once" in TrainedTokenizer.train([*TEXTS, "once"], "word", min_frequency=1).backend.get_vocab()


@pytest.mark.parametrize("kind", KINDS)
def test_more_characters_than_there_is_room_for_leave_out_the_rarest(kind: Kind) -> None:
    common, rare = [chr(0x4E00 + n) for n in range(20)], [chr(0x5E00 + n) for n in range(300)]
    tokenizer = TrainedTokenizer.train(common * 5 + rare * 2, kind, vocabulary=50)
    assert len(tokenizer) <= 50
    assert all(tokenizer.unknown_id not in ids for ids in tokenizer.encode(common))


@pytest.mark.parametrize("kind", KINDS)
def test_what_looks_like_a_special_entry_in_a_text_is_text(kind: Kind, tmp_path: Path) -> None:
    texts = ["press [PAD] or [EOS] for [SOS]"] * 3
    TrainedTokenizer.train(texts, kind, vocabulary=200).save(tmp_path / "tokenizer.json")
    tokenizer = TrainedTokenizer.load(tmp_path / "tokenizer.json")
    (ids,) = tokenizer.encode(texts[:1])
    assert min(ids) > tokenizer.end_id
    assert tokenizer.decode([ids])[0].replace(" ", "") == texts[0].replace(" ", "")


def test_composed_and_decomposed_letters_are_one() -> None:
    tokenizer = TrainedTokenizer.train(TEXTS, "word")
    assert tokenizer.encode(["Citta\u0300"]) == tokenizer.encode(["Citt\u00e0"]) != [[tokenizer.unknown_id]]


@pytest.mark.parametrize("texts", [[], ["", " "], ["every word once"]])
def test_texts_with_nothing_to_learn_are_refused(texts: list[str]) -> None:
    with pytest.raises(DataError, match="hold no word that occurs 2 times"):
        TrainedTokenizer.train(texts, "word")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no tokenizer"),
        ("{}", "holds no tokenizer"),
        ("no json", "holds no tokenizer"),
        ('{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}', r"without \[UNK\]"),
    ],
)
def test_files_that_are_no_such_tokenizer_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        TrainedTokenizer.load(file)
