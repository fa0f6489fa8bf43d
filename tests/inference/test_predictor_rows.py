"""What a predictor takes for rows, what it says of those that are none, and how it tokenizes many of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import transferkit
from tests.small_data import write_csv
from transferkit.data.batching import FeatureTable
from transferkit.errors import DataError
from transferkit.inference import predictor as predictor_file
from transferkit.inference.predictor import Predictor
from transferkit.settings import run_config

TEXTS = ["the film was a very good story", "bad", "this movie is not funny", "dull", "slow but fine", "good", "it is"]


@pytest.fixture(scope="module")
def trained(backbone: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Predictor]:
    """A run on a tiny backbone, of single texts or of pairs, loaded; trained when it is first asked for."""
    made: dict[tuple[str, bool], Predictor] = {}

    def load(family: str = "bert", is_pair: bool = False) -> Predictor:
        if (family, is_pair) not in made:
            folder = tmp_path_factory.mktemp(family)
            names = ("sentence1", "sentence2", "label") if is_pair else ("text", "label")
            rows = [
                (*(f"{TEXTS[number % 7]} {number} {name}" for name in names[:-1]), "good" if number % 2 else "bad")
                for number in range(20)
            ]
            settings = {
                "data.source": str(write_csv(folder / "data.csv", names, rows)),
                "backbone.name": str(backbone(family)),
                "strategies": ["linear-probe"],
                "training.epochs": 1,
            }
            transferkit.train(run_config(None, settings, []), folder / "run")
            made[family, is_pair] = transferkit.load(folder / "run", precision="fp32")
        return made[family, is_pair]

    return load


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (float("nan"), "Row 2 holds nan, which is not text; give a text or leave the row out."),
        (None, "Row 2 holds None, which is not text"),
        ([1], "Row 2 holds 1, which is not text"),
        ({"text": "good"}, r"Row 2 holds {'text': 'good'}, which is not text"),
        (b"good", "Row 2 holds b'good', which is not text"),
        (("good", "bad"), "The run was trained on single texts, and row 2 has 2; give 1 for each row."),
        (" ", "Row 2 holds an empty text"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(trained: Callable[..., Predictor], row: Any, said: str) -> None:
    for ask in (trained(), trained().logits):
        with pytest.raises(DataError, match=f"^{said}"):
            ask(["good", row])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("good", None), "Row 2 holds None, which is not text"),
        ("ok", "The run was trained on pairs of texts, and row 2 has 1; give 2 for each row."),
        (("good", "\u200b"), "Row 2 holds an empty text"),
    ],
)
def test_a_row_that_is_no_pair_is_named(trained: Callable[..., Predictor], row: Any, said: str) -> None:
    for ask in (trained(is_pair=True), trained(is_pair=True).logits):
        with pytest.raises(DataError, match=f"^{said}"):
            ask([("good", "bad"), row])


def test_a_single_text_has_no_number(trained: Callable[..., Predictor]) -> None:
    with pytest.raises(DataError, match=r"^The row holds an empty text"):
        trained()(" ")


def test_pairs_come_as_tuples_lists_and_arrays(trained: Callable[..., Predictor]) -> None:
    predictor = trained(is_pair=True)
    pairs: list[Any] = [("good", "bad"), ["good", "bad"], np.array(["good", "bad"], dtype=object)]
    first, *others = predictor(pairs)
    assert others == [first, first]


def test_logits_are_those_of_texts_and_of_none(trained: Callable[..., Predictor]) -> None:
    predictor = trained()
    np.testing.assert_array_equal(predictor.logits(TEXTS), predictor.logits([(text,) for text in TEXTS]))
    assert predictor.logits([]).shape == (0, 2)
    assert predictor.logits([]).dtype == np.float32
    assert predictor([]) == []
    with pytest.raises(DataError, match="Logits are those of a list of rows, and a single text came"):
        predictor.logits("ok")


@pytest.mark.parametrize(("family", "is_lean"), [("bert", True), ("albert", False)])
@pytest.mark.parametrize("is_pair", [False, True])
def test_many_rows_are_tokenized_some_at_a_time(
    trained: Callable[..., Predictor], monkeypatch: pytest.MonkeyPatch, family: str, is_lean: bool, is_pair: bool
) -> None:
    predictor = trained(family, is_pair)
    assert predictor.is_lean == is_lean
    rows: list[Any] = list(zip(TEXTS, reversed(TEXTS), strict=True)) if is_pair else TEXTS
    expected = predictor.logits(rows)
    whole, sizes = Predictor._tokenized, []

    def tokenized(self: Predictor, part: list[tuple[str, ...]], *rest: Any) -> FeatureTable:
        sizes.append(len(part))
        return whole(self, part, *rest)

    monkeypatch.setattr(Predictor, "_tokenized", tokenized)
    monkeypatch.setattr(predictor_file, "_TOKENIZED_ROWS", 3)
    np.testing.assert_array_equal(predictor.logits(rows), expected)
    assert sizes == [3, 3, 1]
