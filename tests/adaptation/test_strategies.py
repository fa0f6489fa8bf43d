"""Exactly which parameters train under each strategy, on every family and on plain modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests import tiny
from transferkit.adaptation.adapters import adapter_layers
from transferkit.adaptation.base import AdaptationReport, Strategy
from transferkit.adaptation.bottleneck import Bottleneck, BottleneckLinear
from transferkit.adaptation.lora import LoRA, LoRALinear
from transferkit.adaptation.strategies import STRATEGIES, make_strategy, resolved
from transferkit.adaptation.unfreezing import BitFit, Full, LinearProbe, Partial, Scratch
from transferkit.config import StrategySpec
from transferkit.errors import AdaptationError, ConfigError
from transferkit.models.backbones import TextClassifier
from transferkit.models.translator import build_translator

Folders = Callable[[str], Path]
ADAPTERS = [LoRA(), Bottleneck()]


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def layer_names(model: TextClassifier, family: tiny.Family, index: int) -> set[str]:
    part = f".{family.layers}.{index}."
    return {name for name, _ in model.named_parameters() if part in name}


def wrapped_names(model: nn.Module) -> set[str]:
    return {name for name, _ in adapter_layers(model)}


def linears_in_layers(model: nn.Module, ends: tuple[str, ...]) -> set[str]:
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(tuple(f".{end}" for end in ends))
        if any(part.isdigit() for part in name.split("."))
    }


@pytest.mark.parametrize("pooling", ["model", "mean"])
@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_strategies_that_add_nothing(name: str, pooling: str, backbone: Folders) -> None:
    family = tiny.FAMILIES[name]
    model = tiny.load_model(backbone(name), pooling)
    everything = {key for key, _ in model.named_parameters()}
    head = model.head_parameters
    LinearProbe().apply(model)
    assert trainable(model) == head
    Full().apply(model)
    assert trainable(model) == everything
    Partial(layers=1).apply(model)
    # ALBERT has one group of weights for all its layers.
    last = layer_names(model, family, 0 if name == "albert" else tiny.LAYERS - 1)
    assert last
    assert trainable(model) == head | last
    Scratch().apply(model)
    assert trainable(model) == everything
    biases = {key for key in everything if key.endswith(".bias")}
    if biases - head:
        BitFit().apply(model)
        assert trainable(model) == head | biases
    else:
        assert name == "modernbert"
        with pytest.raises(AdaptationError, match=r"bitfit: .* has no biases outside its head"):
            BitFit().apply(model)


@pytest.mark.parametrize("pooling", ["model", "mean"])
@pytest.mark.parametrize("name", tiny.WITH_LINEARS)
def test_adapters_go_on_attention_and_feed_forward_and_nowhere_else(name: str, pooling: str, backbone: Folders) -> None:
    family = tiny.FAMILIES[name]
    model = tiny.load_model(backbone(name), pooling)
    attention, feed_forward = (linears_in_layers(model, ends) for ends in (family.attention, family.feed_forward))
    if name == "deberta":
        # Its relative positions are projected by layers of their own.
        attention |= linears_in_layers(model, ("pos_key_proj", "pos_query_proj"))
    if name not in ("distilbert", "albert", "modernbert"):
        feed_forward = {key for key in feed_forward if "attention" not in key}
    copies = 1 if name == "albert" else tiny.LAYERS
    assert len(feed_forward) == 2 * copies
    assert len(attention) >= 2 * copies
    report = LoRA(rank=2).apply(model)
    assert wrapped_names(model) == attention | feed_forward
    added = {f"{key}.{part}" for key in attention | feed_forward for part in ("lora_a", "lora_b")}
    assert trainable(model) == model.head_parameters | added
    assert set(report.trainable_names) == trainable(model)

    model = tiny.load_model(backbone(name), pooling)
    Bottleneck(size=3).apply(model)
    assert wrapped_names(model) == feed_forward
    parts = ("down.weight", "down.bias", "up.weight", "up.bias")
    added = {f"{key}.{part}" for key in feed_forward for part in parts}
    assert trainable(model) == model.head_parameters | added


@pytest.mark.parametrize("name", tiny.OTHERS)
def test_the_feed_forward_layers_of_every_stack_are_known(name: str, backbone: Folders) -> None:
    model = tiny.load_model(backbone(name))
    ends = linears_in_layers(model, tiny.OTHERS[name].feed_forward)
    feed_forward = {key for key in ends if "attention" not in key}
    Bottleneck(size=3).apply(model)
    assert feed_forward
    assert wrapped_names(model) == feed_forward


@pytest.mark.parametrize("strategy", ADAPTERS)
def test_a_model_without_linear_layers_is_refused(strategy: Any, backbone: Folders) -> None:
    model = tiny.load_model(backbone("gpt2"))
    with pytest.raises(AdaptationError, match=r"GPT2ForSequenceClassification has no linear layer outside its head"):
        strategy.apply(model)


def test_targets_by_name_and_pattern(backbone: Folders) -> None:
    for targets, expected in (
        (("query", "value"), ("query", "value")),
        ("query, value", ("query", "value")),
        ("layer.*.output.dense", ("0.output.dense", "1.output.dense")),
    ):
        model = tiny.load_model(backbone("bert"))
        make_strategy(StrategySpec(name="lora", options={"targets": targets})).apply(model)
        assert wrapped_names(model) == linears_with_base(model, expected)
    model = tiny.load_model(backbone("distilbert"))
    Bottleneck(targets=("q_lin",)).apply(model)
    assert len(wrapped_names(model)) == tiny.LAYERS
    with pytest.raises(AdaptationError, match=r"'qury' matches no linear layer .* Did you mean .*query"):
        LoRA(targets=("qury",)).apply(tiny.load_model(backbone("bert")))
    with pytest.raises(AdaptationError, match="matches no linear layer outside the head"):
        LoRA(targets=("classifier",)).apply(tiny.load_model(backbone("bert")))


def linears_with_base(model: nn.Module, ends: tuple[str, ...]) -> set[str]:
    """The names that adapters took over from linear layers with one of these ends."""
    names = {name.removesuffix(".base") for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name for name in names if name.endswith(tuple(f".{end}" for end in ends))}


def test_partial_by_pattern_by_layer_and_by_both(backbone: Folders) -> None:
    model = tiny.load_model(backbone("bert"))
    everything = {name for name, _ in model.named_parameters()}
    norms = {name for name in everything if ".LayerNorm." in name}
    layer = layer_names(model, tiny.FAMILIES["bert"], 1)
    Partial(patterns=("**.LayerNorm.*",)).apply(model)
    assert trainable(model) == model.head_parameters | norms
    Partial(patterns=("LayerNorm",)).apply(model)
    assert trainable(model) == model.head_parameters | norms
    Partial(patterns=("encoder.layer.1.**",)).apply(model)
    assert trainable(model) == model.head_parameters | layer
    Partial(patterns=("LayerNorm",), layers=1).apply(model)
    assert trainable(model) == model.head_parameters | norms | layer
    Partial().apply(model)
    assert trainable(model) == model.head_parameters | layer | layer_names(model, tiny.FAMILIES["bert"], 0)
    with pytest.raises(AdaptationError, match=r"layers is 3, but \w+ has 2 in network\.bert\.encoder\.layer"):
        Partial(layers=3).apply(model)
    with pytest.raises(AdaptationError, match=r"'\*\*\.LayerNrm' matches no parameter\. Did you mean .*LayerNorm"):
        Partial(patterns=("**.LayerNrm",)).apply(model)


def test_partial_that_unfreezes_nothing_is_refused(backbone: Folders) -> None:
    model = tiny.load_model(backbone("bert"))
    head = next(iter(model.head_parameters))
    with pytest.raises(AdaptationError, match="names nothing but the head, which trains anyway"):
        Partial(patterns=(head,)).apply(model)
    model.fixed_parameters = frozenset({"network.bert.embeddings.word_embeddings.weight"})
    with pytest.raises(AdaptationError, match=r"\*\*\.word_embeddings names nothing but .* fixed; name other"):
        Partial(patterns=("**.word_embeddings",)).apply(model)


@pytest.mark.parametrize("strategy", ADAPTERS)
def test_adapting_twice_is_refused(strategy: Any, backbone: Folders) -> None:
    model = tiny.load_model(backbone("bert"))
    LoRA(targets=("query",)).apply(model)
    for second in (strategy, Full()):
        with pytest.raises(AdaptationError, match="has adapters already"):
            second.apply(model)
    assert len(wrapped_names(model)) == tiny.LAYERS


def test_the_report_counts_what_trains(backbone: Folders) -> None:
    model = tiny.load_model(backbone("bert"), "mean")
    before = sum(p.numel() for p in model.parameters())
    report = LoRA(rank=2, targets=("query",)).apply(model)
    added, head = tiny.LAYERS * 2 * 2 * tiny.WIDTH, len(tiny.LABELS) * (tiny.WIDTH + 1)
    assert report.trainable_parameters == added + head
    assert report.total_parameters == before + added
    assert report.total_bytes == 4 * report.total_parameters
    assert report.strategy == "LoRA"
    names = ("layer.0.key.lora_a", "layer.1.key.lora_a", "b", "c", "head.weight", "head.bias")
    shown = str(AdaptationReport("LoRA", names, 592_130, 22_713_986, 90_855_944)).replace("\u00a0", " ")
    assert shown == (
        "592,130 of 22,713,986 parameters train (2.61 %; 90.9 MB in all): "
        "layer.*.key.lora_a x 2, b, c, head.weight and 1 more"
    )


@pytest.mark.parametrize("name", tiny.FAMILIES)
@pytest.mark.parametrize("pooling", ["model", "mean"])
def test_scratch_draws_all_weights_as_a_new_model_has_them(name: str, pooling: str, backbone: Folders) -> None:
    from transformers import AutoModel, AutoModelForSequenceClassification

    model = tiny.load_model(backbone(name), pooling)
    before = tiny.weights_of(model)
    kind = AutoModelForSequenceClassification if pooling == "model" else AutoModel
    torch.manual_seed(5)
    Scratch().apply(model)
    fresh = dict(kind.from_config(model.network.config).named_parameters())
    for key, parameter in model.network.named_parameters():
        # Norms and biases begin as constants, equal in both; other weights are samples of one distribution, whose
        # mean and deviation are known to within five standard errors.
        spread, count = fresh[key].std().item(), parameter.numel()
        near = 5 * spread * (2 / count) ** 0.5
        assert parameter.mean().item() == pytest.approx(fresh[key].mean().item(), abs=near + 1e-7), key
        assert parameter.std().item() == pytest.approx(spread, abs=near + 1e-7), key
        assert not torch.equal(parameter, before[f"network.{key}"]) or parameter.std() == 0, key
    if model.head is not None:
        assert not torch.equal(before["head.1.weight"], model.state_dict()["head.1.weight"])


def test_scratch_is_the_same_for_the_same_seed(backbone: Folders) -> None:
    drawn = []
    for load_seed, seed in ((1, 7), (2, 7), (1, 8)):
        model = tiny.load_model(backbone("bert"), "mean", seed=load_seed)
        torch.manual_seed(seed)
        Scratch().apply(model)
        drawn.append(tiny.weights_of(model))
    assert all(torch.equal(drawn[0][key], drawn[1][key]) for key in drawn[0])
    assert not torch.equal(drawn[0]["head.1.weight"], drawn[2]["head.1.weight"])


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_scratch_draws_what_a_model_draws_after_its_layers(tied: bool) -> None:
    def born() -> nn.Module:
        return build_translator(
            90, 90, encoder_layers=1, decoder_layers=1, tied=tied, width=48, heads=2, feed_forward=96
        )  # fmt: skip

    model, fresh = born(), dict(born().named_parameters())
    before = tiny.weights_of(model)
    Scratch().apply(model)
    for key, parameter in model.named_parameters():
        if parameter.ndim > 1:
            assert not torch.equal(parameter, before[key]), key
            # Of so many draws the deviation is known to within some percent; torch's own start is far from it.
            assert parameter.std().item() == pytest.approx(fresh[key].std().item(), rel=0.1), key


def test_scratch_leaves_torchs_attention_as_torch_begins_it() -> None:
    model = tiny.seeded(tiny.TinyTransformer)
    Scratch().apply(model)
    assert not model.encoder.layers[0].self_attn.out_proj.bias.any()


def test_scratch_refuses_what_it_cannot_draw() -> None:
    class Learnt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions = nn.Parameter(torch.randn(4))
            self.output = nn.Linear(4, 2)

    with pytest.raises(AdaptationError, match="does not say how positions is drawn"):
        Scratch().apply(Learnt())


def test_scaling_of_lora() -> None:
    assert LoRA(rank=4, alpha=8).scaling == 2
    assert LoRA(rank=16, alpha=8, rank_stabilised=True).scaling == 2
    assert LoRA(rank=16, alpha=8).scaling == 0.5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("loar", {}, "no strategy 'loar'. Did you mean lora"),
        ("lora", {"rnk": 4}, "strategy lora: there is no setting 'rnk'. Did you mean rank"),
        ("lora", {"rank": 0}, "strategy lora: rank is 0: input should be greater than or equal to 1"),
        ("lora", {"alpha": 0}, "strategy lora: alpha is 0"),
        ("lora", {"dropout": 1.0}, "strategy lora: dropout is 1.0"),
        ("lora", {"targets": 3}, "strategy lora: targets is 3"),
        ("bottleneck", {"size": -1}, "strategy bottleneck: size is -1"),
        ("partial", {"layers": 0}, "strategy partial: layers is 0"),
        ("full", {"layers": 2}, "strategy full: there is no setting 'layers'"),
        ("full", {"learning_rate": -1}, "strategy full: learning_rate is -1"),
        ("full", {"epochs": 1.5}, "strategy full: epochs is 1.5"),
        ("bitfit", {"warmup": 0.1}, "there is no setting 'warmup'. Did you mean warmup_ratio"),
    ],
)
def test_options_are_checked_by_name_and_range(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_strategy(StrategySpec(name=name, options=options))
    assert message in str(error.value)


def test_every_strategy_is_frozen_and_has_its_defaults() -> None:
    assert list(STRATEGIES) == ["scratch", "linear-probe", "partial", "bitfit", "bottleneck", "lora", "full"]
    for name in STRATEGIES:
        strategy = make_strategy(StrategySpec(name=name))
        assert strategy.keeps_whole_model == (name in ("scratch", "full"))
        with pytest.raises(ValueError, match="frozen"):
            strategy.epochs = 9


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (
            StrategySpec(name="lora", options={"rank": 2, "targets": "query, value"}),
            {"rank": 2, "alpha": 8.0, "dropout": 0.0, "rank_stabilised": False, "targets": ["query", "value"]},
        ),
        (StrategySpec(name="bottleneck", options={"epochs": 5}), {"epochs": 5, "size": 24, "targets": []}),
        (StrategySpec(name="linear-probe"), {}),
        (StrategySpec(name="peft:dora", options={"r": 2}), {"r": 2}),
    ],
    ids=lambda value: value.name if isinstance(value, StrategySpec) else "",
)
def test_a_resolved_specification_says_every_option_that_shapes_the_model(
    spec: StrategySpec, options: dict[str, Any]
) -> None:
    assert resolved(spec) == StrategySpec(name=spec.name, options=options)
    assert resolved(resolved(spec)) == resolved(spec)


@pytest.mark.parametrize("kind", [tiny.TinyConvNet, tiny.TinyTransformer])
def test_any_module_with_linear_layers_can_be_adapted(kind: type[nn.Module]) -> None:
    head = {"output.weight", "output.bias"} if kind is tiny.TinyConvNet else {"classifier.weight", "classifier.bias"}
    # torch's attention reads the weight of its output layer without calling it: no adapter can stand there.
    names = {"hidden"} if kind is tiny.TinyConvNet else {
        f"encoder.layers.{layer}.linear{number}" for layer in range(tiny.LAYERS) for number in (1, 2)
    }  # fmt: skip
    model = tiny.seeded(kind)
    LoRA().apply(model)
    assert wrapped_names(model) == names
    assert trainable(model) == head | {f"{name}.{part}" for name in names for part in ("lora_a", "lora_b")}
    assert all(isinstance(layer, LoRALinear) for _, layer in adapter_layers(model))
    model = tiny.seeded(kind)
    Bottleneck(size=2, targets=() if kind is tiny.TinyTransformer else ("hidden",)).apply(model)
    assert wrapped_names(model) == names
    assert all(isinstance(layer, BottleneckLinear) for _, layer in adapter_layers(model))
    model = tiny.seeded(kind)
    LinearProbe().apply(model)
    assert trainable(model) == head
    BitFit().apply(model)
    assert trainable(model) == head | {name for name, _ in model.named_parameters() if name.endswith("bias")}
    Scratch().apply(model)
    assert trainable(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_biases_of_a_recurrent_layer_train_with_bitfit(kind: Any) -> None:
    model = nn.ModuleDict({"recurrent": kind(4, 5, bidirectional=True), "head": nn.Linear(10, 2)})
    BitFit().apply(model)
    biases = {f"recurrent.bias_{part}_l0{side}" for part in ("ih", "hh") for side in ("", "_reverse")}
    assert trainable(model) == biases | {"head.weight", "head.bias"}


def test_a_convolutional_net_has_no_feed_forward_pair_and_no_layers() -> None:
    with pytest.raises(AdaptationError, match="feed-forward layers of TinyConvNet are not known by name"):
        Bottleneck().apply(tiny.seeded(tiny.TinyConvNet))
    with pytest.raises(AdaptationError, match="no row of like layers; name parts by pattern"):
        Partial().apply(tiny.seeded(tiny.TinyConvNet))
    model = tiny.seeded(tiny.TinyConvNet)
    Partial(patterns=("convolution",)).apply(model)
    assert trainable(model) == {"convolution.weight", "convolution.bias", "output.weight", "output.bias"}


def test_layers_of_a_transformer_of_torch() -> None:
    model = tiny.seeded(tiny.TinyTransformer)
    Partial(layers=1).apply(model)
    last = {name for name, _ in model.named_parameters() if name.startswith("encoder.layers.1.")}
    assert trainable(model) == last | {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("strategy", [Partial(layers=1), LoRA(targets=["**.layer.1.**.query"])], ids=lambda s: s.name)
def test_no_gradient_goes_below_the_first_layer_that_trains(strategy: Strategy, backbone: Folders) -> None:
    model = tiny.load_model(backbone("bert"))
    strategy.apply(model)
    reached = []
    for layer in model.network.bert.encoder.layer:
        layer.register_forward_hook(lambda _module, _inputs, output: reached.append(output[0].requires_grad))
    model(input_ids=torch.ones((1, 4), dtype=torch.int64), attention_mask=torch.ones((1, 4), dtype=torch.bool))
    assert reached == [False, True]
