"""Options of the command line that set a field."""

from __future__ import annotations

from transferkit.config import TranslationConfig
from transferkit.options import DATA_SETTINGS, TRAINING_SETTINGS, by_path
from transferkit.tokenization.pretrained import DEFAULT_MAX_LENGTH


def test_a_list_is_split_at_its_commas_and_blanks_around_them_do_not_count() -> None:
    given = {"data__label_names": "World, Sports ,Sci/Tech", "data__source": "a, b.csv", "data__label": None}
    assert by_path(given) == {
        "data.label_names": ["World", "Sports", "Sci/Tech"],
        "data.source": "a, b.csv",
        "data.label": None,
    }


def test_help_says_what_is_taken_of_either_task() -> None:
    said = {flag: text for flag, _, text, _ in (*DATA_SETTINGS, *TRAINING_SETTINGS)}
    translation = TranslationConfig()
    assert f"of a translation {translation.training.epochs}." in said["--epochs"]
    assert f"else {DEFAULT_MAX_LENGTH} or" in said["--max-length"]
    assert f"of a translation {translation.tokenizer.max_length}." in said["--max-length"]
    assert said["--data"].endswith("else film reviews, of a translation short pairs.")
    sizes = [said[f"--{split}-size"] for split in ("train", "validation", "test")]
    assert all(text.endswith("rows, labelled ones stratified.") for text in sizes)
