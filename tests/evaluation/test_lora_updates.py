"""The numbers of an update are those of its full product, which only the tests make."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from transferkit.adaptation.lora import LoRA, LoRALinear
from transferkit.adaptation.strategies import make_strategy
from transferkit.config import StrategySpec
from transferkit.evaluation.lora_updates import INPUTS, decompose, effective_rank, lora_updates, plane


def lora_layer(lora_b: Tensor, lora_a: Tensor, scaling: float = 2.0, weight: Tensor | None = None) -> LoRALinear:
    """A layer with the matrices given, B [out, rank] and A [rank, in]."""
    rank, width = lora_a.shape
    base = nn.Linear(width, len(lora_b))
    layer = LoRALinear(base, rank, scaling, dropout=0.0)
    with torch.no_grad():
        layer.lora_a.copy_(lora_a)
        layer.lora_b.copy_(lora_b)
        if weight is not None:
            base.weight.copy_(weight)
    return layer


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthonormal(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(drawn(rows, columns, seed=seed)).Q


def product(layer: LoRALinear) -> Tensor:
    """The update [out, in] in full, float64."""
    return layer.scaling * layer.lora_b.detach().double() @ layer.lora_a.detach().double()


def inputs_of(width: int) -> Tensor:
    """The inputs of a picture: float64 [INPUTS, width], drawn with seed 0, of length 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.functional.normalize(torch.randn(INPUTS, width, dtype=torch.float64))


# The last two have a rank beyond one side of the matrix, and beyond both.
SHAPES = [(9, 14, 3), (14, 9, 3), (7, 7, 1), (12, 3, 5), (3, 4, 6)]


@pytest.mark.parametrize(("out", "width", "rank"), SHAPES)
def test_singular_values_are_those_of_the_full_product(out: int, width: int, rank: int) -> None:
    layer = lora_layer(drawn(out, rank), drawn(rank, width, seed=1), scaling=0.7)
    left, values, right = decompose(layer)
    whole = torch.linalg.svdvals(product(layer))
    assert len(values) == min(out, width, rank)
    torch.testing.assert_close(values, whole[: len(values)])
    torch.testing.assert_close(left * values @ right.T, product(layer))
    torch.testing.assert_close(left.T @ left, torch.eye(len(values), dtype=torch.float64))


def test_norms_are_those_of_the_full_matrices() -> None:
    layer = lora_layer(drawn(9, 3), drawn(3, 14, seed=1))
    updates = lora_updates(nn.Sequential(layer))
    assert updates is not None
    (module,) = updates.modules
    assert (module.name, module.rank, module.scaling, module.shape) == ("0", 3, 2.0, (9, 14))
    assert module.update_norm == pytest.approx(product(layer).norm().item())
    assert module.weight_norm == pytest.approx(layer.base.weight.detach().double().norm().item())
    assert module.relative_norm == pytest.approx(module.update_norm / module.weight_norm)


def test_one_direction_has_effective_rank_one_whatever_the_rank() -> None:
    column, row = drawn(9, 1), drawn(1, 14, seed=1)
    values = decompose(lora_layer(column.expand(9, 4), row.expand(4, 14))).values
    assert effective_rank(values) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_orthonormal_factors_have_their_rank_as_effective_rank(rank: int) -> None:
    layer = lora_layer(orthonormal(9, rank), orthonormal(14, rank, seed=1).T, scaling=3.0)
    values = decompose(layer).values
    torch.testing.assert_close(values, torch.full((rank,), 3.0, dtype=torch.float64), rtol=1e-5, atol=0)
    assert effective_rank(values) == pytest.approx(rank, rel=1e-5)


def test_effective_rank_is_the_exponential_of_the_entropy() -> None:
    # Of shares 1/2, 1/4, 1/4 the entropy is 1.5 log 2.
    assert effective_rank(torch.tensor([4.0, 2.0, 2.0, 0.0])) == pytest.approx(2**1.5)
    assert effective_rank(torch.tensor([0.4, 0.2, 0.2])) == pytest.approx(2**1.5)


def test_before_training_there_is_no_update_no_rank_and_no_plane() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    LoRA(rank=2).apply(model)
    updates = lora_updates(model)
    assert updates is not None
    (module,) = updates.modules
    assert (module.update_norm, module.relative_norm, module.effective_rank) == (0.0, 0.0, 0.0)
    assert updates.plane is None


def test_a_weight_of_zeros_has_no_relative_norm() -> None:
    layer = lora_layer(drawn(6, 2), drawn(2, 6, seed=1), weight=torch.zeros(6, 6))
    updates = lora_updates(nn.Sequential(layer))
    assert updates is not None
    assert updates.modules[0].relative_norm is None
    # The third axis, of which the weight has no direction, is off the plane nevertheless.
    assert updates.plane is not None
    update = torch.tensor(updates.plane.update)
    assert update[:, 2].abs().max() < 1e-6 * update.norm()


