"""What LoRA learnt as the page shows it: the adapted modules by kind, and the plane that one update spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile, zip_longest
from statistics import fmean

from transferkit.adaptation.patterns import kind_of
from transferkit.evaluation.results import LoRAModule, LoRAUpdates
from transferkit.report.plane import plane_picture
from transferkit.report.svg import Picture
from transferkit.report.views import StrategyView

# By strategy and seed.
Updates = Mapping[tuple[str, int], LoRAUpdates]

# Singular values that have a bar; the others are smaller.
BARS = 8


@dataclass(frozen=True)
class ModuleGroup:
    """Modules whose names differ in the number of a layer alone, from the first layer to the last."""

    name: str
    modules: tuple[LoRAModule, ...]

    @property
    def ranks(self) -> list[float]:
        """Effective rank by layer."""
        return [module.effective_rank for module in self.modules]

    @property
    def relative_norms(self) -> list[float]:
        """Norm of the update over that of the weight, by layer, where there is one."""
        return [module.relative_norm for module in self.modules if module.relative_norm is not None]

    @property
    def singular_values(self) -> list[float]:
        """The largest ones, means over layers."""
        by_place = zip_longest(*(module.singular_values[:BARS] for module in self.modules), fillvalue=0.0)
        return [fmean(values) for values in by_place]


@dataclass(frozen=True)
class LoRAView:
    """The updates of one run of one strategy.

    Attributes:
        prefix: what the names of all modules begin with; the names in groups are without it.
        picture: of the plane; None where no update spans one.
        share: of that update's squared norm, how much the plane holds.
    """

    strategy: StrategyView
    seed: int
    prefix: str
    groups: tuple[ModuleGroup, ...]
    picture: Picture | None
    share: float | None

    @property
    def modules(self) -> tuple[LoRAModule, ...]:
        """All, kind by kind."""
        return tuple(module for group in self.groups for module in group.modules)

    @property
    def largest_norm(self) -> float:
        """The largest norm of an update over that of its weight."""
        return max((norm for group in self.groups for norm in group.relative_norms), default=0.0)

    @property
    def largest_value(self) -> float:
        """The largest of the singular values that have bars."""
        return max(group.singular_values[0] for group in self.groups)

    def short(self, module: LoRAModule) -> str:
        """The name without the common beginning."""
        return module.name.removeprefix(self.prefix)

    @staticmethod
    def strongest(module: LoRAModule) -> tuple[float, ...]:
        """The singular values that have bars."""
        return module.singular_values[:BARS]

    @property
    def scaling(self) -> str:
        """That of the modules, which differ where the ranks do."""
        return ", ".join(dict.fromkeys(f"{module.scaling:.3g}" for module in self.modules))


def lora_views(strategies: Sequence[StrategyView], updates: Updates) -> list[LoRAView]:
    """The first seed of each strategy that has updates."""
    found = []
    for index, strategy in enumerate(strategies):
        known = [(run.seed, updates[key]) for run in strategy.runs if (key := (run.strategy, run.seed)) in updates]
        if known:
            found.append(_view(strategy, index, *known[0]))
    return found


def _view(strategy: StrategyView, index: int, seed: int, updates: LoRAUpdates) -> LoRAView:
    prefix = _common_beginning([module.name for module in updates.modules])
    kinds: dict[str, list[LoRAModule]] = {}
    for module in updates.modules:
        kinds.setdefault(kind_of(module.name).removeprefix(kind_of(prefix)), []).append(module)
    groups = tuple(ModuleGroup(name, tuple(modules)) for name, modules in kinds.items())
    plane = updates.plane
    picture = plane_picture(plane, strategy.look, index) if plane else None
    return LoRAView(strategy, seed, prefix, groups, picture, plane.share if plane else None)


def _common_beginning(names: Sequence[str]) -> str:
    """The parts that all dotted names share before their last, such as `encoder.layer.`."""
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return "".join(f"{parts[0]}." for parts in takewhile(lambda parts: len(set(parts)) == 1, columns))
