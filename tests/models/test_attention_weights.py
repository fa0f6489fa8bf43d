"""What a network looks at is shown in every family that has attention, and nothing of it is changed by looking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from transferkit.adaptation.strategies import make_strategy
from transferkit.config import StrategySpec
from transferkit.models.attention_weights import last_attention
from transferkit.models.averaging import AveragingConfig, AveragingEncoder
from transferkit.models.plain_attention import NAME, attention


@pytest.mark.parametrize("pooling", ["mean", "model"])
@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_every_family_shows_its_last_layer(backbone: Callable[[str], Path], name: str, pooling: str) -> None:
    model = tiny.load_model(backbone(name), pooling)
    batch = tiny.make_batch(backbone(name))
    kind, before = model.network.config._attn_implementation, tiny.logits_of(model, batch)
    number, weights = asked(model.network, batch)
    rows, length = batch["input_ids"].shape
    assert (number, weights.shape) == (tiny.LAYERS, (rows, tiny.HEADS, length, length))
    real = batch["attention_mask"]
    of_tokens = weights.transpose(1, 2)[real]
    torch.testing.assert_close(of_tokens.sum(-1), torch.ones(of_tokens.shape[:2]))
    is_padding = ~real[:, None, None, :].expand(weights.shape).transpose(1, 2)[real]
    assert (of_tokens[is_padding] == 0).all()
    assert model.network.config._attn_implementation == kind
    assert torch.equal(tiny.logits_of(model, batch), before)


def test_so_does_one_that_takes_no_mask_of_bools(backbone: Callable[[str], Path]) -> None:
    model, batch = tiny.load_model(backbone("xlnet"), "mean"), tiny.make_batch(backbone("xlnet"))
    number, weights = asked(model.network, batch)
    assert (number, weights.shape[:2]) == (tiny.LAYERS, (len(tiny.CORPUS), tiny.HEADS))


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_an_encoder_decoder_shows_none_of_a_text_that_is_cut_short(backbone: Callable[[str], Path], name: str) -> None:
    model, batch = tiny.load_model(backbone(name)), tiny.make_batch(backbone(name))
    assert last_attention(model.network, {name: tensor[:1, :2] for name, tensor in batch.items()}) is None


def test_fast_kernels_are_in_use_again_afterwards(backbone: Callable[[str], Path]) -> None:
    model = tiny.load_model(backbone("bert"))
    batch = tiny.make_batch(backbone("bert"))
    _, fused = asked(model.network, batch)
    with attention(model.network, "plain"):
        _, plain = asked(model.network, batch)
        assert model.network.config._attn_implementation == NAME
    assert torch.equal(fused, plain)


@pytest.mark.parametrize("pooling", ["mean", "model"])
@pytest.mark.parametrize(
    ("name", "options", "more"),
    [("lora", {"rank": 2}, 0), ("peft:dora", {}, 0), ("peft:prompt-tuning", {"num_virtual_tokens": 3}, 3)],
)
def test_adapted_networks_show_it_too(
    backbone: Callable[[str], Path], name: str, options: dict[str, object], more: int, pooling: str
) -> None:
    model = tiny.load_model(backbone("bert"), pooling)
    make_strategy(StrategySpec(name=name, options=options)).apply(model)
    batch = tiny.make_batch(backbone("bert"))
    _, weights = asked(model.eval().network, batch)
    length = batch["input_ids"].shape[1] + more
    assert weights.shape[1:] == (tiny.HEADS, length, length)


class Mixing(nn.Module):
    """A network without attention, which cannot be asked for it."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """ids and mask [rows, length] -> [rows, length]."""
        return input_ids * attention_mask


@pytest.mark.parametrize(
    "network", [AveragingEncoder(AveragingConfig(vocab_size=9)).eval(), Mixing()], ids=["averaging", "not asked"]
)
def test_where_there_is_nothing_to_show_there_is_no_error(network: nn.Module) -> None:
    ids = torch.ones((1, 3), dtype=torch.int64)
    assert last_attention(network, {"input_ids": ids, "attention_mask": ids.bool()}) is None


@torch.no_grad()
def asked(network: nn.Module, batch: dict[str, Tensor]) -> tuple[int, Tensor]:
    found = last_attention(network, batch)
    assert found is not None
    return found