def test_a_rank_two_update_lies_in_its_plane() -> None:
    layer = lora_layer(drawn(9, 2), drawn(2, 14, seed=1))
    found = plane("it", layer)
    update, weight = torch.tensor(found.update), torch.tensor(found.weight)
    assert found.share == pytest.approx(1.0)
    assert update.shape == weight.shape == (INPUTS, 3)
    assert update[:, 2].abs().max() < 1e-6 * update.norm()
    # No length is lost to a third direction, and the first axis is the stronger one.
    outputs = inputs_of(14) @ product(layer).T
    torch.testing.assert_close(update.double().norm(dim=1), outputs.norm(dim=1), rtol=1e-3, atol=0)
    assert update[:, 0].norm() > update[:, 1].norm() > 0
    assert weight[:, 2].abs().max() > 0.01


def test_share_of_the_plane_in_a_larger_update() -> None:
    strengths = torch.diag(torch.tensor([4.0, 2.0, 1.0, 1.0]))
    layer = lora_layer(orthonormal(9, 4) @ strengths, orthonormal(14, 4, seed=1).T)
    assert plane("it", layer).share == pytest.approx(20 / 22)


def test_the_axes_are_directions_of_the_update_and_then_of_the_weight() -> None:
    out, width = 10, 12
    base = orthonormal(out, out)
    # The weight is strongest where the update is, and next in a direction of its own.
    weight = 9 * torch.outer(base[:, 0], orthonormal(width, 1)[:, 0]) + 3 * torch.outer(
        base[:, 5], orthonormal(width, 2, seed=2)[:, 1]
    )
    layer = lora_layer(base[:, :2] @ torch.diag(torch.tensor([2.0, 1.0])), drawn(2, width, seed=3), weight=weight)
    found = plane("it", layer)
    inputs = inputs_of(width)
    left, _, _ = decompose(layer)
    for axis in (0, 1):
        mine = torch.tensor(found.update, dtype=torch.float64)[:, axis]
        torch.testing.assert_close(mine.abs(), (inputs @ product(layer).T @ left[:, axis]).abs(), rtol=1e-3, atol=1e-6)
    third = torch.tensor(found.weight, dtype=torch.float64)[:, 2]
    torch.testing.assert_close(
        third.abs(), (inputs @ weight.double().T @ base[:, 5].double()).abs(), rtol=1e-3, atol=1e-5
    )


def test_the_plane_is_that_of_the_largest_update_beside_its_weight() -> None:
    small, large = drawn(6, 2), 3 * drawn(6, 2)
    model = nn.Sequential(
        lora_layer(large, drawn(2, 6, seed=1), weight=100 * torch.eye(6)),
        lora_layer(small, drawn(2, 6, seed=1), weight=torch.eye(6)),
        # Larger still, and of one direction only.
        lora_layer(9 * drawn(6, 1), drawn(1, 6, seed=1), weight=torch.eye(6)),
    )
    updates = lora_updates(model)
    assert updates is not None
    assert updates.plane is not None
    assert updates.plane.module == "1"


def test_a_second_direction_that_is_rounding_alone_spans_no_plane() -> None:
    column, row = drawn(6, 1), drawn(1, 6, seed=1)
    layer = lora_layer(torch.column_stack([column, 0.3 * column]), torch.cat([row, 0.7 * row]))
    values = decompose(layer).values
    assert 0 < values[1] < 1e-5 * values[0]
    updates = lora_updates(nn.Sequential(layer))
    assert updates is not None
    assert updates.plane is None


def test_it_leaves_the_model_and_the_random_numbers_as_they_were() -> None:
    model = nn.Sequential(lora_layer(drawn(6, 2), drawn(2, 6, seed=1)))
    before, state = tiny.weights_of(model), torch.random.get_rng_state()
    first = lora_updates(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    assert lora_updates(model) == first
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("strategy", ["full", "linear-probe", "bottleneck", "bitfit"])
def test_models_without_lora_have_no_updates(backbone: Callable[[str], Path], strategy: str) -> None:
    model = tiny.load_model(backbone("bert"))
    make_strategy(StrategySpec.model_validate({"name": strategy})).apply(model)
    assert lora_updates(model) is None


def test_every_adapted_module_of_a_trained_classifier_is_there(backbone: Callable[[str], Path]) -> None:
    model = tiny.load_model(backbone("bert"))
    LoRA(rank=3, rank_stabilised=True, alpha=6.0).apply(model)
    tiny.train_steps(model, tiny.make_batch(backbone("bert")))
    updates = lora_updates(model)
    assert updates is not None
    assert len(updates.modules) == tiny.LAYERS * 6
    assert {module.scaling for module in updates.modules} == {6 / math.sqrt(3)}
    for module in updates.modules:
        layer = model.get_submodule(module.name)
        assert isinstance(layer, LoRALinear)
        assert list(module.singular_values) == sorted(module.singular_values, reverse=True)
        assert 1 <= module.effective_rank <= 3 + 1e-9
        merged = layer.merged().weight.double() - layer.base.weight.double()
        assert module.update_norm == pytest.approx(merged.norm().item(), rel=1e-3)
