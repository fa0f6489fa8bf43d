"""What a run in progress keeps on disk: its best weights, and all that it needs to go on exactly where it was.

Files are written beside their place and moved there, so that a stop at any moment leaves the last whole one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from transferkit.adaptation.capsule import learnt_tensors, load_learnt
from transferkit.environment import whole_file, write_through
from transferkit.errors import RunError
from transferkit.evaluation.results import EpochRecord
from transferkit.training.averaging import WeightAverage

FORMAT = "transferkit/state/2"


@dataclass
class TrainingState:
    """How far a training is; with the weights and the optimizer it is all that going on needs."""

    # The epoch that is being trained, from 1, and how many of its batches are done.
    epoch: int = 1
    batches: int = 0
    step: int = 0
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    weight_sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    epochs: list[EpochRecord] = field(default_factory=list)
    best_epoch: int | None = None
    average: WeightAverage = field(default_factory=WeightAverage)
    # Of training until the state was saved.
    seconds: float = 0.0

    def begin_epoch(self, epoch: int) -> None:
        """Nothing of this epoch is done."""
        self.epoch, self.batches = epoch, 0
        self.loss_sum, self.weight_sum = torch.zeros(()), torch.zeros(())


def save_weights(path: Path, model: nn.Module) -> None:
    """Write what training has changed."""
    _write(path, learnt_tensors(model))


def restore_weights(path: Path, model: nn.Module) -> None:
    """Put the saved weights back into `model`."""
    from safetensors.torch import load_file

    load_learnt(model, load_file(path), str(path))


def save_state(path: Path, state: TrainingState, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write `state` with weights, moments and random numbers as they are now."""
    moments = optimizer.state_dict()["state"]
    tensors = {
        "random": torch.get_rng_state(),
        "loss_sum": state.loss_sum,
        "weight_sum": state.weight_sum,
        **{f"weights/{name}": tensor for name, tensor in learnt_tensors(model).items()},
        **{f"moments/{place}/{name}": tensor for place, own in moments.items() for name, tensor in own.items()},
        **{f"average/{name}": tensor for name, tensor in state.average.mean.items()},
    }
    numbers = {
        "epoch": state.epoch,
        "batches": state.batches,
        "step": state.step,
        "epochs": [record.model_dump() for record in state.epochs],
        "best_epoch": state.best_epoch,
        "averaged": state.average.epochs,
        "seconds": state.seconds,
    }
    _write(path, tensors, {"format": FORMAT, "state": json.dumps(numbers)})


def restore_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[TrainingState, Tensor]:
    """Put weights and moments back; returns how far the training was, and the state of torch's random numbers.

    Raises:
        RunError: the file is missing, damaged, or of another version.
        AdaptationError: its weights are those of another model.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise RunError(f"{path} is a checkpoint of another version; train again with --overwrite.")
            numbers = json.loads(metadata["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path} cannot be read ({reason}); train again with --overwrite.") from None
    load_learnt(model, _under("weights/", tensors), str(path))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("moments/", tensors).items():
        place, _, what = name.partition("/")
        moments.setdefault(int(place), {})[what] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    state = TrainingState(
        epoch=numbers["epoch"],
        batches=numbers["batches"],
        step=numbers["step"],
        loss_sum=tensors["loss_sum"],
        weight_sum=tensors["weight_sum"],
        epochs=[EpochRecord.model_validate(record) for record in numbers["epochs"]],
        best_epoch=numbers["best_epoch"],
        average=WeightAverage(numbers["averaged"], _under("average/", tensors)),
        seconds=numbers["seconds"],
    )
    return state, tensors["random"]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata)
        write_through(partial)
