"""The strategies by name, and how a specification becomes one."""

from __future__ import annotations

from transferkit.adaptation.base import Strategy
from transferkit.adaptation.bottleneck import Bottleneck
from transferkit.adaptation.lora import LoRA
from transferkit.adaptation.peft_methods import PREFIX, PeftMethod
from transferkit.adaptation.unfreezing import BitFit, Full, LinearProbe, Partial, Scratch
from transferkit.config import StrategySpec
from transferkit.errors import ConfigError, did_you_mean
from transferkit.parsing import build

STRATEGIES: dict[str, type[Strategy]] = {
    kind.name: kind for kind in (Scratch, LinearProbe, Partial, BitFit, Bottleneck, LoRA, Full)
}  # fmt: skip


def make_strategy(spec: StrategySpec) -> Strategy:
    """The strategy that `spec` names, with its options checked.

    Raises:
        ConfigError: the name or an option is unknown, or a value is out of range.
    """
    if spec.name.startswith(PREFIX):
        return PeftMethod.from_spec(spec)
    if spec.name not in STRATEGIES:
        known = [*STRATEGIES, f"{PREFIX}<METHOD>"]
        raise ConfigError(f"There is no strategy {spec.name!r}.{did_you_mean(spec.name, known)}")
    return build(STRATEGIES[spec.name], spec.options, f"strategy {spec.name}")


def resolved(spec: StrategySpec) -> StrategySpec:
    """`spec` with every option that shapes the model, so that it builds the same one when a default has changed.

    How long and how fast it trains shapes nothing; the defaults of a PEFT method are the library's own.

    Raises:
        ConfigError: as `make_strategy`.
    """
    own = make_strategy(spec).model_dump(exclude={*Strategy.model_fields, "method", "options"})
    return StrategySpec(name=spec.name, options=spec.options | own)
