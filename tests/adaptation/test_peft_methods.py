"""Methods of the PEFT library as strategies: they train, go into a capsule and back, or are refused with the reason."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.adaptation.test_capsule import info_of
from transferkit.adaptation.adapters import disabled, merge
from transferkit.adaptation.capsule import attach, save_capsule
from transferkit.adaptation.freezing import set_training_mode
from transferkit.adaptation.lora import LoRA
from transferkit.adaptation.peft_methods import PeftMethod
from transferkit.adaptation.strategies import make_strategy
from transferkit.config import StrategySpec
from transferkit.errors import AdaptationError, ConfigError
from transferkit.models.convnet import ConvNet

Folders = Callable[[str], Path]
LAYERED = ("dora", "ia3", "vera", "lora")
PROMPTS = ("prompt-tuning", "p-tuning", "prefix-tuning")
# A prefix is keys and values of earlier tokens, which the attention of these families has no place for.
WITHOUT_PREFIX = ("distilbert", "albert", "deberta", "modernbert")


def spec(method: str, **options: Any) -> StrategySpec:
    return StrategySpec(name=f"peft:{method}", options=options)


# The last one adds random weights that it does not train, and that must come back too.
EVERY = [*itertools.product(tiny.FAMILIES, [*LAYERED, *PROMPTS]), ("bert", "cartridge")]


@pytest.mark.parametrize(("name", "method"), EVERY)
def test_a_method_trains_keeps_the_base_and_comes_back_from_a_capsule(
    name: str, method: str, backbone: Folders, tmp_path: Path
) -> None:
    batch = tiny.make_batch(backbone(name))
    for pooling in ("model", "mean"):
        model = tiny.load_model(backbone(name), pooling)
        base, fingerprint = tiny.logits_of(model, batch), model.fingerprint()
        before = tiny.weights_of(model)
        strategy = make_strategy(spec(method))
        if method == "prefix-tuning" and name in WITHOUT_PREFIX:
            with pytest.raises(AdaptationError, match=r"^peft:prefix-tuning (does not work on|adds nothing to) this"):
                strategy.apply(model)
            continue
        report = strategy.apply(model)
        added = [key for key in report.trainable_names if key not in model.head_parameters]
        assert added
        learnt = {key: p.detach().clone() for key, p in model.named_parameters() if key in added}
        tiny.train_steps(model, batch)
        assert any(not torch.equal(p, learnt[key]) for key, p in model.named_parameters() if key in added)
        trained = tiny.logits_of(model, batch)
        assert not torch.allclose(trained, base, atol=1e-3)
        with disabled(model):
            assert torch.equal(tiny.logits_of(model, batch), base)
            assert not list(tiny.changed_names(before, model))
        assert torch.equal(tiny.logits_of(model, batch), trained)
        path = tmp_path / f"{pooling}.safetensors"
        save_capsule(path, model, info_of(model, spec(method), fingerprint))
        other = tiny.load_model(backbone(name), pooling, seed=9)
        attach(other, path, other.fingerprint(), "tokenizer")
        torch.testing.assert_close(tiny.logits_of(other, batch), trained, atol=1e-6, rtol=0)


# The <eos> of BART is 2, and that of T5 is 1.
@pytest.mark.parametrize("method", LAYERED)
@pytest.mark.parametrize("name", ["bart", "t5"])
def test_a_method_trains_an_encoder_with_a_decoder(name: str, method: str, backbone: Folders) -> None:
    model, batch = tiny.load_model(backbone(name)), tiny.make_batch(backbone(name))
    base = tiny.logits_of(model, batch)
    report = make_strategy(spec(method)).apply(model)
    assert set(report.trainable_names) > model.head_parameters
    tiny.train_steps(model, batch)
    assert not torch.allclose(tiny.logits_of(model, batch), base, atol=1e-3)


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning"])
@pytest.mark.parametrize("name", tiny.FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "first", "model"])
def test_padding_changes_nothing_behind_virtual_tokens(name: str, method: str, pooling: str, backbone: Folders) -> None:
    model = tiny.load_model(backbone(name), pooling)
    make_strategy(spec(method, num_virtual_tokens=5)).apply(model)
    together = tiny.logits_of(model, tiny.make_batch(backbone(name)))
    for row, text in enumerate(tiny.CORPUS):
        alone = tiny.logits_of(model, tiny.make_batch(backbone(name), (text,)))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)


def test_a_causal_head_reads_the_texts_last_token_behind_virtual_ones(backbone: Folders) -> None:
    model = tiny.load_model(backbone("gpt2"))
    make_strategy(spec("prompt-tuning")).apply(model)
    logits = tiny.logits_of(model, tiny.make_batch(backbone("gpt2"), ("good", "bad", "film")))
    assert logits.std(0).min() > 0.01, "logits that do not depend on the text are of a virtual token"


def test_virtual_tokens_take_positions(backbone: Folders) -> None:
    model = tiny.load_model(backbone("bert"))
    make_strategy(spec("prompt-tuning", num_virtual_tokens=10)).apply(model)
    for length, fits in ((54, True), (55, False)):
        ids = torch.full((1, length), 9)
        mask = torch.ones_like(ids, dtype=torch.bool)
        if fits:
            assert model(input_ids=ids, attention_mask=mask).shape == (1, 3)
        else:
            with pytest.raises(AdaptationError, match=r"more than the 64 positions .* use --max-length 54"):
                model(input_ids=ids, attention_mask=mask)


def test_the_backbone_behind_virtual_tokens_is_in_eval_mode(backbone: Folders) -> None:
    model = tiny.load_model(backbone("bert"), "mean")
    make_strategy(spec("p-tuning")).apply(model)
    set_training_mode(model)
    training = {name for name, module in model.named_modules() if module.training and "base_model" in name}
    assert training == set()
    assert any(module.training for name, module in model.named_modules() if "prompt_encoder" in name)


def test_options_of_the_method_and_of_the_training_are_told_apart(backbone: Folders) -> None:
    strategy = make_strategy(spec("dora", r=2, learning_rate=3e-4, target_modules=["query"]))
    assert isinstance(strategy, PeftMethod)
    assert (strategy.learning_rate, strategy.options) == (3e-4, {"r": 2, "target_modules": ["query"]})
    model = tiny.load_model(backbone("bert"))
    names = set(strategy.apply(model).trainable_names) - model.head_parameters
    assert len(names) == 3 * tiny.LAYERS
    assert all(".query.lora_" in name for name in names)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("dorra", {}, "PEFT has no method 'dorra'. Did you mean dora"),
        ("ia3", {"target_module": ["query"]}, "peft:ia3 has no option 'target_module'. Did you mean target_modules"),
        ("dora", {"epochs": 0}, "strategy peft:dora: epochs is 0"),
        ("adalora", {}, "peft:adalora is not to be had: it moves its rank budget"),
        ("adalora", {"total_step": 10}, "peft:adalora is not to be had"),
    ],
)
def test_unknown_methods_and_options_are_refused(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_strategy(spec(method, **options))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        ("multitask-prompt-tuning", {}, "task_ids cannot be None"),
        ("lora", {"r": 0}, "should be a positive integer"),
        ("lora", {"target_modules": ["nothing"]}, "nothing.* not found in the base model"),
        ("lora", {"inference_mode": True}, "adds nothing to this backbone that could train"),
        ("lora", {"init_lora_weights": "pissa"}, "rewrites weights of the base"),
        ("prompt-tuning", {"num_virtual_tokens": 61}, "more than the 64 positions"),
    ],
)
def test_what_the_backbone_cannot_take_is_refused_with_the_reason(
    method: str, options: dict[str, Any], reason: str, backbone: Folders
) -> None:
    with pytest.raises(AdaptationError, match=reason) as error:
        make_strategy(spec(method, **options)).apply(tiny.load_model(backbone("bert")))
    assert str(error.value).startswith(f"peft:{method} ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["dora", "prompt-tuning"])
def test_a_model_that_is_no_text_classifier_is_refused_by_what_it_is(method: str) -> None:
    said = rf"^peft:{method} adapts text classifiers alone, and this model is a ConvNet; use a strategy without peft:"
    with pytest.raises(AdaptationError, match=said):
        make_strategy(spec(method)).apply(ConvNet(10))


@pytest.mark.parametrize("method", ["dora", "prompt-tuning"])
def test_a_model_that_peft_adapted_is_not_merged_or_adapted_again(method: str, backbone: Folders) -> None:
    model = tiny.load_model(backbone("bert"))
    make_strategy(spec(method)).apply(model)
    with pytest.raises(AdaptationError, match="PEFT library are not merged here"):
        merge(model)
    with pytest.raises(AdaptationError, match="has adapters already"):
        LoRA().apply(model)
