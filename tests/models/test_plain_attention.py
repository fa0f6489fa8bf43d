"""Plain attention gives what torch's fused kernel gives, in every family that lets its attention be chosen."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tests import tiny
from transferkit.errors import BackboneError
from transferkit.models.plain_attention import NAME, attend, attention

OF_THEIR_OWN = ["deberta", "canine", "funnel"]
CHOOSABLE = [name for name in [*tiny.FAMILIES, *tiny.OTHERS] if name not in OF_THEIR_OWN]


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


def test_positions_that_t5_learns_get_their_gradient(backbone: Callable[[str], Path]) -> None:
    model = tiny.load_model(backbone("t5"))
    with attention(model.network, "plain"):
        model(**tiny.make_batch(backbone("t5"))).square().sum().backward()
    biases = {name: p.grad for name, p in model.named_parameters() if "relative_attention_bias" in name}
    assert len(biases) == 2
    assert all(grad is not None and grad.any() for grad in biases.values())


@pytest.mark.parametrize("name", OF_THEIR_OWN)
def test_a_family_with_an_attention_of_its_own_keeps_it(backbone: Callable[[str], Path], name: str) -> None:
    model = tiny.load_model(backbone(name))
    with attention(model.network, "plain"):
        assert model.network.config._attn_implementation == "eager"


def test_so_does_what_is_not_of_transformers() -> None:
    with attention(torch.nn.Linear(2, 2), "plain"):
        pass


class Looking(torch.nn.Module):
    """A layer of attention as transformers' kernels see it."""

    def __init__(self, is_causal: bool) -> None:
        super().__init__()
        self.is_causal = is_causal


# In bf16 spare keys join so many, as they do not join a few.
KEYS = 22
NUMBERS = torch.randn(2, 4, KEYS, KEYS, generator=torch.Generator().manual_seed(1))
BOOLS = torch.tensor([KEYS, 15])[:, None, None, None] > torch.arange(KEYS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("mask", [None, BOOLS, NUMBERS[:, :1]], ids=["no mask", "bools", "numbers"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"scaling": 0.2}, {"is_causal": True}, {"is_causal": False}, {"position_bias": NUMBERS}],
    ids=["nothing more", "scaling", "causal", "not causal", "bias"],
)
def test_what_a_layer_asks_for_is_what_the_fused_kernel_gives(
    is_causal: bool, mask: torch.Tensor | None, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    layer, states = Looking(is_causal), torch.randn(3, 2, 4, KEYS, 8).to(dtype)
    exact, rough = (x.clone().requires_grad_() for x in (states.float(), states))
    fused, _ = sdpa_attention_forward(layer, *exact, mask, **settings)
    ours, _ = attend(layer, *rough, mask, **settings)
    assert ours.dtype == dtype
    tolerances = {"atol": 0.03, "rtol": 0.03} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(ours.float(), fused, **tolerances)
    fused.sum().backward()
    ours.sum().backward()
    assert exact.grad is not None
    assert rough.grad is not None
    torch.testing.assert_close(rough.grad.float(), exact.grad, **tolerances)


@pytest.mark.parametrize("mask", [None, (22, 15)], ids=["no mask", "padding"])
@pytest.mark.parametrize(("keys", "computed"), [(12, 12), (22, 32), (32, 32), (36, 36)])
def test_in_bf16_keys_that_hardly_fill_a_vector_are_joined_by_some_that_nothing_looks_at(
    monkeypatch: pytest.MonkeyPatch, keys: int, computed: int, mask: tuple[int, int] | None
) -> None:
    torch.manual_seed(0)
    states = torch.randn(3, 2, 4, keys, 8)
    shown = None if mask is None else torch.tensor(mask)[:, None, None, None] > torch.arange(keys)
    fused, _ = sdpa_attention_forward(Looking(False), *states, shown)
    widths = []
    softmax = torch.softmax
    monkeypatch.setattr(torch, "softmax", lambda scores, dim: widths.append(scores.shape[-1]) or softmax(scores, dim))
    ours, _ = attend(Looking(False), *states.to(torch.bfloat16), shown)
    assert widths == [computed]
    torch.testing.assert_close(ours.float(), fused, atol=0.03, rtol=0.03)


def test_one_query_looks_at_all_keys() -> None:
    torch.manual_seed(0)
    layer, query, (key, value) = Looking(True), torch.randn(2, 4, 1, 8), torch.randn(2, 2, 4, 6, 8)
    fused, _ = sdpa_attention_forward(layer, query, key, value, None)
    torch.testing.assert_close(attend(layer, query, key, value, None)[0], fused)


def test_no_other_setting_reaches_the_fused_kernel() -> None:
    known = {"module", "query", "key", "value", "attention_mask", "scaling", "dropout", "is_causal", "position_bias"}
    # `cache` holds the pages of generation.
    assert set(inspect.signature(sdpa_attention_forward).parameters) == known | {"cache", "kwargs"}


@pytest.mark.parametrize("name", ["softcap", "s_aux"])
def test_scores_that_are_not_computed_are_refused(name: str) -> None:
    states = torch.randn(3, 1, 2, 3, 4)
    attend(Looking(False), *states, None, **{name: None})
    with pytest.raises(BackboneError, match=rf"has {name}, which .* lack; name another backbone"):
        attend(Looking(False), *states, None, **{name: torch.ones(2)})


def test_a_group_of_queries_shares_keys_and_values() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    fused = functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(attend(Looking(False), query, key, value, None)[0], fused.transpose(1, 2))


def test_dropout_drops_weights() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(1, 2, 64, 8), torch.randn(1, 2, 64, 8)
    value = torch.ones(1, 2, 64, 8)
    whole, _ = attend(Looking(False), query, key, value, None)
    torch.testing.assert_close(whole, torch.ones_like(whole))
    part, _ = attend(Looking(False), query, key, value, None, dropout=0.5)
    assert part.std() > 0.05
    assert abs(float(part.mean()) - 1) < 0.1
