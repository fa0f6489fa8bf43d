"""Runs in the formats of other libraries: loaded there, they give the same logits."""

from __future__ import annotations

import csv
import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import transferkit
from tests import tiny
from transferkit import cli
from transferkit.adaptation.peft_format import import_peft
from transferkit.config import RunConfig
from transferkit.errors import AdaptationError
from transferkit.inference import predictor as predictor_module
from transferkit.inference.export import export_to_peft, export_transformers
from transferkit.inference.predictor import Predictor
from transferkit.models.backbones import pool_mean
from transferkit.settings import pretrain_config

Folders = Callable[[str], Path]
Trained = Callable[[str, str, str], Predictor]
# Architectures of `transferkit pretrain`.
OURS = ("text-encoder", "averaging")
TEXTS = [*tiny.CORPUS, "wonderful", "a very long and boring film but the story is good"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for number in range(40):
            rows.writerow(
                [f"{tiny.CORPUS[number % 3]} {tiny.WORDS[number % 23]} {number}", ("bad", "good")[number % 2]]
            )
    return path


@pytest.fixture(scope="module")
def base(backbone: Folders, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The backbone of a family, or a run that has pre-trained an encoder of ours."""
    folder = tmp_path_factory.mktemp("pretrained")
    vectors = tiny.save_vectors(folder / "vectors.txt")

    def find(name: str) -> Path:
        if name not in OURS:
            return backbone(name)
        if not (folder / name).is_dir():
            settings = {"data.source": str(data), "encoder.vectors": str(vectors), "encoder.architecture": name}
            transferkit.pretrain(pretrain_config(None, settings | {"training.epochs": 1}, []), folder / name)
        return folder / name

    return find


@pytest.fixture(scope="module")
def trained(base: Folders, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A predictor by family, strategy and pooling; each run is trained once, through the public API."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str, strategy: str, pooling: str) -> Predictor:
        path = folder / f"{name}-{strategy}-{pooling}"
        if not path.is_dir():
            config = {
                "data": {"source": str(data)},
                "backbone": {"name": str(base(name)), "head_pooling": pooling},
                "training": {"epochs": 1, "learning_rate": 0.01, "precision": "fp32"},
                "strategy": strategy,
            }
            transferkit.train(RunConfig.model_validate(config), path)
        return transferkit.load(path)

    return run


def our_logits(predictor: Predictor) -> np.ndarray:
    return predictor.logits([(text,) for text in TEXTS])


def inputs(folder: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoTokenizer

    return dict(AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt"))


@pytest.mark.parametrize("strategy", ["full", "lora"])
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "modernbert"])
def test_transformers_loads_full_and_merged_runs(name: str, strategy: str, trained: Trained, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    predictor = trained(name, strategy, "model")
    ours = our_logits(predictor)
    export_transformers(predictor, tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        theirs = model(**inputs(tmp_path / "out")).logits.numpy()
    np.testing.assert_allclose(theirs, ours, atol=1e-5, rtol=0)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert ours.std(0).min() > 1e-3
    assert not list((tmp_path / "out").glob("*.bin"))


@pytest.mark.parametrize(
    ("name", "pooling"),
    [*itertools.product(["bert", "distilbert"], ["mean", "model"]), *((name, "mean") for name in OURS)],
)
def test_peft_loads_lora_runs(name: str, pooling: str, trained: Trained, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel, AutoModelForSequenceClassification

    predictor = trained(name, "lora", pooling)
    export_to_peft(predictor, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["task_type"] == "FEATURE_EXTRACTION", config["modules_to_save"] is None) == (pooling == "mean",) * 2
    kind = AutoModel if pooling == "mean" else AutoModelForSequenceClassification
    base = kind.from_pretrained(config["base_model_name_or_path"])
    with warnings.catch_warnings():
        # PEFT asks every base for an attribute that transformers has deprecated.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        model = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    batch = inputs(tmp_path / "out")
    with torch.no_grad():
        outputs = model(**batch)
    if pooling == "mean":
        # A head on mean pooling is one linear layer, beside the adapter.
        head = load_file(tmp_path / "out" / "head.safetensors")
        pooled = pool_mean(outputs.last_hidden_state, batch["attention_mask"].bool())
        theirs = torch.nn.functional.linear(pooled, head["1.weight"], head["1.bias"])
    else:
        theirs = outputs.logits
    np.testing.assert_allclose(theirs.numpy(), our_logits(predictor), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", OURS)
def test_what_is_exported_of_our_encoders_is_lora_alone_and_comes_back(
    name: str, trained: Trained, base: Folders, tmp_path: Path
) -> None:
    from transformers import AutoModel

    network = trained(name, "lora", "mean").model.network
    export_to_peft(trained(name, "lora", "mean"), tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {key.split(".")[-2] for key in tensors} == {"lora_A", "lora_B"}
    again = AutoModel.from_pretrained(base(name) / "model").eval()
    import_peft(again, tmp_path / "out")
    batch = inputs(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).last_hidden_state, network(**batch).last_hidden_state)


def test_runs_that_have_no_such_form_are_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(AdaptationError, match="on mean pooling, which AutoModelForSequenceClassification"):
        export_transformers(trained("bert", "lora", "mean"), tmp_path / "out")
    with pytest.raises(AdaptationError, match=r"The family transferkit-averaging of this run has no Auto"):
        export_transformers(trained("averaging", "lora", "mean"), tmp_path / "out")
    with pytest.raises(AdaptationError, match="cannot be merged"):
        export_transformers(trained("bert", "bottleneck", "model"), tmp_path / "out")
    with pytest.raises(AdaptationError, match="PEFT library are not merged"):
        export_transformers(trained("bert", "peft:ia3", "model"), tmp_path / "out")
    with pytest.raises(AdaptationError, match="only the strategy lora"):
        export_to_peft(trained("bert", "full", "model"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("export", [export_transformers, export_to_peft])
def test_an_export_that_fails_leaves_nothing(
    export: Callable[[Predictor, Path], None], trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    predictor = trained("bert", "lora", "model")
    (tmp_path / "empty").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(type(predictor.tokenizer), "save", fail)
        for name in ("empty", "new", "a/b/new"):
            with pytest.raises(KeyboardInterrupt):
                export(predictor, tmp_path / name)
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]
    export(predictor, tmp_path / "empty")
    assert (tmp_path / "empty" / "tokenizer.json").is_file()


@pytest.mark.parametrize("form", ["transformers", "peft"])
def test_an_export_builds_no_inference_form(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    run = trained("bert", "lora", "model").folder
    monkeypatch.setattr(predictor_module, "LeanClassifier", lambda *_: pytest.fail("built"))
    cli.app(["export", str(run), "--to", form, "--out", str(tmp_path / "out")], standalone_mode=False)
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_a_run_is_predicted_with_the_logits_of_its_training(trained: Trained) -> None:
    for strategy in ("full", "lora", "peft:ia3"):
        first, second = (trained("bert", strategy, "model") for _ in range(2))
        assert np.array_equal(our_logits(first), our_logits(second))
