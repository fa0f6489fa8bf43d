"""Scores of translations against references, by sacrebleu (Post 2018)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from transferkit.evaluation.results import Interval, TranslationExample, TranslationScores
from transferkit.evaluation.statistics import percentile_interval, resampled_row_means, spread

# Bootstrap samples of the test sentences (Koehn 2004, section 3).
RESAMPLES = 1000
# Chinese characters, and the other scripts that part no words: Thai, Lao, Burmese, Khmer, and Japanese kana.
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_WITHOUT_SPACES = re.compile(r"[\u0e01-\u0e30\u0e81-\u0eb0\u1000-\u109f\u1780-\u17b3\u3041-\u3096\u30a1-\u30fa]")


def corpus_metrics(translations: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU (Papineni et al. 2002) and chrF (Popovic 2015) against one reference each, from 0 to 100."""
    kinds = _kinds(references)
    scores = {name: kind().corpus_score(list(translations), [list(references)]) for name, kind in kinds.items()}
    return {name: float(score.score) for name, score in scores.items()}


def score(
    translations: Sequence[str], references: Sequence[str], sources: Sequence[str], examples: int
) -> TranslationScores:
    """The same with 95 % bootstrap intervals, with signatures, without which a score means little, and examples."""
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    signatures: dict[str, str] = {}
    for name, kind in _kinds(references).items():
        metric = kind(references=[list(references)])
        counts = np.array(metric._extract_corpus_statistics(list(translations), None), dtype=np.int64)
        metrics[name] = _score_of(metric, counts.sum(axis=0))
        intervals[name] = _interval(metric, counts)
        signatures[name] = str(metric.get_signature())
    return TranslationScores(
        rows=len(references),
        metrics=metrics,
        intervals=intervals,
        signatures=signatures,
        examples=side_by_side(sources, references, translations, examples),
    )


def _score_of(metric: Any, counts: npt.NDArray[np.int64]) -> float:
    """From the counts of words or letters that a metric sums over sentences."""
    return float(metric._compute_score_from_stats(counts.tolist()).score)


def _interval(metric: Any, counts: npt.NDArray[np.int64]) -> Interval:
    """The percentile interval from counts by sentence: sacrebleu's own, mean and spread, leaves 0 to 100."""
    sums = np.rint(resampled_row_means(counts.astype(np.float64), RESAMPLES) * len(counts)).astype(np.int64)
    return percentile_interval(np.array([_score_of(metric, one) for one in sums]))


def side_by_side(
    sources: Sequence[str], references: Sequence[str], translations: Sequence[str], number: int
) -> tuple[TranslationExample, ...]:
    """Rows that lie evenly over the data, so that they are the same after each epoch."""
    return tuple(
        TranslationExample(source=sources[row], target=references[row], predicted=translations[row])
        for row in spread(len(sources), number)
    )


def words_of(references: Sequence[str]) -> str:
    """How BLEU finds words, by the name of sacrebleu's tokenizer, which the signature has too.

    The usual one, 13a, parts them at spaces. Of a text in a script that writes none it makes one word, and BLEU is 0
    whatever the translation.
    """
    text = "".join(references)
    han, others = len(_HAN.findall(text)), len(_WITHOUT_SPACES.findall(text))
    if 2 * (han + others) <= sum(letter.isalpha() for letter in text):
        return "13a"
    # Of Japanese half of the letters are kana; a few are in shop names of a Chinese text.
    return "char" if 10 * others > han else "zh"


def _kinds(references: Sequence[str]) -> dict[str, Any]:
    from sacrebleu.metrics import BLEU, CHRF

    return {"bleu": partial(BLEU, tokenize=words_of(references)), "chrf": CHRF}
