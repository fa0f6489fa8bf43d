"""The translator: what it must never see, what it looks at, and its start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from transferkit.models.dropout import CheapDropout
from transferkit.models.layers import Shape
from transferkit.models.translator import Translator, build_translator

SMALL = {"width": 12, "heads": 3, "feed_forward": 20, "dropout": 0.1}


@pytest.fixture(params=[True, False], ids=["pre-norm", "post-norm"])
def translator(request: pytest.FixtureRequest) -> Translator:
    torch.manual_seed(0)
    return build_translator(11, 13, encoder_layers=2, decoder_layers=2, pre_norm=request.param, **SMALL).eval()


@pytest.fixture
def source() -> Tensor:
    return torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]])


@pytest.fixture
def target() -> Tensor:
    return torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])


def test_padding_changes_nothing(translator: Translator, source: Tensor, target: Tensor) -> None:
    mask = source != 0
    together = translator(source, mask, target)
    alone = translator(source[1:, :3], None, target[1:])
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)
    changed = source.where(mask, torch.tensor(9))
    assert torch.equal(translator(changed, mask, target), together)


def test_the_future_changes_no_past(translator: Translator, source: Tensor, target: Tensor) -> None:
    later = target.clone()
    later[:, 2:] = 9
    before, after = translator(source, None, target), translator(source, None, later)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2:], after[:, 2:])


def test_projection_gives_log_probabilities(translator: Translator, source: Tensor, target: Tensor) -> None:
    states = translator.decode(target, translator.encode(source))
    log_probabilities = translator.project(states)
    assert log_probabilities.shape == (2, 4, 13)
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(2, 4))
    torch.testing.assert_close(log_probabilities, translator(source, None, target).log_softmax(-1))


def test_attentions_are_those_of_every_layer_and_head(translator: Translator, source: Tensor, target: Tensor) -> None:
    states, seen = translator.look(source, source != 0, target)
    torch.testing.assert_close(states, translator.decode(target, translator.encode(source, source != 0), source != 0))
    assert [tuple(weights.shape) for weights in seen.encoder] == [(2, 3, 5, 5)] * 2
    assert [tuple(weights.shape) for weights in seen.decoder] == [(2, 3, 4, 4)] * 2
    assert [tuple(weights.shape) for weights in seen.cross] == [(2, 3, 4, 5)] * 2
    for weights in (*seen.encoder, *seen.decoder, *seen.cross):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert all((weights.triu(1) == 0).all() for weights in seen.decoder)
    assert all((weights[1, ..., 3:] == 0).all() for weights in (*seen.encoder, *seen.cross))


def test_the_default_is_the_base_model_of_the_paper() -> None:
    with torch.device("meta"):
        model = build_translator(37000, 37000, tied=True)
    # Table 3 says 65 million; norms at the end of both stacks and the positions, which are not learnt, change little.
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(63.1e6, rel=0.01)
    assert (len(model.encoder.layers), len(model.decoder.layers)) == (6, 6)
    assert model.shape == Shape(width=512, heads=8, feed_forward=2048, dropout=0.1, activation="relu", pre_norm=True)


def test_its_dropout_is_everywhere() -> None:
    model = build_translator(11, 13, encoder_layers=1, decoder_layers=1, **(SMALL | {"dropout": 0.3}))
    shares = [module.p for module in model.modules() if isinstance(module, CheapDropout)]
    # Of the positions; of three attentions; of two feed-forward layers; of five residual connections.
    assert shares == [0.3] * (1 + 3 + 2 + 5)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_start_xavier_uniform_and_tied_embeddings_normal(tied: bool) -> None:
    torch.manual_seed(0)
    model = build_translator(
        500, 500, encoder_layers=1, decoder_layers=1, width=32, heads=2, feed_forward=64, tied=tied
    )
    matrices = {name: weight for name, weight in model.named_parameters() if weight.ndim > 1}
    embedding = matrices.pop("source_embedding.weight") if tied else None
    # Of both embeddings and the projection, where they are apart; of three attentions; of two feed-forward layers.
    assert len(matrices) == (0 if tied else 3) + 3 * 4 + 2 * 2
    for name, weight in matrices.items():
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.95 * bound < weight.abs().max() <= bound, name
    if embedding is not None:
        assert embedding.std().item() == pytest.approx(32**-0.5, rel=0.05)
        assert embedding.abs().max() > 3 * 32**-0.5, "it has the tails of a normal distribution"


def test_tied_embeddings_are_one_matrix_and_need_one_vocabulary() -> None:
    model = build_translator(13, 13, encoder_layers=1, decoder_layers=1, tied=True, **SMALL)
    assert model.projection.weight is model.source_embedding.weight is model.target_embedding.weight
    # Said before a matrix is made: this one would not fit in any memory.
    with pytest.raises(ValueError, match="there are 1000000000000 and 13 tokens"):
        build_translator(10**12, 13, tied=True, **SMALL)


def test_bf16_stays_near_fp32(translator: Translator, source: Tensor, target: Tensor) -> None:
    exact = translator(source, None, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = translator(source, None, target)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.1, rtol=0.1)
