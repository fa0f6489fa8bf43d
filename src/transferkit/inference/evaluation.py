"""The scores of a trained run on new labelled data."""

from __future__ import annotations

from transferkit.config import DataConfig
from transferkit.data import workspace
from transferkit.data.batching import FeatureTable
from transferkit.data.preparation import read_labelled
from transferkit.errors import ConfigError
from transferkit.evaluation.metrics import score
from transferkit.evaluation.results import Scores
from transferkit.inference.predictor import Predictor
from transferkit.training.tracking import Listener

# What says which rows a training is to have; to be scored on, rows are given themselves.
_OF_SPLITS = ("validation", "test", "train_size", "validation_size", "test_size")


def evaluate(predictor: Predictor, data: DataConfig, listener: Listener) -> Scores:
    """Score `predictor` on the rows of `data`: its test split if it has one, else all of it.

    The validation split stands in for a test split without labels.

    Raises:
        DataError: the data cannot be read, or has labels that the run does not know.
        ConfigError: `data` names other rows than its source, or a number of them.
    """
    if idle := next((name for name in _OF_SPLITS if getattr(data, name) is not None), None):
        raise ConfigError(f"data.{idle} has no effect here: all rows of data.source are scored, or its test split.")
    columns = predictor.record.data.columns
    texts = tuple(columns["pair"]) if predictor.record.is_pair else (columns["text"],)
    rows, notes = read_labelled(data, predictor.labels, texts, columns["label"])
    for note in notes:
        listener.said(note)
    listener.planned(len(rows))
    listener.started(f"evaluate on {data.source}", len(rows))
    features, _ = predictor.tokenizer.tokenize(rows, workspace.new_file())
    table = FeatureTable.from_arrow(features.data.table, predictor.tokenizer.pad_token_id)
    logits = predictor.logits_of(table, listener)
    assert table.labels is not None, "labelled rows have labels"
    return score(table.labels, logits, predictor.labels)
