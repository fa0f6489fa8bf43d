"""Options of the command line that set a field."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from transferkit.cli import app
from transferkit.config import PRETRAINING, TranslationConfig
from transferkit.options import DATA_SETTINGS, TRAINING_SETTINGS, by_path
from transferkit.tokenization.pretrained import DEFAULT_MAX_LENGTH


def test_a_list_is_split_at_its_commas_and_blanks_around_them_do_not_count() -> None:
    given = {"data__label_names": "World, Sports ,Sci/Tech", "data__source": "a, b.csv", "data__label": None}
    assert by_path(given) == {
        "data.label_names": ["World", "Sports", "Sci/Tech"],
        "data.source": "a, b.csv",
        "data.label": None,
    }


def test_help_says_what_is_taken_of_each_task() -> None:
    said = {flag: text for flag, _, text, _ in (*DATA_SETTINGS, *TRAINING_SETTINGS)}
    translation = TranslationConfig()
    assert f"of a translation {translation.training.epochs}, of pretrain {PRETRAINING['epochs']}." in said["--epochs"]
    assert f"else {DEFAULT_MAX_LENGTH} or" in said["--max-length"]
    assert f"of a translation {translation.tokenizer.max_length}." in said["--max-length"]
    sizes = [said[f"--{split}-size"] for split in ("train", "validation", "test")]
    assert all(text.endswith("rows, labelled ones stratified.") for text in sizes)


@pytest.mark.parametrize(
    ("command", "said"), [("train", "of a translation short pairs"), ("evaluate", "which --data names")]
)
def test_help_says_which_rows_a_command_takes(command: str, said: str) -> None:
    text = " ".join(CliRunner().invoke(app, [command, "--help"]).output.split())
    assert said in text
    assert ("film reviews that are built in" in text) == (command == "train")
