"""The files that people really have, with their traps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from transferkit.config import DataConfig
from transferkit.data.preparation import TextData, prepare
from transferkit.errors import DataError

Shared = Callable[[str], str]


def sizes(data: TextData) -> tuple[int, int, int]:
    return len(data.splits["train"]), len(data.splits["validation"]), len(data.splits["test"])


def majority(data: TextData, split: str) -> float:
    counts = np.bincount(data.splits[split].with_format("numpy")["label"][:])
    return round(100 * float(counts.max() / counts.sum()), 1)


def test_mrpc(shared: Shared) -> None:
    data = prepare(
        DataConfig(
            source=shared("mrpc/train.tsv"),
            validation=shared("mrpc/dev.tsv"),
            test=shared("mrpc/msr_paraphrase_test.txt"),
        )
    )
    assert sizes(data) == (3668, 408, 1725)
    assert [majority(data, split) for split in ("train", "validation", "test")] == [67.4, 68.4, 66.5]
    assert data.columns == {"pair": ["#1 String", "#2 String"], "label": "Quality"}
    assert data.labels == ("0", "1")
    assert data.leaked == data.dropped_empty == 0
    assert '" the witness "' in data.splits["train"][0]["text"]


def test_ag_news(shared: Shared) -> None:
    topics = ("World", "Sports", "Business", "Sci/Tech")
    train, test = shared("ag_news/train_subset_8000.csv"), shared("ag_news/test.csv")
    data = prepare(DataConfig(source=train, test=test, label_names=topics))
    assert data.leaked == 16
    assert sizes(data) == (7186, 798, 7600)
    assert data.labels == topics
    sports = next(row for row in data.splits["test"] if "Phelps" in row["text"])
    assert sports["label"] == 1
    with pytest.raises(DataError, match=r"lacks: Business, Sci/Tech, Sports, World.*--label-names"):
        prepare(DataConfig(source=train, test=test))


def test_imdb(shared: Shared) -> None:
    data = prepare(
        DataConfig(source=shared("imdb/imdb_train_10000.jsonl.gz"), test=shared("imdb/imdb_test_5000.jsonl.gz"))
    )
    assert data.labels == ("neg", "pos")
    assert len(data.splits["test"]) == 5000
    assert sum(sizes(data)) + data.leaked == 15_000


def test_consumer_complaints(shared: Shared) -> None:
    data = prepare(DataConfig(source=shared("consumer_complaints/consumer_complaints_narratives.csv.gz")))
    assert len(data.labels) == 10
    assert sum(sizes(data)) + data.leaked == 3828
    rare = data.labels.index("Consumer Loan")
    counts = [sum(label == rare for label in rows["label"]) for rows in data.splits.values()]
    assert counts == [14, 2, 4]


def test_a_file_without_a_header_is_pointed_at(shared: Shared) -> None:
    with pytest.raises(DataError, match=r"first line, which names 'Nature, in the broadest.*put column names above"):
        prepare(DataConfig(source=shared("langid/language_detection.csv")))
