"""LoRA to and from the folder format of the PEFT library: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transferkit.adaptation.adapters import adapter_layers, remember_head, wrap_linears
from transferkit.adaptation.base import AdaptationReport
from transferkit.adaptation.freezing import head_parameters
from transferkit.adaptation.lora import LoRA, LoRALinear
from transferkit.errors import AdaptationError

# PEFT saves the weights as the state of a model wrapped twice.
PREFIX = "base_model.model."


def export_peft(model: nn.Module, folder: Path, base_name: str) -> None:
    """Write the LoRA layers and the head of `model` so that `PeftModel.from_pretrained(base, folder)` reads them.

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
    head = head_parameters(model)
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

    Raises:
        AdaptationError: the folder has no LoRA in safetensors, uses a variant that plain LoRA is not, or does
            not fit the model.
    """
    from safetensors.torch import load_file

    config = _read_config(folder)
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise AdaptationError(f"{folder} has no adapter_model.safetensors; other formats can run code when read.")
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(weights).items()}
    targets = sorted(name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight"))
    strategy = LoRA(
        rank=config["r"],
        alpha=config["lora_alpha"],
        dropout=config["lora_dropout"],
        rank_stabilised=bool(config.get("use_rslora")),
        targets=tuple(targets),
    )
    head = head_parameters(model)
    remember_head(model, head)
    _load_head(model, head, tensors, folder)
    wrap_linears(model, targets, lambda layer: LoRALinear(layer, strategy.rank, strategy.scaling, strategy.dropout))
    with torch.no_grad():
        for name, layer in adapter_layers(model):
            assert isinstance(layer, LoRALinear)
            layer.lora_a.copy_(tensors[f"{name}.lora_A.weight"])
            layer.lora_b.copy_(tensors[f"{name}.lora_B.weight"])
    return AdaptationReport.of(model, "LoRA")


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
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        raise AdaptationError(f"{folder} holds {config.get('peft_type')}, not LORA; use --strategy peft:<METHOD>.")
    for variant in (
        "use_dora",
        "rank_pattern",
        "alpha_pattern",
        "layer_replication",
        "lora_bias",
        "fan_in_fan_out",
    ):
        if config.get(variant):
            raise AdaptationError(f"{folder} uses PEFT's {variant}, which plain LoRA is not; load it with PEFT.")
    if config.get("bias", "none") != "none":
        raise AdaptationError(f"{folder} trains biases beside LoRA, which plain LoRA does not; load it with PEFT.")
    return config


def _load_head(model: nn.Module, head: frozenset[str], tensors: dict[str, Tensor], folder: Path) -> None:
    """Copy the head; what PEFT did not save of it, it did not train, and it stays as the base has it."""
    saved = {name for name in head if name in tensors}
    if head and not saved:
        raise AdaptationError(f"{folder} has no weights for the head {min(head)}; save it with modules_to_save.")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in saved:
                parameter.copy_(tensors[name])
            parameter.requires_grad_(name in head)
