"""What adapters promise: the base at the start and on demand, untouched by training, and one plain model at the end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from transferkit.adaptation.adapters import adapter_layers, disabled, merge
from transferkit.adaptation.base import Strategy
from transferkit.adaptation.bottleneck import Bottleneck, BottleneckLinear
from transferkit.adaptation.lora import LoRA, LoRALinear
from transferkit.adaptation.strategies import STRATEGIES, make_strategy
from transferkit.adaptation.unfreezing import BitFit, Full, LinearProbe, Partial, Scratch
from transferkit.config import StrategySpec
from transferkit.errors import AdaptationError

Folders = Callable[[str], Path]
GENERIC = ("cnn", "transformer")
ADAPTABLE = (*tiny.WITH_LINEARS, *GENERIC)
RANK_STABILISED = LoRA(rank=3, alpha=5, rank_stabilised=True, dropout=0.1)


def model_and_batch(name: str, backbone: Folders, pooling: str = "model") -> tuple[nn.Module, Mapping[str, Tensor]]:
    """A model by family, or a plain module with a batch that has padding where the model takes it."""
    random = torch.Generator().manual_seed(4)
    if name == "cnn":
        return tiny.seeded(tiny.TinyConvNet), {"x": torch.randn(5, 8, generator=random)}
    if name == "transformer":
        padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2, [False] * 2 + [True] * 4])
        x = torch.randn(3, 6, tiny.WIDTH, generator=random)
        return tiny.seeded(tiny.TinyTransformer), {"x": x, "padding": padding}
    return tiny.load_model(backbone(name), pooling), tiny.make_batch(backbone(name))


def bottleneck(name: str) -> Bottleneck:
    return Bottleneck(size=4, targets=("hidden",) if name == "cnn" else ())


@pytest.mark.parametrize("name", ADAPTABLE)
def test_lora_starts_as_the_base_and_bottleneck_near_it(name: str, backbone: Folders) -> None:
    model, batch = model_and_batch(name, backbone)
    base = tiny.logits_of(model, batch)
    LoRA().apply(model)
    torch.testing.assert_close(tiny.logits_of(model, batch), base, atol=1e-6, rtol=0)
    model, _ = model_and_batch(name, backbone)
    bottleneck(name).apply(model)
    moved = (tiny.logits_of(model, batch) - base).abs().max()
    assert 0 < moved < 0.02


@pytest.mark.parametrize("name", ADAPTABLE)
@pytest.mark.parametrize("kind", ["lora", "bottleneck", "linear-probe"])
def test_training_leaves_every_frozen_bit_and_disabled_gives_the_base(name: str, kind: str, backbone: Folders) -> None:
    model, batch = model_and_batch(name, backbone)
    base = tiny.logits_of(model, batch)
    before = tiny.weights_of(model)
    strategy: Strategy = {"lora": LoRA(dropout=0.1), "bottleneck": bottleneck(name), "linear-probe": LinearProbe()}[
        kind
    ]
    strategy.apply(model)
    frozen = {id(p) for p in model.parameters() if not p.requires_grad}
    tiny.train_steps(model, batch)
    trained = tiny.logits_of(model, batch)
    assert not torch.allclose(trained, base, atol=1e-3), "training moves the logits"
    with disabled(model):
        assert torch.equal(tiny.logits_of(model, batch), base)
        assert not list(tiny.changed_names(before, model)), "names and bits are those of the base"
    assert torch.equal(tiny.logits_of(model, batch), trained)
    assert {id(p) for p in model.parameters() if not p.requires_grad} == frozen


@pytest.mark.parametrize("name", ADAPTABLE)
@pytest.mark.parametrize("strategy", [LoRA(), RANK_STABILISED])
def test_merging_gives_a_plain_model_with_equal_logits(name: str, strategy: LoRA, backbone: Folders) -> None:
    model, batch = model_and_batch(name, backbone)
    names = [key for key, _ in model.named_parameters()]
    kinds = [type(module) for module in model.modules()]
    strategy.apply(model)
    tiny.train_steps(model, batch)
    unmerged = tiny.logits_of(model, batch)
    assert merge(model) is model
    merged = tiny.logits_of(model, batch)
    torch.testing.assert_close(merged, unmerged, atol=1e-5, rtol=0)
    assert [key for key, _ in model.named_parameters()] == names
    assert [type(module) for module in model.modules()] == kinds
    once = tiny.weights_of(model)
    merge(model)
    assert not list(tiny.changed_names(once, model))
    assert torch.equal(tiny.logits_of(model, batch), merged)


def test_a_merged_model_can_be_adapted_anew_and_is_its_own_base(backbone: Folders) -> None:
    model, batch = model_and_batch("bert", backbone)
    LoRA().apply(model)
    tiny.train_steps(model, batch)
    merged = tiny.logits_of(merge(model), batch)
    with disabled(model):
        assert torch.equal(tiny.logits_of(model, batch), merged)
    LoRA(targets=("query",)).apply(model)
    tiny.train_steps(model, batch)
    with disabled(model):
        assert torch.equal(tiny.logits_of(model, batch), merged)


def test_bottleneck_adapters_cannot_be_merged_and_stay(backbone: Folders) -> None:
    model, batch = model_and_batch("bert", backbone)
    Bottleneck(size=2).apply(model)
    tiny.train_steps(model, batch)
    before = tiny.logits_of(model, batch)
    with pytest.raises(AdaptationError, match="cannot be merged: their ReLU"):
        merge(model)
    assert torch.equal(tiny.logits_of(model, batch), before)
    assert len(list(adapter_layers(model))) == 2 * tiny.LAYERS


@pytest.mark.parametrize("name", tiny.OTHERS)
@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_adapters_work_where_a_family_reads_the_weight_of_its_layers(name: str, kind: str, backbone: Folders) -> None:
    model, batch = model_and_batch(name, backbone)
    base = tiny.logits_of(model, batch)
    strategy: Strategy = {"lora": LoRA(), "bottleneck": Bottleneck(size=4)}[kind]
    strategy.apply(model)
    tiny.train_steps(model, batch)
    trained = tiny.logits_of(model, batch)
    assert not torch.allclose(trained, base, atol=1e-3)
    with disabled(model):
        assert torch.equal(tiny.logits_of(model, batch), base)
    if kind == "lora":
        torch.testing.assert_close(tiny.logits_of(merge(model), batch), trained, atol=1e-5, rtol=0)


def test_weight_and_bias_of_an_adapter_are_its_layers_and_no_parameters_of_its_own() -> None:
    base = nn.Linear(2, 3)
    layer = LoRALinear(base, rank=1, scaling=1.0, dropout=0.0)
    assert layer.weight is base.weight
    assert layer.bias is base.bias
    assert set(layer.state_dict()) == {"base.weight", "base.bias", "lora_a", "lora_b"}


def test_merging_a_model_without_adapters_changes_nothing(backbone: Folders) -> None:
    model, _ = model_and_batch("bert", backbone)
    before = tiny.weights_of(model)
    merge(model)
    assert not list(tiny.changed_names(before, model))


def test_disabled_nests_and_survives_exceptions(backbone: Folders) -> None:
    model, batch = model_and_batch("roberta", backbone)
    base = tiny.logits_of(model, batch)
    LoRA().apply(model)
    tiny.train_steps(model, batch)
    trained = tiny.logits_of(model, batch)
    with disabled(model):
        with disabled(model):
            assert torch.equal(tiny.logits_of(model, batch), base)
        assert torch.equal(tiny.logits_of(model, batch), base)
    assert torch.equal(tiny.logits_of(model, batch), trained)
    with pytest.raises(KeyError), disabled(model):
        raise KeyError("inside")
    assert torch.equal(tiny.logits_of(model, batch), trained)
    tiny.train_steps(model, batch)
    assert not torch.equal(tiny.logits_of(model, batch), trained), "it trains on afterwards"
    with disabled(model):
        assert torch.equal(tiny.logits_of(model, batch), base)


@pytest.mark.parametrize("strategy", [Full(), Scratch(), Partial(layers=1), BitFit()])
def test_disabled_is_refused_where_the_base_is_trained_away(strategy: Strategy, backbone: Folders) -> None:
    model, _ = model_and_batch("bert", backbone)
    strategy.apply(model)
    with pytest.raises(AdaptationError, match="The base cannot answer"), disabled(model):
        pass


def test_disabled_leaves_a_model_that_was_never_adapted_alone(backbone: Folders) -> None:
    model, batch = model_and_batch("bert", backbone)
    base = tiny.logits_of(model, batch)
    with disabled(model):
        assert torch.equal(tiny.logits_of(model, batch), base)


@pytest.mark.parametrize("strategy", [LoRA(dropout=0.5), Bottleneck(size=2)])
def test_a_copy_of_an_adapted_model_stands_on_its_own(strategy: Strategy, backbone: Folders) -> None:
    model, batch = model_and_batch("bert", backbone)
    base = tiny.logits_of(model, batch)
    strategy.apply(model)
    twin = copy.deepcopy(model)
    untrained = tiny.logits_of(model, batch)
    tiny.train_steps(twin, batch)
    assert torch.equal(tiny.logits_of(model, batch), untrained)
    with disabled(twin):
        assert torch.equal(tiny.logits_of(twin, batch), base)


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
def test_train_and_eval_touch_no_weight(kind: str, backbone: Folders) -> None:
    model, batch = model_and_batch("bert", backbone)
    make_strategy(StrategySpec(name=kind)).apply(model)
    tiny.train_steps(model, batch, steps=1)
    before, logits = tiny.weights_of(model), tiny.logits_of(model, batch)
    for _ in range(2):
        model.train()
        assert not list(tiny.changed_names(before, model))
        model.eval()
        assert not list(tiny.changed_names(before, model))
    assert torch.equal(tiny.logits_of(model, batch), logits)


def test_a_transformer_of_torch_keeps_its_fused_path_without_adapters_only() -> None:
    model, batch = model_and_batch("transformer", lambda _: Path())
    assert calls_of_linear1(model, batch) == 0, "torch's fused kernel reads the weights and calls no layer"
    LoRA().apply(model)
    assert calls_of_linear1(model, batch) == tiny.LAYERS
    with disabled(model):
        assert calls_of_linear1(model, batch) == 0
    assert calls_of_linear1(model, batch) == tiny.LAYERS
    merge(model)
    assert calls_of_linear1(model, batch) == 0


def calls_of_linear1(model: Any, batch: Mapping[str, Tensor]) -> int:
    calls: list[int] = []
    inner = [getattr(layer.linear1, "base", layer.linear1) for layer in model.encoder.layers]
    originals = [linear.forward for linear in inner]
    for linear, original in zip(inner, originals, strict=True):
        # Patched and not hooked: a hook would itself turn the fused path off.
        linear.forward = lambda x, original=original: (calls.append(1), original(x))[1]
    tiny.logits_of(model, batch)
    for linear in inner:
        del linear.forward
    return len(calls)


def test_the_lora_layer_by_hand() -> None:
    base = nn.Linear(2, 2, bias=False)
    layer = LoRALinear(base, rank=1, scaling=3.0, dropout=0.0)
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        layer.lora_a.copy_(torch.tensor([[1.0, 2.0]]))
        layer.lora_b.copy_(torch.tensor([[1.0], [-1.0]]))
    # A x = 1 + 2 * 2 = 5, times 3 is 15, on to B.
    assert layer(torch.tensor([1.0, 2.0])).tolist() == [16.0, -13.0]
    assert layer.merged().weight.tolist() == [[4.0, 6.0], [-3.0, -5.0]]
    assert layer.merged().bias is None


def test_the_bottleneck_layer_by_hand() -> None:
    layer = BottleneckLinear(nn.Linear(1, 2), size=1)
    with torch.no_grad():
        for parameter, values in (
            (layer.base.weight, [[1.0], [2.0]]), (layer.base.bias, [0.0, 1.0]),
            (layer.down.weight, [[1.0, 1.0]]), (layer.down.bias, [-5.0]),
            (layer.up.weight, [[1.0], [10.0]]), (layer.up.bias, [0.5, 0.0]),
        ):  # fmt: skip
            parameter.copy_(torch.tensor(values))
    # y = [3, 7]; down is 10 - 5 = 5; up is [5.5, 50]. At x = 0 the ReLU is shut: y = [0, 1], up is its bias.
    assert layer(torch.tensor([3.0])).tolist() == [8.5, 57.0]
    assert layer(torch.tensor([0.0])).tolist() == [0.5, 1.0]


def test_lora_dropout_acts_in_training_only() -> None:
    layer = LoRALinear(nn.Linear(16, 4), rank=2, scaling=1.0, dropout=0.5)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(3, 16)
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    torch.testing.assert_close(layer(x), layer.merged()(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("strategy", [LoRA(rank=1), Bottleneck(size=1, targets=("0",))], ids=lambda one: one.name)
def test_adapters_take_the_precision_of_their_layer(strategy: Strategy, dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).to(dtype)
    strategy.apply(model)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model(torch.ones(1, 4, dtype=dtype)).dtype == dtype
    if isinstance(strategy, LoRA):
        assert merge(model)[0].weight.dtype == dtype
