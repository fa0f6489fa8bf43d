"""The inference form of the BERT family is equal to transformers' models of the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from tests import tiny
from transferkit.models.lean_encoder import FAMILIES, LeanEncoder, NotLeanError

NAMES = [name for name, family in tiny.FAMILIES.items() if family.model_type in FAMILIES]


@pytest.fixture
def reference(backbone: Callable[[str], Path]) -> Callable[[str], tuple[Any, dict[str, torch.Tensor]]]:
    """transformers' encoder of a family, and a padded batch."""

    def load(name: str) -> tuple[Any, dict[str, torch.Tensor]]:
        return AutoModel.from_pretrained(backbone(name)).eval(), tiny.make_batch(backbone(name))

    return load


@pytest.mark.usefixtures("weights_in_either_order")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [slice(0, 3), slice(0, 1)], ids=["padded", "one row"])
def test_hidden_states_are_equal(reference: Callable[[str], Any], name: str, rows: slice) -> None:
    model, batch = reference(name)
    mask = batch["attention_mask"][rows]
    batch = {key: tensor[rows][:, : int(mask.sum(1).max())] for key, tensor in batch.items()}
    with torch.inference_mode():
        expected = model(**batch).last_hidden_state
        lean = LeanEncoder(model.state_dict(), model.config.to_dict(), "fp32")(**batch)
    real = batch["attention_mask"]
    torch.testing.assert_close(lean[real], expected[real], atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("weights_in_either_order")
@pytest.mark.parametrize("name", NAMES)
def test_bf16_is_near(reference: Callable[[str], Any], name: str) -> None:
    model, batch = reference(name)
    with torch.inference_mode():
        expected = model(**batch).last_hidden_state
        lean = LeanEncoder(model.state_dict(), model.config.to_dict(), "bf16")(**batch).float()
    real = batch["attention_mask"]
    torch.testing.assert_close(lean[real], expected[real], atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    "change", [{"model_type": "deberta-v2"}, {"hidden_act": "silu"}, {"position_embedding_type": "relative_key"}]
)
def test_what_is_not_known_is_refused(reference: Callable[[str], Any], change: dict[str, str]) -> None:
    model, _ = reference("bert")
    with pytest.raises(NotLeanError):
        LeanEncoder(model.state_dict(), model.config.to_dict() | change, "fp32")


def test_a_missing_weight_is_refused(reference: Callable[[str], Any]) -> None:
    model, _ = reference("bert")
    weights = {name: tensor for name, tensor in model.state_dict().items() if "layer.1.output.dense" not in name}
    with pytest.raises(NotLeanError, match=r"layer\.1\.output\.dense\.weight"):
        LeanEncoder(weights, model.config.to_dict(), "fp32")
