"""What became of each weight: loaded, replaced, new, added or left out, and whether it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transferkit.adaptation.patterns import kind_of
from transferkit.models.backbones import Origin, TextClassifier

# `added`: by a strategy. `left out`: in the files, and of no use to the network.
Source = Origin | Literal["added", "left out"]


@dataclass(frozen=True)
class Weights:
    """Parameters whose names differ in the number of a layer alone."""

    name: str
    tensors: int
    parameters: int
    origin: Source
    trains: bool


def weights_of(model: TextClassifier) -> tuple[Weights, ...]:
    """The weights of a classifier in its own order, before or after a strategy was applied, then what was left out."""
    kinds: dict[tuple[str, Source, bool], list[int]] = {}
    for name, parameter in model.named_parameters():
        origin: Source = model.origins.get(parameter, "added")
        kinds.setdefault((kind_of(name), origin, parameter.requires_grad), []).append(parameter.numel())
    for name in model.left_out:
        kinds.setdefault((kind_of(name), "left out", False), []).append(0)
    return tuple(
        Weights(name, len(sizes), sum(sizes), origin, trains) for (name, origin, trains), sizes in kinds.items()
    )


def as_table(rows: Sequence[Weights]) -> str:
    """Lines for the log, one for each kind of parameters."""
    cells = [["Parameters", "", "Numbers", "Origin", "Training"]]
    for row in rows:
        number = f"{row.parameters:,}" if row.parameters else ""
        trains = "" if row.origin == "left out" else "trains" if row.trains else "frozen"
        cells.append([row.name, f"x {row.tensors}" if row.tensors > 1 else "", number, row.origin, trains])
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    return "\n".join(
        f"{name:<{widths[0]}}  {times:<{widths[1]}}  {number:>{widths[2]}}  {origin:<{widths[3]}}  {trains}".rstrip()
        for name, times, number, origin, trains in cells
    )
