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


@pytest.mark.parametrize(
    ("references", "words"),
    [
        (["今天天气很好我们去公园散步。", "他在图书馆里看书我在家里学习 Python。"], "zh"),
        (["他在优の良品店工作今天天气很好我们去公园散步", "他在图书馆里看书我在家里学习 Python。"], "zh"),
        (["今日は天気がいいので公園を散歩します。", "彼は図書館で本を読んでいます。"], "char"),
        (["วันนี้อากาศดีมากเราไปเดินเล่นที่สวน", "เขากำลังอ่านหนังสืออยู่ในห้องสมุด"], "char"),
        (["오늘은 날씨가 좋아서 공원에 산책하러 가요 .", "그는 도서관에서 책을 읽고 있어요 ."], "13a"),
        (["The word for book is 书 in Chinese .", "And for house it is 房子 , is it not ?"], "13a"),
        (["", "123"], "13a"),
    ],
    ids=["chinese", "chinese with a kana", "japanese", "thai", "korean", "english", "nothing"],
)
def test_words_are_found_in_scripts_without_spaces(references: list[str], words: str) -> None:
    found = score(references, references, references, examples=0)
    assert f"tok:{words}" in found.signatures["bleu"]
    if any(text.strip() for text in references[:1]):
        assert found.metrics["bleu"] == pytest.approx(100)
        assert corpus_metrics(references, references)["bleu"] == pytest.approx(100)


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
