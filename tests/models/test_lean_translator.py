"""The inference form of the translator: step by step the same numbers as of whole targets at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from transferkit.adaptation.base import Strategy
from transferkit.adaptation.bottleneck import Bottleneck
from transferkit.adaptation.lora import LoRA
from transferkit.config import Precision
from transferkit.errors import AdaptationError
from transferkit.models.lean_translator import LayerCache, LeanTranslator
from transferkit.models.translator import Translator, build_translator

SOURCE = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]])
# Longer than what keys and values have space for at first.
TARGET = torch.arange(2 * 20).view(2, 20) % 13


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=[(True, "relu", False), (False, "gelu", False), (True, "gelu", True)], ids=str)
def model(request: pytest.FixtureRequest) -> Translator:
    torch.manual_seed(0)
    pre_norm, activation, tied = request.param
    model = build_translator(
        13, 13, encoder_layers=2, decoder_layers=2, tied=tied, pre_norm=pre_norm, activation=activation, width=12,
        heads=3, feed_forward=20, dropout=0.5,
    )  # fmt: skip
    for parameter in model.parameters():
        # Norms and biases too, so that it shows where they are.
        torch.nn.init.normal_(parameter, mean=0.05, std=0.3)
    return model


def stepped(
    decoder: LeanTranslator, caches: list[LayerCache], target: Tensor, mask: Tensor | None, first: int = 0
) -> Tensor:
    """Log-probabilities [B, T, V] of all positions from `first` on."""
    steps = [decoder.step(tokens, first + place, caches, mask) for place, tokens in enumerate(target.unbind(1))]
    return torch.stack(steps, 1)


@pytest.mark.usefixtures("weights_in_either_order")
@pytest.mark.parametrize("masked", [True, False])
def test_steps_equal_whole_targets(model: Translator, masked: bool) -> None:
    mask = SOURCE != 0 if masked else None
    decoder = LeanTranslator(model, "fp32")
    expected = model(SOURCE, mask, TARGET).log_softmax(-1)
    torch.testing.assert_close(
        stepped(decoder, decoder.begin(SOURCE, mask), TARGET, mask), expected, atol=1e-5, rtol=1e-5
    )


def test_targets_of_one_source_go_on_in_any_order(model: Translator) -> None:
    mask = SOURCE != 0
    decoder = LeanTranslator(model, "fp32")
    caches = decoder.begin(SOURCE, mask)
    stepped(decoder, caches, TARGET[:, :2], mask)
    # Two targets of either source, and then the second source alone, with three.
    both = [cache.rows(torch.tensor([0, 0, 1, 1])) for cache in caches]
    targets = torch.cat([TARGET[[0, 0, 1, 1], :2], torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]])], 1)
    found = stepped(decoder, both, targets[:, 2:], mask, first=2)
    expected = model(SOURCE[[0, 0, 1, 1]], mask[[0, 0, 1, 1]], targets).log_softmax(-1)[:, 2:]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    second = [cache.rows(torch.tensor([3, 2, 3]), torch.tensor([1])) for cache in both]
    longer = torch.cat([targets[[3, 2, 3]], torch.tensor([[9], [10], [11]])], 1)
    found = stepped(decoder, second, longer[:, 4:], mask[1:], first=4)
    expected = model(SOURCE[[1, 1, 1]], mask[[1, 1, 1]], longer).log_softmax(-1)[:, 4:]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("weights_in_either_order")
def test_bf16_is_near(model: Translator) -> None:
    decoder = LeanTranslator(model, "bf16")
    expected = model(SOURCE, None, TARGET).log_softmax(-1)
    found = stepped(decoder, decoder.begin(SOURCE, None), TARGET, None)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.3, rtol=0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_the_model_learns_later_changes_nothing(model: Translator, precision: Precision) -> None:
    decoder = LeanTranslator(model, precision)
    caches = decoder.begin(SOURCE, None)
    before = decoder.step(TARGET[:, 0], 0, caches, None)
    for layer in model.decoder.layers:
        for parameter in layer.parameters():
            parameter.add_(1.0)
    caches = decoder.begin(SOURCE, None)
    assert torch.equal(decoder.step(TARGET[:, 0], 0, caches, None), before)


@pytest.mark.parametrize("strategy", [LoRA(rank=2), Bottleneck(size=2)], ids=lambda one: one.name)
def test_adapters_are_to_be_merged_first(strategy: Strategy) -> None:
    model = build_translator(13, 13, encoder_layers=1, decoder_layers=1, width=12, heads=3, feed_forward=20)
    strategy.apply(model)
    name = r"no (LoRA|Bottleneck)Linear, which stands at encoder\.layers\.0\."
    with pytest.raises(AdaptationError, match=f"inference form of a translator has {name}.*; merge adapters first"):
        LeanTranslator(model, "fp32")
