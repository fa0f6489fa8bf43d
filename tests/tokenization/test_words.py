"""Text becomes words as torchtext's `basic_english` has it, and never none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from transferkit.config import TokenizationConfig
from transferkit.tokenization.pretrained import TextTokenizer
from transferkit.tokenization.words import word_tokenizer

# The rules of torchtext 0.18, `torchtext.data.utils._basic_english_normalize`.
PATTERNS = (r"\'", r"\"", r"\.", r"<br \/>", r",", r"\(", r"\)", r"\!", r"\?", r"\;", r"\:", r"\s+")
PLACES = (" '  ", "", " . ", " ", " , ", " ( ", " ) ", " ! ", " ? ", " ", " ", " ")

TEXTS = (
    "Don't!  She said: \"it's (very) good\"; really?<br /><br />Yes, 3.5 stars.",
    "a\tb\nc\u00a0d",
    "well-made <BR /> film/book ... 'quoted'",
    "\u0130stanbul \u00c9T\u00c9 \u201cquotes\u201d",
    "word",
)


def basic_english(line: str) -> list[str]:
    line = line.lower()
    for pattern, place in zip(PATTERNS, PLACES, strict=True):
        line = re.sub(pattern, place, line)
    return line.split()


@pytest.mark.parametrize("text", TEXTS)
def test_words_are_those_of_basic_english(text: str) -> None:
    expected = basic_english(text)
    tokenizer = word_tokenizer(["<pad>", "<unk>", *sorted(set(expected))])
    assert tokenizer.tokenize(text) == expected


def test_a_word_that_is_not_known_is_unknown() -> None:
    assert word_tokenizer(["<pad>", "<unk>", "good", "."])("A good film.")["input_ids"] == [1, 2, 1, 3]


@pytest.mark.parametrize("text", ['"', ";:", ' " <br /> ; ', "<br /><br />"])
def test_a_text_of_which_nothing_is_left_is_one_unknown_word(text: str) -> None:
    assert basic_english(text) == []
    assert word_tokenizer(["<pad>", "<unk>", "good"])(text)["input_ids"] == [1]


def test_it_is_loaded_as_any_tokenizer_is(tmp_path: Path) -> None:
    made = word_tokenizer(["<pad>", "<unk>", "good", "film"])
    made.save_pretrained(tmp_path)
    loaded = TextTokenizer.load(tmp_path, TokenizationConfig(max_length=4), allowed_length=None)
    columns, lengths = loaded.encode([("good film",), ("film good film good good",)])
    assert columns == {"input_ids": [[2, 3], [3, 2, 3, 2]]}
    assert lengths.tolist() == [2, 5]
    assert (loaded.pad_token_id, loaded.uses_token_types(1), loaded.notes) == (0, False, ())
    assert loaded.joins_pairs()
