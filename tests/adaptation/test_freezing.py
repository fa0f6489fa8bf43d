"""What counts as the head and as the layers of a model whose modules share, wrap or name their weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from tests import tiny
from transferkit.adaptation.adapters import adapter_layers
from transferkit.adaptation.base import Strategy
from transferkit.adaptation.freezing import head_parameters, layer_stack, linears_outside_head, set_training_mode
from transferkit.adaptation.lora import LoRA
from transferkit.adaptation.unfreezing import BitFit, Full, LinearProbe, Partial, Scratch
from transferkit.errors import AdaptationError
from transferkit.models.averaging import AveragingConfig, AveragingEncoder
from transferkit.models.text_encoder import TextEncoder, TextEncoderConfig
from transferkit.models.translator import build_translator

TIED = "head.weight is embedding.weight too, and would train with it; use full or scratch"


class TiedLanguageModel(nn.Module):
    """A head that reads words with the matrix that wrote them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 30)
        self.head.weight = self.embedding.weight


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("strategy", [LinearProbe(), LoRA(rank=2), BitFit(), Partial(patterns=("body",))])
def test_a_head_that_is_tied_to_another_module_is_refused_and_the_model_stays(strategy: Strategy) -> None:
    model = TiedLanguageModel()
    with pytest.raises(AdaptationError, match=f"The head of TiedLanguageModel is tied: {TIED}"):
        strategy.apply(model)
    assert not list(adapter_layers(model))
    assert trainable(model) == {"embedding.weight", "body.weight", "body.bias", "head.bias"}


def test_a_declared_head_that_is_tied_is_refused() -> None:
    model = TiedLanguageModel()
    model.head_parameters = {"head.weight", "head.bias"}
    with pytest.raises(AdaptationError, match=TIED):
        LinearProbe().apply(model)


def test_a_tied_translator_is_refused_by_what_needs_a_head() -> None:
    model = build_translator(20, 20, encoder_layers=1, decoder_layers=1, tied=True, width=8, heads=2, feed_forward=16)
    with pytest.raises(AdaptationError, match=r"projection\.weight is source_embedding\.weight too"):
        LinearProbe().apply(model)


@pytest.mark.parametrize("strategy", [Full(), Scratch()])
def test_a_tied_head_trains_where_everything_does(strategy: Strategy) -> None:
    model = TiedLanguageModel()
    strategy.apply(model)
    assert trainable(model) == {name for name, _ in model.named_parameters()}
    assert model.head.weight is model.embedding.weight


def test_a_module_under_two_names_is_not_tied() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model.add_module("last", model[1])
    LinearProbe().apply(model)
    assert trainable(model) == {"1.weight", "1.bias"}


def test_a_parametrized_head_is_the_head() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.utils.parametrizations.weight_norm(nn.Linear(8, 2)))
    assert linears_outside_head(model) == ["0"]
    LoRA(rank=2).apply(model)
    assert [name for name, _ in adapter_layers(model)] == ["0"]
    weight = "1.parametrizations.weight.original"
    assert trainable(model) == {"0.lora_a", "0.lora_b", "1.bias", f"{weight}0", f"{weight}1"}


def test_a_model_that_is_one_linear_layer_is_its_own_head() -> None:
    assert head_parameters(nn.Linear(4, 2)) == {"weight", "bias"}


def test_a_probe_of_a_model_without_a_head_is_refused(backbone: Callable[[str], Path]) -> None:
    model = tiny.load_model(backbone("bert"), "mean").network
    with pytest.raises(AdaptationError, match="BertModel has no head of its own, and nothing else in it would train"):
        LinearProbe().apply(model)


@pytest.mark.parametrize("encoder", [TextEncoder(TextEncoderConfig()), AveragingEncoder(AveragingConfig())])
def test_an_encoder_of_ours_has_no_head(encoder: nn.Module) -> None:
    assert head_parameters(encoder) == frozenset()
    LoRA(rank=2).apply(encoder)
    assert all(name.rpartition(".")[2] in ("lora_a", "lora_b") for name in trainable(encoder))


class NamedLayers(nn.Module):
    """Layers that have names in the place of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(OrderedDict((f"block{index}", nn.Linear(8, 8)) for index in range(4)))
        self.head = nn.Linear(8, 2)


def test_the_last_layers_are_found_by_the_names_they_have() -> None:
    model = NamedLayers()
    assert layer_stack(model) == ("blocks", ("block0", "block1", "block2", "block3"))
    Partial(layers=1).apply(model)
    assert trainable(model) == {f"{name}.{part}" for name in ("blocks.block3", "head") for part in ("weight", "bias")}
    with pytest.raises(AdaptationError, match="layers is 5, but NamedLayers has 4 in blocks"):
        Partial(layers=5).apply(model)


def test_a_model_that_is_itself_a_row_of_layers() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
    Partial(layers=2).apply(model)
    assert trainable(model) == {"2.weight", "2.bias", "3.weight", "3.bias"}
    with pytest.raises(AdaptationError, match=r"layers is 5, but Sequential has 4\."):
        Partial(layers=5).apply(model)


@pytest.mark.parametrize("decoder_layers", [1, 2])
def test_the_last_layers_of_an_encoder_and_a_decoder_are_the_decoders(decoder_layers: int) -> None:
    model = build_translator(
        20, 20, encoder_layers=2, decoder_layers=decoder_layers, width=8, heads=2, feed_forward=16
    )  # fmt: skip
    Partial(layers=1).apply(model)
    start = f"decoder.layers.{decoder_layers - 1}."
    layer = {name for name, _ in model.named_parameters() if name.startswith(start)}
    assert trainable(model) == layer | {"projection.weight", "projection.bias"}


def test_layers_that_stand_in_several_rows_are_to_be_named() -> None:
    model = nn.Module()
    model.attentions = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    model.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(3))
    model.head = nn.Linear(4, 2)
    message = r"Module has 2 rows of 3 like layers \(attentions, norms\); name parts by pattern instead"
    with pytest.raises(AdaptationError, match=message):
        Partial().apply(model)
    Partial(patterns=("attentions.2.**", "norms.2.**")).apply(model)
    assert {name for name in trainable(model) if not name.startswith("head")} == {
        f"{name}.2.{part}" for name in ("attentions", "norms") for part in ("weight", "bias")
    }


@pytest.mark.parametrize("strategy", [Partial(layers=1), LoRA(targets=("encoder.layer.1.**.query",))])
def test_the_backward_pass_ends_below_the_first_layer_that_trains(
    strategy: Strategy, backbone: Callable[[str], Path]
) -> None:
    model = tiny.load_model(backbone("bert"), "mean")
    strategy.apply(model)
    set_training_mode(model)
    tracked: list[bool] = []
    for layer in model.get_submodule("network.encoder.layer").children():
        layer.register_forward_hook(lambda _, __, output: tracked.append(output.requires_grad))
    model(**tiny.make_batch(backbone("bert"))).sum().backward()
    assert tracked == [False, True]
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trainable(model)
