"""A translation looked at again: how sure the model was of each token, and where it looked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from transferkit.errors import RunError
from transferkit.models.translator import KINDS, Attentions, Translator
from transferkit.tokenization.parallel import Tokenizers


@dataclass(frozen=True)
class Retraced:
    """One source and its target as the model had them.

    Attributes:
        source: the tokens of the source, its end last.
        given: the start and the tokens of the target: what the model had read last at each step.
        written: the tokens of the target, and its end if it came to it: what the model wrote at each step.
        probabilities: of each written token, those before it given.
        attentions: of a batch of this one sentence, [1, heads, queries, keys] for each layer.
    """

    source: tuple[str, ...]
    given: tuple[str, ...]
    written: tuple[str, ...]
    probabilities: tuple[float, ...]
    attentions: Attentions


@torch.no_grad()
def retrace(
    model: Translator, tokenizers: Tokenizers, source: Sequence[int], target: Sequence[int], ended: bool
) -> Retraced:
    """Let the model, in eval mode, go through a translation again.

    Args:
        model: the translator.
        tokenizers: of both sides.
        source: ids with the end token.
        target: ids without start and end.
        ended: whether the target came to its end, or was cut off.
    """
    model.eval()
    written = [*target, *([tokenizers.target.end_id] if ended else [])]
    given = [tokenizers.target.start_id, *written[:-1]]
    ids, so_far = torch.tensor([list(source)]), torch.tensor([given])
    states, attentions = model.look(ids, None, so_far)
    chosen = model.project(states)[0].gather(1, torch.tensor(written).unsqueeze(1)).squeeze(1)
    names = tokenizers.target.names
    return Retraced(
        tokenizers.source.names(source), names(given), names(written), tuple(chosen.exp().tolist()), attentions
    )


def save_retraced(path: Path, one: Retraced) -> None:
    """Write it as safetensors: for each kind of attention [layers, heads, queries, keys], and tokens as metadata."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {kind: torch.cat(getattr(one.attentions, kind)).contiguous() for kind in KINDS}
    tensors["probabilities"] = torch.tensor(one.probabilities)
    save_file(tensors, path, {name: json.dumps(getattr(one, name)) for name in ("source", "given", "written")})


def read_retraced(path: Path) -> Retraced:
    """Read it back.

    Raises:
        RunError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = cast(Mapping[str, str], file.metadata() or {})
            tokens = {name: tuple(json.loads(metadata[name])) for name in ("source", "given", "written")}
            layers = {kind: tuple(layer.unsqueeze(0) for layer in file.get_tensor(kind)) for kind in KINDS}
            probabilities = tuple(file.get_tensor("probabilities").tolist())
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunError(f"{path} is damaged ({' '.join(str(error).split())}); train the run again.") from None
    return Retraced(**tokens, probabilities=probabilities, attentions=Attentions(**layers))
