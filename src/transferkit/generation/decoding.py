"""How the next token is chosen: the likeliest, a draw, or the best of several hypotheses (beam search).

Every way decodes a batch of B sources at once, keeps keys and values between steps, and lets sources that have ended
leave the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from transferkit.generation.steps import begin
from transferkit.models.lean_translator import LeanTranslator
from transferkit.tokenization.trained import TrainedTokenizer


@dataclass(frozen=True)
class Bounds:
    """Where a target begins and ends."""

    start: int
    end: int
    # The most tokens of a target, its end among them: one number for all, or one for each source.
    max_length: int | Sequence[int]

    @classmethod
    def of(cls, target: TrainedTokenizer, max_length: int) -> Bounds:
        """Those of the targets that a tokenizer writes."""
        return cls(target.start_id, target.end_id, max_length)

    def by_source(self, sources: int) -> list[int]:
        """`max_length` of each of so many sources.

        Raises:
            ValueError: there are more or fewer bounds than sources, or one leaves no room for a token.
        """
        lengths = [self.max_length] * sources if isinstance(self.max_length, int) else list(self.max_length)
        if len(lengths) != sources:
            raise ValueError(f"There are {sources} sources and {len(lengths)} bounds of their targets.")
        if min(lengths, default=1) < 1:
            raise ValueError(f"A target has at least a token; max_length is {min(lengths)}.")
        return lengths


@dataclass(frozen=True)
class Hypothesis:
    """Tokens without start and end, and their log-probability; of a beam search, divided by length^penalty."""

    tokens: tuple[int, ...]
    score: float
    # False where its bound cut it off.
    ended: bool


# Of values that `largest` looks at together.
_GROUP = 64
# To leave ended rows out copies the keys and values of the others: cheaper than to go on with them once so many ended.
_WORTH_KEEPING = 0.8

# Batches shrink to multiples of so many rows: products in bf16 have a kernel built for every number of rows that comes.
_ROWS = 8

# Log-probabilities divided by less are soon no numbers of fp32; the draws are greedy long before.
LEAST_TEMPERATURE = 1e-4

# Log-probabilities [B, V] to tokens int64 [B].
Pick = Callable[[Tensor], Tensor]


def likeliest(log_probabilities: Tensor) -> Tensor:
    """The token with the highest probability: greedy decoding."""
    return largest(log_probabilities, 1)[1].squeeze(1)


@dataclass(frozen=True)
class Sampler:
    """Draws a token by its probability, after the unlikely ones are left out.

    Attributes:
        temperature: divides the log-probabilities: below 1 likely tokens become likelier.
        top_k: of how many of the likeliest tokens one is drawn; None for all.
        top_p: the likeliest tokens are kept until they have this probability together (Holtzman et al. 2020,
            section 3.1).
        generator: of the random numbers; None for torch's own.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        is_warm = math.isfinite(self.temperature) and self.temperature >= LEAST_TEMPERATURE
        if not is_warm or not 0 < self.top_p <= 1 or (self.top_k is not None and self.top_k < 1):
            raise ValueError(
                f"A temperature is finite and at least {LEAST_TEMPERATURE}, top_p above 0 and at most 1, and top_k at "
                "least 1."
            )

    def __call__(self, log_probabilities: Tensor) -> Tensor:
        """One draw for each row of [B, V]."""
        return torch.multinomial(self.probabilities(log_probabilities), 1, generator=self.generator).squeeze(1)

    def probabilities(self, log_probabilities: Tensor) -> Tensor:
        """What is drawn from, [B, V]."""
        kept = log_probabilities / self.temperature
        if self.top_k is not None:
            least = kept.topk(min(self.top_k, kept.shape[-1])).values[:, -1:]
            kept = kept.masked_fill(kept < least, -torch.inf)
        if self.top_p < 1:
            ordered, order = kept.softmax(-1).sort(-1, descending=True)
            # A token stays while those before it do not have the probability yet; so the first always does.
            beyond = ordered.cumsum(-1) - ordered >= self.top_p
            kept = kept.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)
        return kept.softmax(-1)


@torch.inference_mode()
def decode(
    model: LeanTranslator, source: Tensor, source_mask: Tensor | None, bounds: Bounds, pick: Pick = likeliest
) -> list[Hypothesis]:
    """One target for each source, token by token as `pick` says.

    Args:
        model: a translator, ready in its precision.
        source: ids int64 [B, S].
        source_mask: bool [B, S], True on real tokens; None where all are.
        bounds: of the targets.
        pick: chooses the next token.

    Raises:
        ValueError: a source has no token, the mask is not a boolean one of its shape, there are more or fewer bounds
            than sources, or one is below 1.
    """
    steps = begin(model, source, source_mask)
    longest = torch.tensor(bounds.by_source(len(source)))
    # Of each row of the batch: which source it is of, and whether its target still grows.
    rows = torch.arange(len(source))
    grows = torch.ones(len(source), dtype=torch.bool)
    tokens = torch.full((len(source),), bounds.start)
    written = torch.full((len(source), int(longest.max())), bounds.end)
    scores = torch.zeros(len(source))
    while bool(grows.any()):
        log_probabilities = steps.take(tokens)
        tokens = pick(log_probabilities).where(grows, bounds.end)
        written[rows, steps.taken - 1] = tokens
        scores[rows] += log_probabilities.gather(1, tokens.unsqueeze(1)).squeeze(1).where(grows, 0.0)
        grows = (tokens != bounds.end) & (longest[rows] > steps.taken)
        going = math.ceil(int(grows.sum()) / _ROWS) * _ROWS
        if going <= _WORTH_KEEPING * len(rows):
            # Where fewer go on, some that have ended stay with them.
            kept = grows.argsort(descending=True, stable=True)[:going]
            rows, tokens, grows = rows[kept], tokens[kept], grows[kept]
            steps.keep(kept, kept)
    lengths = (written != bounds.end).sum(1).tolist()
    return [
        Hypothesis(tuple(ids[:length]), score, length < most)
        for ids, length, score, most in zip(written.tolist(), lengths, scores.tolist(), longest.tolist(), strict=True)
    ]


