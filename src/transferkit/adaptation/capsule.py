"""A capsule: what a strategy changed, its head, and what is needed to put both back on their base, in one file."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from transferkit.adaptation.adapters import added_parameters
from transferkit.adaptation.strategies import make_strategy
from transferkit.config import StrategySpec
from transferkit.errors import AdaptationError

FORMAT = "transferkit/capsule/1"


class CapsuleInfo(BaseModel):
    """The JSON in the header of a capsule file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: StrategySpec
    task: str
    labels: tuple[str, ...]
    backbone: str
    base_fingerprint: str
    tokenizer_hash: str
    pooling: str


def learnt_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What the base does not have: trainable and added parameters, and buffers that are saved with the model."""
    # Both lists name what is shared once, as a file must; the state names it wherever it is used.
    # A method may add random weights that it does not train, and that no base has.
    added = {id(parameter) for parameter in added_parameters(model)}
    learnt = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad or id(p) in added}
    saved = model.state_dict().keys()
    return learnt | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def load_learnt(model: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Copy `tensors` into the adapted `model`: exactly its learnt tensors, name by name.

    Raises:
        AdaptationError: names or shapes differ, so the tensors belong to another strategy or architecture.
    """
    own = learnt_tensors(model)
    strangers = sorted(own.keys() ^ tensors.keys()) or sorted(
        name for name in own if own[name].shape != tensors[name].shape
    )
    if strangers:
        raise AdaptationError(
            f"{where} does not fit the model: {len(strangers)} of the weights differ, such as {strangers[0]}."
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def save_capsule(path: Path, model: nn.Module, info: CapsuleInfo) -> None:
    """Write the learnt tensors of `model` and `info` to one safetensors file."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in learnt_tensors(model).items()}
    save_file(tensors, path, metadata={"format": FORMAT, "info": info.model_dump_json()})


def read_capsule(path: Path) -> tuple[CapsuleInfo, dict[str, Tensor]]:
    """Read a capsule.

    Raises:
        AdaptationError: the file is missing, is not whole, or is not a capsule.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise AdaptationError(f"{path} is not a capsule of this version; save it with this version again.")
            info = CapsuleInfo.model_validate(json.loads(metadata["info"]))
            return info, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise AdaptationError(f"There is no capsule {path}.") from None
    except (SafetensorError, OSError, ValidationError, KeyError, json.JSONDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AdaptationError(f"{path} cannot be read as a capsule: {reason}") from None


def attach(model: nn.Module, path: Path, base_fingerprint: str, tokenizer_hash: str) -> CapsuleInfo:
    """Adapt the base `model` in place as the capsule says.

    Args:
        model: the base as it was built before adaptation, with a head of the right size.
        path: the capsule file.
        base_fingerprint: of `model`, as `TextClassifier.fingerprint` gives it.
        tokenizer_hash: of the tokenizer that will feed the model.

    Raises:
        AdaptationError: the capsule belongs to another base, another tokenizer, or another pooling.
    """
    info, tensors = read_capsule(path)
    if info.base_fingerprint != base_fingerprint:
        raise AdaptationError(
            f"The capsule {path} belongs to another base: it was made on {info.backbone}, with the fingerprint "
            f"{info.base_fingerprint[:12]}, and this model has {base_fingerprint[:12]}. Load that base."
        )
    if info.tokenizer_hash != tokenizer_hash:
        raise AdaptationError(f"The capsule {path} was made with another tokenizer; use the one saved beside it.")
    pooling = getattr(model, "pooling", info.pooling)
    if pooling != info.pooling:
        raise AdaptationError(f"The capsule {path} has its head on {info.pooling} pooling, the model on {pooling}.")
    make_strategy(info.strategy).apply(model)
    load_learnt(model, tensors, str(path))
    return info
