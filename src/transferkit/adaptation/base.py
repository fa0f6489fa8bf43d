"""What every strategy shares: a frozen config with `apply(model) -> AdaptationReport`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from transferkit.adaptation.adapters import remember_head, wrappers
from transferkit.adaptation.freezing import fixed_parameters, head_parameters
from transferkit.adaptation.patterns import kind_of
from transferkit.errors import AdaptationError
from transferkit.formatting import size, small_share

# Names that differ in the number of a layer are one kind; more kinds than this are counted, not listed.
_KINDS_SHOWN = 4


@dataclass(frozen=True)
class AdaptationReport:
    """Exactly what trains after a strategy was applied."""

    strategy: str
    trainable_names: tuple[str, ...]
    trainable_parameters: int
    total_parameters: int
    total_bytes: int

    @classmethod
    def of(cls, model: nn.Module, strategy: str) -> AdaptationReport:
        """Read the report off the model's `requires_grad` flags."""
        parameters = list(model.parameters())
        return cls(
            strategy=strategy,
            trainable_names=tuple(name for name, p in model.named_parameters() if p.requires_grad),
            trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            total_parameters=sum(p.numel() for p in parameters),
            total_bytes=sum(p.numel() * p.element_size() for p in parameters),
        )

    def __str__(self) -> str:
        share = small_share(self.trainable_parameters / self.total_parameters)
        kinds = Counter(map(kind_of, self.trainable_names))
        shown = [f"{name} x {number}" if number > 1 else name for name, number in kinds.items()]
        more = f" and {len(shown) - _KINDS_SHOWN} more" if len(shown) > _KINDS_SHOWN else ""
        return (
            f"{self.trainable_parameters:,} of {self.total_parameters:,} parameters train ({share}; "
            f"{size(self.total_bytes)} in all): {', '.join(shown[:_KINDS_SHOWN])}{more}"
        )


class Strategy(BaseModel, ABC):
    """A way to adapt a model. The three training defaults differ by strategy; a subclass says why."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Whether everything trains, so that the run keeps the whole model. False: it keeps what changed, and needs the
    # base to predict.
    keeps_whole_model: ClassVar[bool] = False

    learning_rate: float = Field(gt=0)
    epochs: int = Field(default=3, ge=1)
    # A tenth of the steps: Adam's second moments are poor at first, and large steps then undo pre-training
    # (Mosbach et al. 2021, section 5).
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)

    def apply(self, model: nn.Module) -> AdaptationReport:
        """Freeze the model, then change in place what this strategy changes; the head always trains, the fixed never.

        Raises:
            AdaptationError: the model is adapted already, a target matches nothing in it, its head is tied to another
                module, or nothing would train.
        """
        if any(True for _ in wrappers(model)):
            raise AdaptationError("The model has adapters already: merge() them first, or load the base anew.")
        # Where everything trains, no head need be told from the rest.
        names = frozenset[str]() if self.keeps_whole_model else head_parameters(model)
        # The parameters themselves: wrappers may rename the modules around them.
        head = [parameter for name, parameter in model.named_parameters() if name in names]
        remember_head(model, head)
        model.requires_grad_(False)
        fixed = [model.get_parameter(name) for name in fixed_parameters(model)]
        self.adapt(model)
        for parameter in head:
            parameter.requires_grad_(True)
        for parameter in fixed:
            parameter.requires_grad_(False)
        report = AdaptationReport.of(model, type(self).__name__)
        if not report.trainable_names:
            raise AdaptationError(f"{type(model).__name__} has no head of its own, and nothing else in it would train.")
        return report

    @abstractmethod
    def adapt(self, model: nn.Module) -> None:
        """Unfreeze or add what trains beside the head; all is frozen when this is called."""