@torch.inference_mode()
def beam_search(
    model: LeanTranslator, source: Tensor, source_mask: Tensor | None, bounds: Bounds, beams: int,
    length_penalty: float = 1.0,
) -> list[list[Hypothesis]]:  # fmt: skip
    """The best `beams` targets that the search finds for each source, best first.

    In each step every hypothesis goes on with every token, and the `beams` best sums of log-probabilities survive. What
    ends is kept aside by its sum divided by length^`length_penalty`; a source is done when `beams` have ended that the
    best survivor, at the length it has, does not beat. It is the search that transformers does by default.

    Args:
        model: a translator, ready in its precision.
        source: ids int64 [B, S].
        source_mask: bool [B, S], True on real tokens; None where all are.
        bounds: of the targets.
        beams: how many hypotheses a source has at a time, at least 1.
        length_penalty: above 0 favours long targets, below 0 short ones.

    Raises:
        ValueError: as `decode`, or there is no beam.
    """
    if beams < 1:
        raise ValueError(f"A beam search needs a beam; {beams} were asked for.")
    steps = begin(model, source, source_mask)
    searches = [_Search(beams, length_penalty, bounds.end, length) for length in bounds.by_source(len(source))]
    going = list(range(len(source)))
    tokens = torch.full((len(source),), bounds.start)
    # A source begins with one hypothesis, the empty one.
    sums = torch.zeros(len(source), 1)
    while going:
        # Twice as many as survive: one hypothesis in two may end here, and no more, as it ends with one token.
        log_probabilities, words = largest(steps.take(tokens), 2 * beams)
        continued = (sums.view(-1, 1) + log_probabilities).view(len(going), -1)
        best = continued.topk(min(2 * beams, continued.shape[1]))
        parents = (best.indices // words.shape[1]).tolist()
        following = words.view(len(going), -1).gather(1, best.indices).tolist()
        survivors = [
            searches[source].advance(*candidates)
            for source, *candidates in zip(going, best.values.tolist(), parents, following, strict=True)
        ]
        still = [place for place, rows in enumerate(survivors) if rows]
        width = sums.shape[1]
        kept = [(place * width + parent, token, total) for place in still for parent, token, total in survivors[place]]
        going = [going[place] for place in still]
        if going:
            rows, tokens, sums = (torch.tensor(column) for column in zip(*kept, strict=True))
            sums = sums.view(len(going), -1)
            steps.keep(rows, torch.tensor(still) if len(still) < len(survivors) else None)
    return [search.best() for search in searches]


def largest(values: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The `number` largest of each row of [B, V] and their places, largest first; all where there are no more.

    It is topk, and three times as fast on rows as long as a vocabulary: the largest stand in the groups that have the
    largest maxima, so that most of the row is looked at once.
    """
    padded = functional.pad(values, (0, -values.shape[1] % _GROUP), value=-torch.inf)
    groups = padded.view(len(values), -1, _GROUP)
    chosen = groups.amax(-1).topk(min(number, groups.shape[1])).indices
    candidates = groups.gather(1, chosen.unsqueeze(-1).expand(-1, -1, _GROUP)).flatten(1)
    best = candidates.topk(min(number, values.shape[1]))
    return best.values, chosen.gather(1, best.indices // _GROUP) * _GROUP + best.indices % _GROUP


class _Search:
    """The hypotheses of one source: those that go on, and those that have ended."""

    def __init__(self, beams: int, length_penalty: float, end: int, max_length: int) -> None:
        self._beams, self._penalty = beams, length_penalty
        self._end, self._max_length = end, max_length
        self._running: list[tuple[int, ...]] = [()]
        self._ended: list[Hypothesis] = []
        self._length = 0

    def advance(
        self, sums: Sequence[float], parents: Sequence[int], tokens: Sequence[int]
    ) -> list[tuple[int, int, float]]:
        """Take one step with these continuations, best first; (parent, token, sum) of those that go on."""
        self._length += 1
        is_last = self._length == self._max_length
        going: list[tuple[int, int, float]] = []
        for rank, (total, parent, token) in enumerate(zip(sums, parents, tokens, strict=True)):
            if token != self._end and not is_last:
                going.append((parent, token, total))
            elif rank < self._beams:
                ended = token == self._end
                written = self._running[parent] + (() if ended else (token,))
                self._ended.append(Hypothesis(written, total / self._length**self._penalty, ended))
        going = going[: self._beams]
        self._ended = self.best()
        self._running = [(*self._running[parent], token) for parent, token, _ in going]
        return [] if self._is_done(going) else going

    def best(self) -> list[Hypothesis]:
        """Of those that have ended, best first."""
        return sorted(self._ended, key=lambda hypothesis: -hypothesis.score)[: self._beams]

    def _is_done(self, going: Sequence[tuple[int, int, float]]) -> bool:
        if not going:
            return True
        best_survivor = going[0][2] / self._length**self._penalty
        return len(self._ended) == self._beams and best_survivor <= self._ended[-1].score
