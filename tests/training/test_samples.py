"""After an epoch a classifier shows its answers to a few validation texts, and where it looks in the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn

from tests import tiny
from transferkit.data.batching import FeatureTable
from transferkit.data.preparation import TextData
from transferkit.models.averaging import AveragingConfig, AveragingEncoder
from transferkit.models.backbones import TextClassifier
from transferkit.training import samples
from transferkit.training.precision import Compute, training_kernels
from transferkit.training.samples import MOST_LETTERS, TEXTS, Samples

ROWS = [{"text": f"the film was {word}", "label": n % 3} for n, word in enumerate(tiny.WORDS)]


def made(folder: Path, rows: list[dict[str, object]] = ROWS, compute: Compute | None = None) -> Samples:
    """Of these validation rows, with the tokenizer in `folder`."""
    data = TextData(
        splits={"validation": Dataset.from_list(rows)}, labels=tiny.LABELS, source="here", columns={},
        dropped_empty=0, leaked=0, notes=(),
    )  # fmt: skip
    texts = tuple(str(row["text"]) for row in rows)
    tokenizer = tiny.load_tokenizer(folder)
    table = FeatureTable.from_arrow(tokenizer.encode_table([(text,) for text in texts]), tokenizer.pad_token_id)
    labels = np.array([row["label"] for row in rows])
    return Samples.of(data, replace(table, labels=labels), compute or Compute())


def test_texts_from_all_over_stand_beside_their_answers(backbone: Callable[[str], Path]) -> None:
    # Sorted by class, as files often are: six rows of each.
    rows = [{"text": f"the film was {word}", "label": n // 6} for n, word in enumerate(tiny.WORDS[:18])]
    logits = np.zeros((len(rows), 3), dtype=np.float32)
    logits[3, 2] = np.log(2)
    shown = made(backbone("bert"), rows).examples(logits)
    assert [one.text for one in shown] == [(rows[number]["text"],) for number in (0, 3, 7, 10, 14)]
    assert len(shown) == TEXTS
    assert [one.label for one in shown] == ["bad", "bad", "good", "good", "neither"]
    assert [one.predicted for one in shown] == ["bad", "neither", "bad", "bad", "bad"]
    np.testing.assert_allclose([one.probability for one in shown], [1 / 3, 0.5, 1 / 3, 1 / 3, 1 / 3], rtol=1e-6)


def test_few_rows_pairs_and_long_texts_are_shown_too(backbone: Callable[[str], Path]) -> None:
    rows = [{"text": "good  film\n" * 99, "text_pair": "bad", "label": 1}]
    (one,) = made(backbone("bert"), rows).examples(np.zeros((1, 3), dtype=np.float32))
    first, second = one.text
    assert first.startswith("good film good film")
    assert len(first) == MOST_LETTERS
    assert second == "bad"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", ["plain", "fused"])
def test_the_last_layer_is_shown_by_head_without_padding(
    backbone: Callable[[str], Path], precision: str, kernel: str
) -> None:
    model = tiny.load_model(backbone("bert")).requires_grad_(False)
    compute = Compute(precision, kernel)
    one, random = made(backbone("bert"), compute=compute), torch.get_rng_state()
    with training_kernels(model, compute):
        ((name, weights),) = one.attentions(model).items()
    # [CLS] the film was a [SEP], whose batch is padded to eight.
    assert (name, weights.shape, weights.dtype) == ("layer 2", (tiny.HEADS, 6, 6), np.float32)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=0.02 if precision == "bf16" else 1e-5)
    assert torch.equal(torch.get_rng_state(), random)


def test_of_a_long_text_the_beginning_is_looked_into(
    backbone: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "MOST_TOKENS", 5)
    ((_, weights),) = made(backbone("bert")).attentions(tiny.load_model(backbone("bert"))).items()
    assert weights.shape == (tiny.HEADS, 5, 5)


def test_a_backbone_without_attention_has_no_picture(backbone: Callable[[str], Path]) -> None:
    network = AveragingEncoder(AveragingConfig(vocab_size=200, hidden_size=8))
    model = TextClassifier(network, "mean", nn.Linear(8, 3), set()).eval()
    assert made(backbone("bert")).attentions(model) == {}
