"""What is told of a run, written and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from transferkit.errors import RunError
from transferkit.evaluation.results import EpochRecord, TranslationExample
from transferkit.training.tracking import read_epochs, write_epochs


def record(epoch: int, text: str = "a sentence") -> EpochRecord:
    return EpochRecord(
        epoch=epoch, step=10 * epoch, learning_rate=1e-3, train_loss=1.0, validation_loss=1.0, metrics={"bleu": 10.0},
        seconds=1.0, best=True, examples=(TranslationExample(source=text, target=text, predicted=text),),
    )  # fmt: skip


def test_epochs_come_back_whatever_their_examples_hold(tmp_path: Path) -> None:
    written = [record(1, "one\u2028two\u2029three\x85four\vfive\x1csix\r\nseven\reight"), record(2)]
    write_epochs(tmp_path / "metrics.jsonl", written)
    assert read_epochs(tmp_path / "metrics.jsonl") == written


def test_a_run_that_reached_no_epoch_has_none(tmp_path: Path) -> None:
    assert read_epochs(tmp_path / "metrics.jsonl") == []


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_epochs(path, [record(1), record(2)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged .*; run again with --overwrite"):
        read_epochs(path)
