"""The inference form of a run gives the logits of the model that was trained, and stands aside where it cannot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import transferkit
from tests.small_data import write_csv
from transferkit import run_folder
from transferkit.config import RunConfig
from transferkit.errors import RunError, TransferKitError
from transferkit.inference.predictor import Predictor
from transferkit.settings import run_config
from transferkit.training.forward import predict_logits
from transferkit.training.tracking import Listener

TEXTS = ["the film was a very good story", "bad", "this movie is not funny and the plot was terrible but not boring"]
LEAN = ("bert", "roberta", "distilbert", "electra")


@pytest.fixture
def trained(backbone: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Train a strategy on a tiny backbone and return the run."""
    rows = [
        (text, "good" if number % 2 else "bad") for number in range(20) for text in (f"{TEXTS[number % 3]} {number}",)
    ]
    data = write_csv(tmp_path / "data.csv", ("text", "label"), rows)

    def train(family: str, strategy: str, pooling: str = "mean") -> Path:
        settings = {
            "data.source": str(data),
            "backbone.name": str(backbone(family)),
            "backbone.head_pooling": pooling,
            "strategies": [strategy],
            "training.epochs": 1,
            "training.learning_rate": 0.02,
        }
        config: RunConfig = run_config(None, settings, [])
        transferkit.train(config, tmp_path / "run", overwrite=True)
        return tmp_path / "run"

    return train


def logits_of_the_model(predictor: Predictor, rows: list[tuple[str, ...]]) -> np.ndarray:
    from transferkit.data.batching import FeatureTable

    table = FeatureTable.from_arrow(predictor.tokenizer.encode_table(rows), predictor.tokenizer.pad_token_id)
    return predict_logits(predictor.model, table, 4096, Listener())


@pytest.mark.parametrize("family", LEAN)
@pytest.mark.parametrize("pooling", ["mean", "first", "model"])
@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_logits_are_those_of_the_trained_model(
    trained: Callable[..., Path], family: str, pooling: str, strategy: str
) -> None:
    predictor = transferkit.load(trained(family, strategy, pooling), precision="fp32")
    assert predictor.is_lean
    rows = [(text,) for text in TEXTS]
    np.testing.assert_allclose(predictor.logits(rows), logits_of_the_model(predictor, rows), atol=2e-5)


@pytest.mark.parametrize(
    "strategy", ["linear-probe", "partial", "bitfit", "bottleneck", "scratch", "lora(targets=**.query+**.output.dense)"]
)
def test_every_strategy_has_it(trained: Callable[..., Path], strategy: str) -> None:
    predictor = transferkit.load(trained("bert", strategy), precision="fp32")
    assert predictor.is_lean
    rows = [(text,) for text in TEXTS]
    np.testing.assert_allclose(predictor.logits(rows), logits_of_the_model(predictor, rows), atol=2e-5)


def test_bf16_rounds_and_changes_no_more(trained: Callable[..., Path]) -> None:
    run = trained("bert", "full")
    exact, rounded = (transferkit.load(run, precision=precision) for precision in ("fp32", "bf16"))
    rows = [(text,) for text in TEXTS]
    pairs = zip(exact(TEXTS), rounded(TEXTS), strict=True)
    difference = max(abs(a.probabilities["good"] - b.probabilities["good"]) for a, b in pairs)
    assert 0 < difference < 0.05
    np.testing.assert_array_equal(exact.logits(rows), rounded.logits(rows))


@pytest.mark.parametrize(
    ("family", "strategy", "pooling"),
    [
        ("albert", "full", "mean"),
        ("modernbert", "lora", "mean"),
        ("bert", "peft:dora", "mean"),
        ("bert", "bottleneck(targets=pooler.dense)", "model"),
    ],
)
def test_what_is_not_known_is_left_to_transformers(
    trained: Callable[..., Path], family: str, strategy: str, pooling: str
) -> None:
    predictor = transferkit.load(trained(family, strategy, pooling), precision="fp32")
    assert not predictor.is_lean
    rows = [(text,) for text in TEXTS]
    np.testing.assert_allclose(predictor.logits(rows), logits_of_the_model(predictor, rows), atol=1e-6)


@pytest.mark.parametrize(
    ("file", "message"), [("head.safetensors", "its head is missing"), ("model.safetensors", "cannot be loaded")]
)
def test_broken_files_are_refused_with_a_sentence(trained: Callable[..., Path], file: str, message: str) -> None:
    run = trained("bert", "full")
    (run / "model" / file).write_bytes((run / "model" / file).read_bytes()[:20])
    if file == "head.safetensors":
        (run / "model" / file).unlink()
    with pytest.raises(TransferKitError, match=message):
        transferkit.load(run)("good film")


@pytest.mark.parametrize("content", ['{"model_type": "bert"', "[]"])
def test_a_damaged_configuration_is_refused_with_a_sentence(trained: Callable[..., Path], content: str) -> None:
    run = trained("bert", "full")
    (run / "model" / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(TransferKitError, match=r"config\.json"):
        transferkit.load(run)("good film")


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_by_itself_it_answers_in_bf16_where_the_processor_has_it(
    trained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, native: bool, expected: Literal["bf16", "fp32"]
) -> None:
    run = trained("bert", "full")
    monkeypatch.setattr("transferkit.training.precision.has_native_bf16", lambda: native)
    chosen, asked = transferkit.load(run), transferkit.load(run, precision=expected)
    assert chosen.precision == expected
    assert chosen(TEXTS) == asked(TEXTS)


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_a_tokenizer_that_is_another_one_now_is_refused(trained: Callable[..., Path], strategy: str) -> None:
    run = trained("bert", strategy)
    file = run / run_folder.TOKENIZER_FILE
    file.write_text(file.read_text(encoding="utf-8").replace('"good"', '"well"'), encoding="utf-8")
    with pytest.raises(RunError, match=r"tokenizer\.json is not what the run was trained with; bring it back"):
        transferkit.load(run)


@pytest.mark.parametrize("lost", ["tokenizer", "tokenizer/tokenizer.json"])
def test_a_tokenizer_that_is_missing_is_refused(trained: Callable[..., Path], tmp_path: Path, lost: str) -> None:
    run = trained("bert", "full")
    (run / lost).rename(tmp_path / "lost")
    with pytest.raises(RunError, match=r"tokenizer\.json is missing; bring it back, or train again\."):
        transferkit.load(run)


def test_an_answer_needs_neither_transformers_nor_datasets(trained: Callable[..., Path]) -> None:
    code = (
        f"import sys, transferkit; print(transferkit.load({str(trained('bert', 'lora'))!r})('a good film').label); "
        "print(sorted({'transformers', 'datasets', 'pandas', 'accelerate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    label, modules = done.stdout.splitlines()
    assert label in ("bad", "good")
    assert modules == "[]"
