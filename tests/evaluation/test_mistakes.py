import numpy as np

from transferkit.evaluation.mistakes import most_confident, side_by_side

LABELS = np.array([0, 1, 0, 1, 0])
# Chance of class 1 by row: rows 1, 2 and 4 are wrong, with confidence 0.6, 0.9 and 0.7.
A = np.array([0.1, 0.4, 0.9, 0.8, 0.7])
# Row 3 is wrong with 0.95, row 2 with 0.55.
B = np.array([0.2, 0.9, 0.55, 0.05, 0.3])


def probabilities(of_one):
    return np.column_stack([1 - of_one, of_one])


def both(k):
    return side_by_side(
        LABELS,
        {"lora": probabilities(A), "full": probabilities(B)},
        ("neg", "pos"),
        lambda row: (f"text {row}", "second"),
        k,
    )


def test_surest_first():
    assert most_confident(LABELS, probabilities(A), 2).tolist() == [2, 4]


def test_no_more_than_there_are():
    assert most_confident(LABELS, probabilities(A), 10).tolist() == [2, 4, 1]
    assert most_confident(LABELS, probabilities(LABELS * 0.8 + 0.1), 10).tolist() == []
    assert most_confident(LABELS, probabilities(A), 0).tolist() == []


def test_equally_sure_mistakes_keep_row_order():
    sureness = np.where(np.arange(100) % 2, 0.7, 0.8)
    expected = [*range(0, 100, 2), *range(1, 100, 2)]
    assert most_confident(np.zeros(100, dtype=int), probabilities(sureness), 100).tolist() == expected


def test_top_mistakes_of_each_are_united_surest_first():
    assert [mistake.row for mistake in both(1)] == [3, 2]
    assert [mistake.row for mistake in both(2)] == [3, 2, 4]


def test_a_mistake_shows_what_everyone_answers():
    first = both(1)[0]
    assert first.text == ("text 3", "second")
    assert first.label == "pos"
    assert first.answers == {"lora": ("pos", 0.8), "full": ("neg", 0.95)}


def test_nothing_to_show():
    assert side_by_side(LABELS, {"a": probabilities(LABELS * 1.0)}, ("neg", "pos"), lambda row: ("",), 5) == []
    assert side_by_side(LABELS, {}, ("neg", "pos"), lambda row: ("",), 5) == []
