"""Many sources, decoded in batches of like lengths, with the results in the order of the sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transferkit.config import LENGTH_PENALTIES
from transferkit.data.batching import ListColumn, runs
from transferkit.environment import releasing
from transferkit.generation.decoding import Bounds, Hypothesis, Pick, beam_search, decode, likeliest
from transferkit.generation.workers import at_once
from transferkit.models.lean_translator import LeanTranslator

# A target that is so much longer than its source has run away: the model repeats itself and finds no end.
LONGEST_RATIO, LONGEST_MORE = 2, 10


# Row numbers, ids int64 [B, S], mask bool [B, S].
SourceBatch = tuple[list[int], Tensor, Tensor]


@dataclass(frozen=True)
class Decoding:
    """How targets are found.

    Attributes:
        beams: hypotheses at a time of a beam search; 1 takes one token after the other as `pick` says.
        length_penalty: of a beam search, from -10 to 10.
        pick: how the next token is chosen where there is one beam.
        max_tokens: of one batch of sources, padding and beams counted.
        max_length: the most tokens of a target, its end among them, in the place of all other bounds.
    """

    beams: int = 1
    length_penalty: float = 1.0
    pick: Pick = likeliest
    max_tokens: int = 8192
    max_length: int | None = None

    def __post_init__(self) -> None:
        least, most = LENGTH_PENALTIES
        if not least <= self.length_penalty <= most:
            raise ValueError(f"A length penalty is from {least:g} to {most:g}; this one is {self.length_penalty:g}.")
        if self.beams < 1:
            raise ValueError(f"Targets are found with at least a beam; beams is {self.beams}.")
        if self.beams > 1 and self.pick is not likeliest:
            raise ValueError("A search of several beams draws nothing; give beams=1 with pick.")
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"A target has at least a token; max_length is {self.max_length}.")


def decode_all(
    model: LeanTranslator, sources: Sequence[Sequence[int]], padding: int, bounds: Bounds, decoding: Decoding,
    advanced: Callable[[int], None] = lambda _: None,
) -> list[list[Hypothesis]]:  # fmt: skip
    """The targets of each source, best first; a source without a token has the empty target.

    Args:
        model: a translator, ready in its precision.
        sources: ids, their end tokens among them.
        padding: the id that fills shorter sources.
        bounds: of the targets, each of which ends besides at twice the length of its source and ten more, unless
            `decoding` has a bound.
        decoding: how.
        advanced: hears how many more sources are done.
    """

    most = bounds.by_source(len(sources))

    def targets(batch: SourceBatch) -> list[list[Hypothesis]]:
        rows, ids, mask = batch
        own = replace(
            bounds, max_length=[decoding.max_length or longest_target(len(sources[row]), most[row]) for row in rows]
        )
        if decoding.beams > 1:
            return beam_search(model, ids, mask, own, decoding.beams, decoding.length_penalty)
        return [[one] for one in decode(model, ids, mask, own, decoding.pick)]

    found: list[list[Hypothesis]] = [[Hypothesis((), 0.0, ended=True)] for _ in sources]
    batches = list(in_length_order(sources, padding, decoding.max_tokens // decoding.beams))
    # Random numbers come from one generator, in the order of the batches.
    workers = len(batches) if decoding.beams > 1 or decoding.pick is likeliest else 1
    for (rows, *_), of_batch in zip(batches, releasing(at_once(targets, batches, workers)), strict=True):
        for row, own in zip(rows, of_batch, strict=True):
            found[row] = own
        advanced(len(rows))
    return found


def in_length_order(sources: Sequence[Sequence[int]], padding: int, max_tokens: int) -> Iterator[SourceBatch]:
    """Batches of at most `max_tokens`, padding counted, or of one source.

    The longest come first, since they take most memory; sources without a token are in none.
    """
    column = ListColumn.from_lists(sources)
    order = (-column.lengths).argsort(kind="stable")
    order = order[column.lengths[order] > 0]
    for rows in runs(order, max_tokens, lambda first: int(column.lengths[first[0]])):
        lengths = torch.from_numpy(column.lengths[rows])
        width = int(lengths[0])
        yield rows.tolist(), column.padded(rows, width, padding), torch.arange(width) < lengths.unsqueeze(1)


def longest_target(source_length: int, max_length: int) -> int:
    """How long the target of a source may be: no more than `max_length`, and not so much that it has run away."""
    return min(max_length, LONGEST_RATIO * source_length + LONGEST_MORE)
