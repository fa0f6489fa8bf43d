"""LoRA to and from the PEFT library's folder format: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transferkit.adaptation.adapters import adapter_layers
from transferkit.adaptation.base import AdaptationReport
from transferkit.adaptation.freezing import head_parameters
from transferkit.adaptation.lora import LoRA, LoRALinear
from transferkit.errors import AdaptationError
from transferkit.parsing import build

# PEFT saves the weights as the state of a model wrapped twice.
PREFIX = "base_model.model."


def export_peft(model: nn.Module, folder: Path, base_name: str) -> None:
    """Write the LoRA layers and the head of `model` for `PeftModel.from_pretrained(base, folder)`.

    Args:
        model: a network adapted by `LoRA`, as transformers builds it (`TextClassifier.network`).
        folder: is made if it is not there.
        base_name: hub id or folder of the base, for PEFT's record.

    Raises:
        AdaptationError: the model has no LoRA layers, or its layers differ in rank or scaling.
    """
    from safetensors.torch import save_file

    layers = {name: layer for name, layer in adapter_layers(model) if isinstance(layer, LoRALinear)}
    if not layers:
        raise AdaptationError("There are no LoRA layers to export; only the strategy lora has PEFT's format.")
    ranks = {(layer.lora_a.shape[0], layer.scaling, layer.dropout) for layer in layers.values()}
    if len(ranks) > 1:
        raise AdaptationError("The LoRA layers differ in rank or scaling; PEFT's format is written for one of each.")
    (rank, scaling, dropout) = ranks.pop()
    # What trains beside LoRA is head too: a pooler that the base lacked.
    inside = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
    head = head_parameters(model) | {
        name for name, p in model.named_parameters() if p.requires_grad and id(p) not in inside
    }
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_a
        tensors[f"{PREFIX}{name}.lora_B.weight"] = layer.lora_b
    for name, parameter in model.named_parameters():
        if name in head:
            tensors[f"{PREFIX}{name}"] = parameter
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if head else "FEATURE_EXTRACTION",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": scaling * rank,
        "lora_dropout": dropout,
        "use_rslora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(layers),
        "modules_to_save": _outermost_modules(model, head) or None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    contents = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contents, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def import_peft(model: nn.Module, folder: Path) -> AdaptationReport:
    """Adapt the base `model` in place with the LoRA weights and the head that PEFT saved in `folder`.

    Args:
        model: a network as transformers builds it (`TextClassifier.network`), not adapted before.
        folder: as `PeftModel.save_pretrained` writes it.

    Raises:
        AdaptationError: the folder has no LoRA in safetensors, uses a variant that plain LoRA is not, or does
            not fit the model.
    """
    config = _read_config(folder)
    tensors = _read_tensors(folder)
    targets = sorted(name.removesuffix(_A) for name in tensors if name.endswith(_A))
    settings = {
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "dropout": config.get("lora_dropout", 0.0),
        "rank_stabilised": bool(config.get("use_rslora")),
        "targets": targets,
    }
    beside = {name: tensor for name, tensor in tensors.items() if not name.endswith((_A, _B))}
    _check_fit(model, targets, beside, folder)
    report = build(LoRA, settings, f"{folder}/adapter_config.json").apply(model)
    lora = {name: layer for name, layer in adapter_layers(model) if isinstance(layer, LoRALinear)}
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, layer in lora.items():
            _copy(layer.lora_a, tensors[f"{name}{_A}"], f"{name}{_A}", folder)
            _copy(layer.lora_b, tensors[f"{name}{_B}"], f"{name}{_B}", folder)
        for name, tensor in beside.items():
            _copy(parameters[name], tensor, name, folder)
            parameters[name].requires_grad_(True)
    return AdaptationReport.of(model, report.strategy)


_A, _B = ".lora_A.weight", ".lora_B.weight"


def _check_fit(model: nn.Module, targets: list[str], beside: dict[str, Tensor], folder: Path) -> None:
    """Every tensor has its place in the model, and the head its tensors."""
    parameters = {name for name, _ in model.named_parameters()}
    strangers = sorted({name for name in targets if f"{name}.weight" not in parameters} | (beside.keys() - parameters))
    if strangers:
        raise AdaptationError(
            f"{folder} does not fit {type(model).__name__}: it has weights for {strangers[0]}, and the model has not."
        )
    head = head_parameters(model)
    for name in targets:
        if f"{name}.weight" in head:
            raise AdaptationError(f"{folder} has LoRA on {name}, a layer of the head; load it with PEFT.")
    # PEFT saves a family's last layer by itself, and forgets those before it: a head in part is a random head.
    lacking = sorted(head - beside.keys())
    if lacking:
        raise AdaptationError(f"{folder} has no weights for the head's {lacking[0]}; save it with modules_to_save.")


def _copy(parameter: nn.Parameter, tensor: Tensor, name: str, folder: Path) -> None:
    if parameter.shape != tensor.shape:
        shapes = f"{tuple(tensor.shape)} there and {tuple(parameter.shape)} in the model"
        raise AdaptationError(f"{folder} does not fit the model: {name} is {shapes}.")
    parameter.copy_(tensor)


def _outermost_modules(model: nn.Module, head: frozenset[str]) -> list[str]:
    """The modules that hold parameters of the head and no others, without those inside another of them."""
    names = [name for name, _ in model.named_parameters()]
    found: list[str] = []
    for module, _ in model.named_modules():
        inside = [name for name in names if name.startswith(f"{module}.")]
        if inside and head.issuperset(inside) and not any(module.startswith(f"{outer}.") for outer in found):
            found.append(module)
    return found


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise AdaptationError(f"{folder} is not a PEFT folder: it has no adapter_config.json.")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdaptationError(f"{path} is not readable as JSON: {error}.") from None
    if config.get("peft_type") != "LORA":
        raise AdaptationError(f"{folder} holds {config.get('peft_type')}, not LORA; train with peft:<METHOD>.")
    for variant in _VARIANTS:
        if config.get(variant):
            raise AdaptationError(f"{folder} uses PEFT's {variant}, which plain LoRA is not; load it with PEFT.")
    if config.get("bias", "none") != "none":
        raise AdaptationError(f"{folder} trains biases, which plain LoRA does not; load it with PEFT.")
    # These put a part of the base's own weight into A and B, and need a changed base beside them.
    start = str(config.get("init_lora_weights", True)).lower()
    if start.startswith(("pissa", "olora", "loftq", "corda", "lora_ga")):
        raise AdaptationError(f"{folder} starts from {start}, which changes the base; convert it with PEFT first.")
    return config


# Options of PEFT's that make another layer of LoRA, or put it elsewhere than on linear layers.
_VARIANTS = (
    "use_dora", "rank_pattern", "alpha_pattern", "layer_replication", "lora_bias", "fan_in_fan_out", "use_qalora",
    "alora_invocation_tokens", "trainable_token_indices", "target_parameters", "use_bdlora", "arrow_config",
    "kasa_config", "velora_config", "monteclora_config",
)  # fmt: skip


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise AdaptationError(f"{folder} has no adapter_model.safetensors; other formats can run code when read.")
    try:
        return {name.removeprefix(PREFIX): tensor for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise AdaptationError(f"{path} is not readable: {error}.") from None
