"""BLEU and chrF, which are sacrebleu's."""

from __future__ import annotations

import pytest
import sacrebleu

from transferkit.evaluation.translation import corpus_metrics, score, side_by_side

REFERENCES = [f"il gatto numero {n} dorme sul tappeto rosso ." for n in range(40)]
TRANSLATIONS = [text.replace("gatto", "cane") if n % 3 else text for n, text in enumerate(REFERENCES)]
SOURCES = [f"cat {n}" for n in range(40)]


def test_metrics_are_those_of_sacrebleu() -> None:
    metrics = corpus_metrics(TRANSLATIONS, REFERENCES)
    assert metrics["bleu"] == pytest.approx(sacrebleu.corpus_bleu(TRANSLATIONS, [REFERENCES]).score)
    assert metrics["chrf"] == pytest.approx(sacrebleu.corpus_chrf(TRANSLATIONS, [REFERENCES]).score)
    assert corpus_metrics(REFERENCES, REFERENCES)["bleu"] == pytest.approx(100)


def test_scores_have_intervals_and_signatures() -> None:
    scores = score(TRANSLATIONS, REFERENCES, SOURCES, examples=4)
    assert scores.metrics == pytest.approx(corpus_metrics(TRANSLATIONS, REFERENCES))
    for name, (low, high) in scores.intervals.items():
        assert low < scores.metrics[name] < high
    assert "tok:13a" in scores.signatures["bleu"]
    assert f"version:{sacrebleu.__version__}" in scores.signatures["chrf"]
    assert [one.source for one in scores.examples] == ["cat 0", "cat 10", "cat 20", "cat 30"]
    assert score(TRANSLATIONS, REFERENCES, SOURCES, examples=4) == scores


@pytest.mark.parametrize("right", [0, 1, 9, 10])
def test_intervals_stay_between_0_and_100(right: int) -> None:
    references = REFERENCES[:10]
    found = score([*references[:right], *[""] * (10 - right)], references, SOURCES[:10], examples=0)
    for name, (low, high) in found.intervals.items():
        assert 0 <= low <= found.metrics[name] <= high <= 100 + 1e-9


def test_no_more_examples_than_rows() -> None:
    few = side_by_side(SOURCES[:2], REFERENCES[:2], TRANSLATIONS[:2], 5)
    assert [one.source for one in few] == SOURCES[:2]
    assert side_by_side(SOURCES, REFERENCES, TRANSLATIONS, 0) == ()
