"""What LoRA learnt: of each weight W that it adapts, the size, the directions and the rank of the update s B A.

Hu et al. 2021 look at the same in section 7: how many directions an update uses, and how large it is beside W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from transferkit.adaptation.adapters import adapter_layers
from transferkit.adaptation.lora import LoRALinear
from transferkit.evaluation.results import LoRAModule, LoRAPlane, LoRAUpdates, Point

# Of a picture in which each can still be told from the others.
INPUTS = 24
# More directions and iterations than one vector needs, so that the strongest is found where the next is close.
_SKETCH, _ITERATIONS = 8, 8


class Decomposition(NamedTuple):
    """The thin singular value decomposition of an update: `left` diag(`values`) `right`^T, float64, k = min(rank,
    out, in).

    Attributes:
        left: [out, k], orthonormal columns.
        values: [k], from large to small.
        right: [in, k], orthonormal columns.
    """

    left: Tensor
    values: Tensor
    right: Tensor


@torch.no_grad()
def lora_updates(model: nn.Module) -> LoRAUpdates | None:
    """The updates of all LoRA layers in `model`, in the model's order; None where there are none.

    Only the project's own layers are looked at, not those of the PEFT library.
    """
    layers = {name: layer for name, layer in adapter_layers(model) if isinstance(layer, LoRALinear)}
    if not layers:
        return None
    modules = [_module(name, layer) for name, layer in layers.items()]
    return LoRAUpdates(modules=tuple(modules), plane=_plane(layers, modules))


@torch.no_grad()
def decompose(layer: LoRALinear) -> Decomposition:
    """The decomposition of the update s B A, whose full product [out, in] is never made.

    With B = Q R and A^T = P T (QR), s B A = Q (s R T^T) P^T, and only the core s R T^T, rank x rank, is decomposed.
    """
    q, r = torch.linalg.qr(_exact(layer.lora_b))
    p, t = torch.linalg.qr(_exact(layer.lora_a).T)
    left, values, right = torch.linalg.svd(layer.scaling * r @ t.T, full_matrices=False)
    return Decomposition(q @ left, values, p @ right.T)


def effective_rank(values: Tensor) -> float:
    """exp of the entropy of singular values [k] that are divided by their sum (Roy and Vetterli 2007, section 2).

    From 1, one direction, to k, all equally strong; 0 where all are zero.
    """
    total = values.sum()
    if total == 0:
        return 0.0
    return float(torch.special.entr(values / total).sum().exp())


def _exact(parameter: Tensor) -> Tensor:
    """In float64, on the processor: not every accelerator has such numbers."""
    return parameter.cpu().double()


def _module(name: str, layer: LoRALinear) -> LoRAModule:
    values = decompose(layer).values
    update, weight = float(values.norm()), float(_exact(layer.base.weight).norm())
    return LoRAModule(
        name=name,
        rank=len(layer.lora_a),
        scaling=layer.scaling,
        shape=(layer.base.out_features, layer.base.in_features),
        singular_values=tuple(values.tolist()),
        effective_rank=effective_rank(values),
        update_norm=update,
        weight_norm=weight,
        relative_norm=update / weight if weight else None,
    )


def _plane(layers: Mapping[str, LoRALinear], modules: Sequence[LoRAModule]) -> LoRAPlane | None:
    """That of the module whose update is largest beside its weight, among those that span a plane in space."""
    flat = [module for module in modules if _spans_a_plane(module)]
    if not flat:
        return None
    name = max(flat, key=lambda module: module.relative_norm or 0.0).name
    return plane(name, layers[name])


def _spans_a_plane(module: LoRAModule) -> bool:
    """Whether two directions are above the rounding of the float32 product, and a third is left to leave it by."""
    first, second = (*module.singular_values, 0.0)[:2]
    return min(module.shape) > 2 and second > first * max(module.shape) * torch.finfo(torch.float32).eps


@torch.no_grad()
def plane(name: str, layer: LoRALinear) -> LoRAPlane:
    """What the frozen weight and the update make of the same unit inputs, seen from the plane of the update.

    The first two axes are the two strongest left singular directions of the update, the third is the strongest one of
    the weight without its part in their plane, found by a randomised decomposition (Halko et al. 2011, algorithm 4.4).
    """
    left, values, _ = decompose(layer)
    weight = _exact(layer.base.weight)
    axes = torch.column_stack([left[:, :2], _strongest_outside(weight, left[:, :2])])
    axes *= _signs(axes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inputs = nn.functional.normalize(torch.randn(INPUTS, layer.base.in_features, dtype=torch.float64))
    updates = layer.scaling * inputs @ _exact(layer.lora_a).T @ _exact(layer.lora_b).T
    return LoRAPlane(
        module=name,
        share=float(values[:2].square().sum() / values.square().sum()),
        update=_points(updates @ axes),
        weight=_points(inputs @ weight.T @ axes),
    )


def _strongest_outside(weight: Tensor, taken: Tensor) -> Tensor:
    """The strongest left singular direction [out] of `weight` [out, in] without its part in the span of `taken`.

    It is orthogonal to the columns of `taken`; where nothing is left of the weight, any such direction.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rest = weight - taken @ (taken.T @ weight)
        found, _, _ = torch.svd_lowrank(rest, q=min(_SKETCH, *weight.shape), niter=_ITERATIONS)
    # Once more, since directions of what is zero are arbitrary.
    return nn.functional.normalize(found[:, 0] - taken @ (taken.T @ found[:, 0]), dim=0)


def _signs(axes: Tensor) -> Tensor:
    """+1 or -1 for each column: a decomposition leaves the sign open, here its largest number is positive."""
    return axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()


def _points(coordinates: Tensor) -> tuple[Point, ...]:
    """[n, 3] in four significant figures, more than a picture shows."""
    return tuple((float(f"{x:.4g}"), float(f"{y:.4g}"), float(f"{z:.4g}")) for x, y, z in coordinates.tolist())
