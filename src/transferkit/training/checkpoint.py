"""The best weights of a run in progress, on disk, so that nothing is lost when it stops."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from transferkit.adaptation.capsule import learnt_tensors, load_learnt


def save_checkpoint(path: Path, model: nn.Module) -> None:
    """Write what training has changed; the file is whole or not there."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in learnt_tensors(model).items()}
    save_file(tensors, partial)
    partial.replace(path)


def restore_checkpoint(path: Path, model: nn.Module) -> None:
    """Put the saved weights back into `model`."""
    from safetensors.torch import load_file

    load_learnt(model, load_file(path), str(path))
