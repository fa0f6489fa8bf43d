"""The text encoder: padding is nothing to it, its vectors are as given, and strategies adapt it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from transferkit.adaptation.strategies import make_strategy
from transferkit.config import StrategySpec
from transferkit.models.layers import Shape
from transferkit.models.text_encoder import TextEncoder

# The setting of the published playbook: word vectors of 100 numbers, two layers, two heads.
SHAPE = Shape(width=100, heads=2, feed_forward=128, pre_norm=False)
IDS = torch.tensor([[5, 6, 7, 8], [9, 4, 0, 0]])


@pytest.fixture
def vectors() -> Tensor:
    return torch.randn(12, 100, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(vectors: Tensor) -> TextEncoder:
    torch.manual_seed(1)
    return TextEncoder(vectors, 2, SHAPE, classes=4).eval()


def test_padding_changes_no_logit(model: TextEncoder) -> None:
    together = model(IDS, IDS != 0)
    alone = model(IDS[1:, :2], IDS[1:, :2] != 0)
    assert together.shape == (2, 4)
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


def test_it_equals_torch(model: TextEncoder, vectors: Tensor) -> None:
    layer = nn.TransformerEncoderLayer(100, 2, 128, batch_first=True)
    twin = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    for ours, theirs in zip(model.encoder.layers, twin.layers, strict=True):
        parts = (ours.attention.query, ours.attention.key, ours.attention.value)
        with torch.no_grad():
            theirs.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            theirs.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.self_attn.out_proj.load_state_dict(ours.attention.output.state_dict())
        theirs.linear1.load_state_dict(ours.feed_forward.linear1.state_dict())
        theirs.linear2.load_state_dict(ours.feed_forward.linear2.state_dict())
        theirs.norm1.load_state_dict(ours.residuals[0].norm.state_dict())
        theirs.norm2.load_state_dict(ours.residuals[1].norm.state_dict())
    real = IDS != 0
    states = twin(vectors[IDS] * 10 + model.positions.table[:4], src_key_padding_mask=~real)
    mean = torch.stack([row[keep].mean(0) for row, keep in zip(states, real, strict=True)])
    torch.testing.assert_close(model(IDS, real), model.head(mean), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("freeze", [False, True])
def test_vectors_are_those_given_and_train_unless_frozen(vectors: Tensor, freeze: bool) -> None:
    model = TextEncoder(vectors, 1, SHAPE, classes=2, freeze_vectors=freeze)
    assert torch.equal(model.embedding.weight, vectors)
    assert model.embedding.weight is not vectors
    assert model.embedding.weight.requires_grad is not freeze


def test_vectors_of_another_width_are_refused(vectors: Tensor) -> None:
    with pytest.raises(ValueError, match="The word vectors have 50 numbers each, and the layers 100"):
        TextEncoder(vectors[:, :50], 1, SHAPE, classes=2)


@pytest.mark.parametrize(
    ("strategy", "options", "trains"),
    [
        ("linear-probe", {}, []),
        ("partial", {"patterns": ["**.linear2"]}, ["linear2"]),
        (
            "bottleneck",
            {"targets": ["linear1", "linear2"]},
            ["linear1.down", "linear1.up", "linear2.down", "linear2.up"],
        ),
        ("lora", {"rank": 2}, ["lora_a", "lora_b"]),
    ],
)
def test_strategies_adapt_it(model: TextEncoder, strategy: str, options: dict[str, object], trains: list[str]) -> None:
    before = model(IDS, IDS != 0)
    report = make_strategy(StrategySpec(name=strategy, options=options)).apply(model)
    assert model.head_parameters <= set(report.trainable_names)
    others = [name for name in report.trainable_names if name not in model.head_parameters]
    assert bool(others) == bool(trains)
    assert all(any(f".{part}" in name for part in trains) for name in others)
    torch.testing.assert_close(model.eval()(IDS, IDS != 0), before, atol=1e-2, rtol=1e-2)
