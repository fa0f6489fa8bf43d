"""A capsule brings back what was learnt, and only where it belongs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from tests import tiny
from transferkit.adaptation.adapters import adapter_layers
from transferkit.adaptation.capsule import CapsuleInfo, attach, learnt_tensors, read_capsule, save_capsule
from transferkit.adaptation.lora import LoRA
from transferkit.adaptation.strategies import make_strategy
from transferkit.adaptation.unfreezing import Full
from transferkit.config import StrategySpec
from transferkit.errors import AdaptationError
from transferkit.models.backbones import TextClassifier

Folders = Callable[[str], Path]
SPECS = [
    StrategySpec(name="scratch"),
    StrategySpec(name="linear-probe"),
    StrategySpec(name="partial", options={"layers": 1, "patterns": ["LayerNorm"]}),
    StrategySpec(name="bitfit"),
    StrategySpec(name="bottleneck", options={"size": 3}),
    StrategySpec(name="lora", options={"rank": 2, "rank_stabilised": True, "targets": "query,value"}),
    StrategySpec(name="full"),
]
LORA = StrategySpec(name="lora", options={"rank": 2})


def info_of(model: TextClassifier, spec: StrategySpec, fingerprint: str) -> CapsuleInfo:
    return CapsuleInfo(
        strategy=spec, task="classification", labels=tiny.LABELS, backbone="tiny", base_fingerprint=fingerprint,
        tokenizer_hash="tokenizer", pooling=model.pooling,
    )  # fmt: skip


def trained_capsule(folder: Path, path: Path, spec: StrategySpec = LORA, pooling: str = "model") -> TextClassifier:
    """Train on the backbone in `folder` and write the capsule to `path`."""
    model = tiny.load_model(folder, pooling)
    fingerprint = model.fingerprint()
    torch.manual_seed(0)
    make_strategy(spec).apply(model)
    tiny.train_steps(model, tiny.make_batch(folder))
    save_capsule(path, model, info_of(model, spec, fingerprint))
    return model


@pytest.mark.parametrize("pooling", ["model", "mean"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_round_trip_gives_equal_logits(spec: StrategySpec, pooling: str, backbone: Folders, tmp_path: Path) -> None:
    path = tmp_path / "capsule.safetensors"
    model = trained_capsule(backbone("bert"), path, spec, pooling)
    fresh = tiny.load_model(backbone("bert"), pooling, seed=8)
    info = attach(fresh, path, fresh.fingerprint(), "tokenizer")
    batch = tiny.make_batch(backbone("bert"))
    assert torch.equal(tiny.logits_of(fresh, batch), tiny.logits_of(model, batch))
    assert info == info_of(model, spec, info.base_fingerprint)


@pytest.mark.parametrize("name", tiny.WITH_LINEARS)
def test_lora_goes_into_a_capsule_on_every_family(name: str, backbone: Folders, tmp_path: Path) -> None:
    model = trained_capsule(backbone(name), tmp_path / "c")
    fresh = tiny.load_model(backbone(name), seed=8)
    attach(fresh, tmp_path / "c", fresh.fingerprint(), "tokenizer")
    batch = tiny.make_batch(backbone(name))
    assert torch.equal(tiny.logits_of(fresh, batch), tiny.logits_of(model, batch))


def test_a_capsule_holds_adapter_and_head_in_one_file_without_pickle(backbone: Folders, tmp_path: Path) -> None:
    path = tmp_path / "capsule.safetensors"
    model = trained_capsule(backbone("bert"), path)
    adapters = {f"{name}.{part}" for name, _ in adapter_layers(model) for part in ("lora_a", "lora_b")}
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == adapters | model.head_parameters
        metadata = file.metadata()
        assert set(metadata) == {"format", "info"}
        assert json.loads(metadata["info"])["labels"] == list(tiny.LABELS)
    # A safetensors file is the length of its header, the header in JSON, and the bytes of the tensors.
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    numbers = sum(tensor.numel() for tensor in load_file(path).values())
    assert len(content) == 8 + int.from_bytes(content[:8], "little") + 4 * numbers
    assert set(header) == adapters | model.head_parameters | {"__metadata__"}


def test_lora_on_a_minilm_takes_a_few_hundred_kilobytes() -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from transferkit.models.hub import locate

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(locate("minilm").folder))
    report = LoRA().apply(model)
    # Rank 4 in 6 layers: four 384 wide linears, and two between 384 and 1,536; a head of two classes.
    assert report.trainable_parameters == 4 * 6 * (4 * (384 + 384) + 2 * (384 + 1536)) + 2 * 385
    assert 4 * report.trainable_parameters < 700_000


def test_another_base_is_refused(backbone: Folders, tmp_path: Path) -> None:
    trained_capsule(backbone("bert"), tmp_path / "c")
    other = tiny.load_model(backbone("bert"))
    with torch.no_grad():
        other.network.bert.encoder.layer[0].output.dense.bias[0] += 1e-3
    before = tiny.weights_of(other)
    with pytest.raises(AdaptationError, match="belongs to another base: it was made on tiny"):
        attach(other, tmp_path / "c", other.fingerprint(), "tokenizer")
    assert not list(tiny.changed_names(before, other))
    assert not list(adapter_layers(other))


def test_another_tokenizer_and_another_pooling_are_refused(backbone: Folders, tmp_path: Path) -> None:
    trained_capsule(backbone("bert"), tmp_path / "c", pooling="mean")
    model = tiny.load_model(backbone("bert"), "mean")
    with pytest.raises(AdaptationError, match="made with another tokenizer"):
        attach(model, tmp_path / "c", model.fingerprint(), "another")
    model = tiny.load_model(backbone("bert"), "first")
    with pytest.raises(AdaptationError, match="has its head on mean pooling, the model on first"):
        attach(model, tmp_path / "c", model.fingerprint(), "tokenizer")


def test_another_number_of_classes_is_refused(backbone: Folders, tmp_path: Path) -> None:
    trained_capsule(backbone("bert"), tmp_path / "c")
    model = tiny.load_model(backbone("bert"), labels=("no", "yes"))
    with pytest.raises(AdaptationError, match=r"does not fit the model: 2 of the weights differ, such as network\.cl"):
        attach(model, tmp_path / "c", model.fingerprint(), "tokenizer")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(keep: int, backbone: Folders, tmp_path: Path) -> None:
    path = tmp_path / "c"
    trained_capsule(backbone("bert"), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(AdaptationError, match="cannot be read as a capsule") as error:
        read_capsule(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"format": "transferkit/capsule/1"},
        {"format": "transferkit/capsule/1", "info": "{"},
        {"format": "transferkit/capsule/1", "info": "{}"},
    ],
)
def test_other_safetensors_are_no_capsule(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "c", metadata=metadata)
    with pytest.raises(AdaptationError, match=r"is not a capsule of this version|cannot be read as a capsule"):
        read_capsule(tmp_path / "c")


def test_a_pickle_a_folder_and_nothing_are_no_capsule(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1)}, tmp_path / "pickle")
    for path in (tmp_path / "pickle", tmp_path):
        with pytest.raises(AdaptationError, match="cannot be read as a capsule"):
            read_capsule(path)
    with pytest.raises(AdaptationError, match="There is no capsule"):
        read_capsule(tmp_path / "nothing")


def test_weights_of_another_strategy_are_refused(backbone: Folders, tmp_path: Path) -> None:
    path = tmp_path / "c"
    model = trained_capsule(backbone("bert"), path)
    info, tensors = read_capsule(path)
    wrong = info.model_copy(update={"strategy": StrategySpec(name="bottleneck")})
    save_file(tensors, path, metadata={"format": "transferkit/capsule/1", "info": wrong.model_dump_json()})
    fresh = tiny.load_model(backbone("bert"))
    with pytest.raises(AdaptationError, match="does not fit the model"):
        attach(fresh, path, info.base_fingerprint, "tokenizer")
    assert model.head_parameters <= tensors.keys()


def test_statistics_of_norms_belong_to_what_was_learnt() -> None:
    model: Any = tiny.seeded(tiny.TinyConvNet)
    LoRA().apply(model)
    names = learnt_tensors(model).keys()
    assert {"norm.running_mean", "norm.running_var"} <= names
    assert "norm.weight" not in names


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(5, 4)
            self.inner = nn.Linear(4, 4)
            self.output = nn.Linear(4, 5, bias=False)
            self.output.weight = self.embedding.weight

    model = Tied()
    Full().apply(model)
    tensors = learnt_tensors(model)
    save_file(tensors, tmp_path / "c")
    assert set(tensors) == {"embedding.weight", "inner.weight", "inner.bias"}
