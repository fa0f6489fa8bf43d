"""Any method of the PEFT library as a strategy: `peft:dora`, `peft:ia3`, `peft:prompt-tuning`."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from transferkit.adaptation.adapters import added_parameters
from transferkit.adaptation.base import Strategy
from transferkit.adaptation.freezing import encoder_linears, feed_forward_linears
from transferkit.config import StrategySpec
from transferkit.errors import AdaptationError, ConfigError, did_you_mean
from transferkit.models.backbones import TextClassifier, position_limit
from transferkit.parsing import build

PREFIX = "peft:"
# DoRA is a flag of PEFT's LoRA and not a method of its own (Liu et al. 2024).
ALIASES: dict[str, tuple[str, dict[str, Any]]] = {"dora": ("lora", {"use_dora": True})}

# The length of the virtual prompt where the user names none; Lester et al. 2021, figure 3a, level off at 20.
PROMPT_DEFAULTS = {"num_virtual_tokens": 20}
# Methods that would train as something else than they are.
NOT_HERE = {
    "adalora": "it moves its rank budget in a call after every step, which the training loop does not make; use lora",
}
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
            ConfigError: PEFT has no such method, the loop cannot train it, or it has no such option.
        """
        method = spec.name.removeprefix(PREFIX)
        ours = {name: value for name, value in spec.options.items() if name in Strategy.model_fields}
        options = {name: value for name, value in spec.options.items() if name not in ours}
        _config_class(method, options)
        return build(cls, {"method": method, "options": options, **ours}, f"strategy {spec.name}")

    def adapt(self, model: nn.Module) -> None:
        """Let PEFT put its layers or its virtual tokens into the backbone.

        Raises:
            AdaptationError: the model is no `TextClassifier`, or the method does not work on its backbone.
        """
        if not isinstance(model, TextClassifier):
            raise AdaptationError(
                f"{PREFIX}{self.method} adapts text classifiers alone, and this model is a {type(model).__name__}; "
                "use a strategy without peft:, such as lora or bottleneck."
            )
        kind, options = _config_class(self.method, self.options)
        base = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
        try:
            with warnings.catch_warnings():
                # PEFT gives advice here that is for its own trainers, and looks at attributes that
                # transformers has deprecated.
                warnings.simplefilter("ignore")
                _inject(model, kind, options)
                new = added_parameters(model)
                takes_part = _try_out(model, [p for p in new if p.requires_grad])
        except Exception as error:  # PEFT refuses with many kinds of errors
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise AdaptationError(f"{PREFIX}{self.method} does not work on this backbone: {reason}") from None
        if not all(torch.equal(parameter, before) for parameter, before in base):
            raise AdaptationError(
                f"{PREFIX}{self.method} with these options rewrites weights of the base, so that what it learns "
                "would fit no other copy of that base."
            )
        if not takes_part:
            raise AdaptationError(f"{PREFIX}{self.method} adds nothing to this backbone that could train.")


def methods() -> dict[str, Any]:
    """PEFT's configuration classes by the method names used here."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {str(kind.value).lower().replace("_", "-"): cls for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def _config_class(method: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The configuration class of `method` and all its options, checked by name."""
    if method in NOT_HERE:
        raise ConfigError(f"{PREFIX}{method} is not to be had: {NOT_HERE[method]}.")
    name, implied = ALIASES.get(method, (method, {}))
    known = methods()
    if name not in known:
        raise ConfigError(f"PEFT has no method {method!r}.{did_you_mean(method, [*known, *ALIASES])}")
    fields = [field.name for field in dataclasses.fields(known[name]) if field.init]
    for option in options:
        if option not in fields:
            raise ConfigError(f"{PREFIX}{method} has no option {option!r}.{did_you_mean(option, fields)}")
    return known[name], implied | options


def _inject(model: Any, kind: Any, options: dict[str, Any]) -> None:
    from peft import PeftModelForFeatureExtraction, PromptLearningConfig, TaskType, inject_adapter_in_model
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    is_prompt = issubclass(kind, PromptLearningConfig)
    path = _encoder_path(model)
    options = (
        _prompt_sizes(model.get_submodule(path), kind) | options if is_prompt else _with_targets(model, kind, options)
    )
    config = kind(**options)
    if is_prompt or getattr(PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type), "uses_shared_state", False):
        config.task_type = TaskType.FEATURE_EXTRACTION
        wrapped = PeftModelForFeatureExtraction(model.get_submodule(path), config)
        if is_prompt:
            wrapped.register_forward_pre_hook(_PromptInputs(model.network.config, config), with_kwargs=True)
            wrapped.register_forward_hook(_without_virtual_tokens, with_kwargs=True)
        model.set_submodule(path, wrapped)
    else:
        inject_adapter_in_model(config, model.get_submodule("network"))


