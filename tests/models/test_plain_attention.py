"""Plain attention gives what torch's fused kernel gives, in every family that lets its attention be chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tests import tiny
from transferkit.models.plain_attention import NAME, attend, attention

CHOOSABLE = [name for name in tiny.FAMILIES if name != "deberta"]


@pytest.mark.parametrize("name", CHOOSABLE)
@pytest.mark.parametrize("texts", [tuple(tiny.CORPUS), (tiny.CORPUS[0],) * 2], ids=["padded", "of one length"])
def test_logits_and_gradients_equal_those_of_the_fused_kernel(
    backbone: Callable[[str], Path], name: str, texts: tuple[str, ...]
) -> None:
    model = tiny.load_model(backbone(name))
    batch = tiny.make_batch(backbone(name), texts)
    answers, gradients = [], []
    for kind in ("fused", "plain"):
        model.zero_grad()
        with attention(model.network, kind):
            assert (model.network.config._attn_implementation == NAME) == (kind == "plain")
            logits = model(**batch)
        logits.square().sum().backward()
        answers.append(logits.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*answers, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
    assert model.network.config._attn_implementation == "sdpa"


def test_a_family_with_an_attention_of_its_own_keeps_it(backbone: Callable[[str], Path]) -> None:
    model = tiny.load_model(backbone("deberta"))
    with attention(model.network, "plain"):
        assert model.network.config._attn_implementation == "eager"
    with attention(torch.nn.Linear(2, 2), "plain"):
        pass


def test_a_group_of_queries_shares_keys_and_values() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    fused = functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(attend(torch.nn.Identity(), query, key, value, None)[0], fused.transpose(1, 2))


def test_dropout_drops_weights() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(1, 2, 64, 8), torch.randn(1, 2, 64, 8)
    value = torch.ones(1, 2, 64, 8)
    whole, _ = attend(torch.nn.Identity(), query, key, value, None)
    torch.testing.assert_close(whole, torch.ones_like(whole))
    part, _ = attend(torch.nn.Identity(), query, key, value, None, dropout=0.5)
    assert part.std() > 0.05
    assert abs(float(part.mean()) - 1) < 0.1
