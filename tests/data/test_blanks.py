from __future__ import annotations

import sys

import pyarrow as pa

from transferkit.data.blanks import is_blank
from transferkit.data.cleaning import readable


def test_training_and_prediction_take_the_same_characters_for_blank() -> None:
    letters = [chr(number) for number in range(sys.maxunicode + 1) if not 0xD800 <= number <= 0xDFFF]
    blank = [is_blank(letter) for letter in letters]
    assert blank == (~readable(pa.chunked_array([pa.array(letters)]))).tolist()
    assert blank == [letter.isspace() or letter in ("\u200b", "\ufeff") for letter in letters]


def test_a_text_is_blank_if_all_of_it_is() -> None:
    assert is_blank("")
    assert is_blank(" \u200b\n")
    assert not is_blank(" \u200b.\n")
