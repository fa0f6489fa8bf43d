"""The averaging classifier is its formula, and of its adaptation by LoRA little has to be kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests import tiny
from transferkit.adaptation.capsule import CapsuleInfo, attach, save_capsule
from transferkit.adaptation.strategies import make_strategy
from transferkit.config import BackboneConfig, StrategySpec
from transferkit.errors import AdaptationError
from transferkit.models.averaging import AveragingConfig, AveragingEncoder
from transferkit.models.backbones import Pooling, TextClassifier, load_classifier
from transferkit.models.hub import BackboneFiles

IDS = torch.tensor([[5, 6, 7, 8], [9, 4, 0, 0]])
BATCH = {"input_ids": IDS, "attention_mask": IDS != 0}
LORA = StrategySpec(name="lora", options={"rank": 2, "alpha": 0.1})


def built(pooling: Pooling = "first") -> TextClassifier:
    """In the published sizes: vectors of 100 numbers, 128 hidden ones, two classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        head = nn.Sequential(nn.Dropout(0.1), nn.Linear(128, 2))
        return TextClassifier(AveragingEncoder(AveragingConfig(vocab_size=12)), pooling, head, set()).eval()


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_it_is_its_formula(pooling: Pooling) -> None:
    model = built(pooling)
    table, hidden, head = model.network.embedding.weight, model.network.hidden, model.head[1]
    means = torch.stack([table[IDS[0]].mean(0), table[IDS[1, :2]].mean(0)])
    expected = head(torch.relu(means @ hidden.weight.T + hidden.bias))
    torch.testing.assert_close(model(**BATCH), expected, atol=1e-6, rtol=1e-5)


def test_lora_trains_about_450_numbers_of_12_800() -> None:
    model = built()
    report = make_strategy(LORA).apply(model)
    sizes = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    assert sizes == {
        "network.hidden.lora_a": 2 * 100,
        "network.hidden.lora_b": 128 * 2,
        "head.1.weight": 2 * 128,
        "head.1.bias": 2,
    }
    assert report.trainable_parameters == 456 + 258
    assert model.network.hidden.base.weight.numel() == 12_800
    assert model.network.hidden.scaling == pytest.approx(0.05)


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
def test_it_has_no_attention_for_virtual_tokens(method: str) -> None:
    said = f"^peft:{method} does not work on this backbone: AveragingEncoder has no attention that virtual tokens could"
    with pytest.raises(AdaptationError, match=said):
        make_strategy(StrategySpec(name=f"peft:{method}")).apply(built())


def test_a_b_alpha_and_the_head_bring_it_back(tmp_path: Path) -> None:
    model = built()
    model.network.save_pretrained(tmp_path / "base")
    fingerprint = model.fingerprint()
    make_strategy(LORA).apply(model)
    tiny.train_steps(model, BATCH, learning_rate=0.5)
    info = CapsuleInfo(
        strategy=LORA, task="classification", labels=("neg", "pos"), backbone="base",
        base_fingerprint=fingerprint, tokenizer_hash="same", pooling="first",
    )  # fmt: skip
    save_capsule(tmp_path / "capsule.safetensors", model, info)
    assert load_file(tmp_path / "capsule.safetensors").keys() == {
        "network.hidden.lora_a", "network.hidden.lora_b", "head.1.weight", "head.1.bias",
    }  # fmt: skip
    files = BackboneFiles("base", tmp_path / "base", pooling="first")
    again = load_classifier(files, BackboneConfig(), ("neg", "pos"), 0)
    assert attach(again, tmp_path / "capsule.safetensors", again.fingerprint(), "same").strategy == LORA
    assert torch.equal(tiny.logits_of(again, BATCH), tiny.logits_of(model, BATCH))
    assert not torch.allclose(tiny.logits_of(model, BATCH), tiny.logits_of(built(), BATCH), atol=1e-2)
