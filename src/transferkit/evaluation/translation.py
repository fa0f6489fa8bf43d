"""Scores of translations against references, by sacrebleu (Post 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transferkit.evaluation.results import Interval, TranslationExample, TranslationScores

# Bootstrap samples of the test sentences (Koehn 2004, section 3).
RESAMPLES = 1000


def corpus_metrics(translations: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU (Papineni et al. 2002) and chrF (Popovic 2015) against one reference each, from 0 to 100."""
    scores = {name: kind().corpus_score(list(translations), [list(references)]) for name, kind in _kinds().items()}
    return {name: float(score.score) for name, score in scores.items()}


def score(
    translations: Sequence[str], references: Sequence[str], sources: Sequence[str], examples: int
) -> TranslationScores:
    """The same with 95 % bootstrap intervals, with signatures, without which a score means little, and examples."""
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    signatures: dict[str, str] = {}
    for name, kind in _kinds().items():
        metric = kind(references=[list(references)])
        found = metric.corpus_score(list(translations), None, n_bootstrap=RESAMPLES)
        metrics[name] = float(found.score)
        intervals[name] = (float(found._mean - found._ci), float(found._mean + found._ci))
        signatures[name] = str(metric.get_signature())
    return TranslationScores(
        rows=len(references),
        metrics=metrics,
        intervals=intervals,
        signatures=signatures,
        examples=side_by_side(sources, references, translations, examples),
    )


def side_by_side(
    sources: Sequence[str], references: Sequence[str], translations: Sequence[str], number: int
) -> tuple[TranslationExample, ...]:
    """Rows that lie evenly over the data, so that they are the same after each epoch."""
    rows = [position * len(sources) // number for position in range(min(number, len(sources)))]
    return tuple(
        TranslationExample(source=sources[row], target=references[row], predicted=translations[row]) for row in rows
    )


def _kinds() -> dict[str, Any]:
    from sacrebleu.metrics import BLEU, CHRF

    return {"bleu": BLEU, "chrf": CHRF}
