"""Any method of the PEFT library as a strategy: `peft:dora`, `peft:ia3`, `peft:prompt-tuning`."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from transferkit.adaptation.base import Strategy
from transferkit.adaptation.freezing import encoder_linears, feed_forward_linears
from transferkit.config import StrategySpec, build
from transferkit.errors import AdaptationError, ConfigError, did_you_mean

PREFIX = "peft:"
# DoRA is a flag of PEFT's LoRA and not a method of its own (Liu et al. 2024).
ALIASES: dict[str, tuple[str, dict[str, Any]]] = {"dora": ("lora", {"use_dora": True})}

# The length of the virtual prompt where the user names none; Lester et al. 2021, figure 3b, level off at 20.
PROMPT_DEFAULTS = {"num_virtual_tokens": 20}
# Methods whose targets are not linear layers: PEFT knows them by family.
OTHER_TARGETS = {"LNTuningConfig", "TrainableTokensConfig"}


class PeftMethod(Strategy):
    """Train the head and whatever a PEFT method trains; its options are passed through and checked."""

    name: ClassVar[str] = "peft"

    # As for our own LoRA: new weights beside a frozen body.
    learning_rate: float = Field(default=1e-3, gt=0)
    method: str
    options: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def from_spec(cls, spec: StrategySpec) -> PeftMethod:
        """Split the options into training defaults, which are ours, and the rest, which is the method's.

        Raises:
            ConfigError: PEFT has no such method, or the method no such option.
        """
        method = spec.name.removeprefix(PREFIX)
        ours = {name: value for name, value in spec.options.items() if name in Strategy.model_fields}
        options = {name: value for name, value in spec.options.items() if name not in ours}
        _config_class(method, options)
        return build(cls, {"method": method, "options": options, **ours}, f"strategy {spec.name}")

    def adapt(self, model: nn.Module) -> None:
        """Let PEFT put its layers or its virtual tokens into the backbone."""
        kind, options = _config_class(self.method, self.options)
        base = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
        try:
            with warnings.catch_warnings():
                # PEFT gives advice here that is for its own trainers, and looks at attributes that
                # transformers has deprecated.
                warnings.simplefilter("ignore")
                _inject(model, kind, options)
                _try_out(model)
        except Exception as error:  # PEFT refuses with many kinds of errors
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise AdaptationError(f"{PREFIX}{self.method} does not work on this backbone: {reason}") from None
        if not all(torch.equal(parameter, before) for parameter, before in base):
            raise AdaptationError(
                f"{PREFIX}{self.method} with these options rewrites weights of the base, so that what it learns "
                "would fit no other copy of that base."
            )
        own = {id(parameter) for parameter, _ in base}
        if not any(p.requires_grad and id(p) not in own for p in model.parameters()):
            raise AdaptationError(f"{PREFIX}{self.method} adds nothing to train to this backbone.")


def methods() -> dict[str, Any]:
    """PEFT's configuration classes by the method names used here."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {
        str(kind.value).lower().replace("_", "-"): cls for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()
    }


def _config_class(method: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The configuration class of `method` and all its options, checked by name."""
    name, implied = ALIASES.get(method, (method, {}))
    known = methods()
    if name not in known:
        raise ConfigError(f"PEFT has no method {method!r}.{did_you_mean(method, [*known, *ALIASES])}")
    fields = [field.name for field in dataclasses.fields(known[name]) if field.init]
    for option in options:
        if option not in fields:
            raise ConfigError(f"{PREFIX}{method} has no option {option!r}.{did_you_mean(option, fields)}")
    return known[name], implied | options


def _inject(model: nn.Module, kind: Any, options: dict[str, Any]) -> None:
    from peft import PeftModelForFeatureExtraction, PromptLearningConfig, TaskType, inject_adapter_in_model
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    is_prompt = issubclass(kind, PromptLearningConfig)
    options = PROMPT_DEFAULTS | options if is_prompt else _with_targets(model, kind, options)
    config = kind(**options)
    if is_prompt or getattr(PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type), "uses_shared_state", False):
        config.task_type = TaskType.FEATURE_EXTRACTION
        path = _encoder_path(model)
        model.set_submodule(path, PeftModelForFeatureExtraction(model.get_submodule(path), config))
    else:
        inject_adapter_in_model(config, model.get_submodule("network"))


def _encoder_path(model: nn.Module) -> str:
    """The name of the bare encoder, which is below a family's own classifier if there is one."""
    prefix = str(getattr(model.network, "base_model_prefix", ""))
    return f"network.{prefix}" if prefix and hasattr(model.network, prefix) else "network"


@torch.no_grad()
def _try_out(model: nn.Module) -> None:
    """One short text through the model: some methods are accepted first and fail in use."""
    row = torch.ones(1, 4, dtype=torch.long)
    model(input_ids=row, attention_mask=row.bool())


def _with_targets(model: nn.Module, kind: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Add the targets our own strategies take, where the method wants some and the user names none."""
    fields = {field.name for field in dataclasses.fields(kind)}
    filled = dict(options)
    if "target_modules" in fields and "target_modules" not in options and kind.__name__ not in OTHER_TARGETS:
        # PEFT compares the ends of names, and these are the same below every wrapper.
        start = len(_encoder_path(model)) + 1
        filled["target_modules"] = [name[start:] for name in encoder_linears(model)]
        if "feedforward_modules" in fields:
            filled["feedforward_modules"] = [name[start:] for name in feed_forward_linears(model)]
    return filled