class _PromptInputs:
    """Called before a backbone with virtual tokens: it has no token types for them, and they take positions."""

    def __init__(self, architecture: Any, config: Any) -> None:
        self.virtual = int(config.num_virtual_tokens)
        self.limit = position_limit(architecture)

    def __call__(self, _: nn.Module, args: Any, features: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        length = _input_ids(args, features).shape[1]
        if self.limit is not None and length + self.virtual > self.limit:
            raise AdaptationError(
                f"{length} tokens and {self.virtual} virtual ones are more than the {self.limit} positions of the "
                f"backbone; use --max-length {self.limit - self.virtual}, or fewer num_virtual_tokens."
            )
        return args, {name: value for name, value in features.items() if name != "token_type_ids"}


def _without_virtual_tokens(_: nn.Module, args: Any, features: dict[str, Any], outputs: Any) -> Any:
    """Called after such a backbone: a head finds the text's own positions where it looks for them."""
    outputs.last_hidden_state = outputs.last_hidden_state[:, -_input_ids(args, features).shape[1] :]
    return outputs


def _input_ids(args: Any, features: dict[str, Any]) -> torch.Tensor:
    found: torch.Tensor = args[0] if args else features["input_ids"]
    return found


def _encoder_path(model: nn.Module) -> str:
    """The name of the bare encoder, which is below a family's own classifier if there is one."""
    prefix = str(getattr(model.network, "base_model_prefix", ""))
    return f"network.{prefix}" if prefix and hasattr(model.network, prefix) else "network"


def _try_out(model: TextClassifier, new: list[nn.Parameter]) -> bool:
    """Two short texts through the model: some methods are accepted first and fail in use.

    Returns:
        whether the logits depend on any of the parameters `new`.
    """
    with torch.enable_grad():
        logits = model(**_short_texts(model.network.config))
        if not new:
            return False
        gradients = torch.autograd.grad(logits.sum(), new, allow_unused=True)
    return any(gradient is not None for gradient in gradients)


def _short_texts(architecture: Any) -> dict[str, torch.Tensor]:
    """A text of four tokens and one of two: ids and mask [2, 4].

    Of an encoder-decoder each ends with <eos> and has no other one: it reads its answer there.
    """
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    end = architecture.eos_token_id if architecture.is_encoder_decoder else None
    ids = torch.full(mask.shape, 2 if end == 1 else 1)
    if end is not None:
        ids[torch.arange(2), mask.sum(1) - 1] = end
    return {"input_ids": ids, "attention_mask": mask}


def _prompt_sizes(encoder: Any, kind: Any) -> dict[str, Any]:
    """The defaults of a prompt method: PEFT finds the sizes of some families only.

    Raises:
        AdaptationError: the encoder has no attention layers, which virtual tokens are for.
    """
    fields = {field.name for field in dataclasses.fields(kind)}
    config = encoder.config
    if not hasattr(config, "num_hidden_layers"):
        raise AdaptationError(f"{type(encoder).__name__} has no attention that virtual tokens could guide; use lora.")
    # Virtual tokens stand beside embeddings, which may be narrower than the layers; a prefix is in the layers.
    is_prefix = kind.__name__ == "PrefixTuningConfig"
    width = config.hidden_size if is_prefix else encoder.get_input_embeddings().embedding_dim
    sizes = PROMPT_DEFAULTS | {
        "token_dim": width,
        "encoder_hidden_size": width,
        "num_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
    }
    return {name: size for name, size in sizes.items() if name in fields}


def _with_targets(model: nn.Module, kind: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Add the targets our own strategies take, where the method wants some and the user names none."""
    fields = {field.name for field in dataclasses.fields(kind)}
    filled = dict(options)
    if "target_modules" in fields and "target_modules" not in options and kind.__name__ not in OTHER_TARGETS:
        try:
            linears = encoder_linears(model)
        except AdaptationError:
            # PEFT knows families that are built of other layers, as GPT-2, by their names.
            return filled
        # PEFT compares the ends of names, and these are the same below every wrapper.
        start = len(_encoder_path(model)) + 1
        filled["target_modules"] = [name[start:] for name in linears]
        if "feedforward_modules" in fields:
            filled["feedforward_modules"] = [name[start:] for name in feed_forward_linears(model)]
    return filled
