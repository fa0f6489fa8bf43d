import numpy as np
import pytest

from transferkit.evaluation.metrics import score


def scored(labels, predicted, names=("neg", "pos")):
    return score(labels, np.eye(len(names))[np.asarray(predicted)], names)


def test_a_single_answer_is_a_collapse():
    scores = scored([0, 1] * 50, [1] * 100)
    assert scores.collapsed
    assert scores.collapse_reason == "All 100 test rows are answered 'pos'."


def test_guessing_is_a_collapse():
    rng = np.random.default_rng(0)
    scores = scored(rng.integers(2, size=500), rng.integers(2, size=500))
    assert scores.collapsed
    low, high = scores.intervals["accuracy"]
    assert scores.collapse_reason.replace("\u00a0", " ").startswith(
        f"The score is at the majority baseline: accuracy {100 * scores.metrics['accuracy']:.1f} % "
        f"(95 % interval {100 * low:.1f} \u2013 {100 * high:.1f}) "
        f"against {100 * scores.baseline['accuracy']:.1f} %, MCC "
    )


def test_a_good_model_has_not_collapsed():
    labels = np.arange(200) % 2
    scores = scored(labels, np.where(np.arange(200) % 5 == 0, 1 - labels, labels))
    assert not scores.collapsed
    assert scores.collapse_reason is None


def test_finding_a_rare_class_below_the_baseline_accuracy_is_not_a_collapse():
    labels = np.array([0] * 900 + [1] * 100)
    predicted = np.array([0] * 780 + [1] * 120 + [1] * 90 + [0] * 10)
    scores = scored(labels, predicted)
    assert scores.metrics["accuracy"] < scores.baseline["accuracy"]
    assert not scores.collapsed


def test_worse_than_chance_is_a_collapse():
    labels = np.arange(200) % 2
    assert scored(labels, np.where(np.arange(200) % 5 == 0, labels, 1 - labels)).collapsed


@pytest.mark.parametrize("predicted", [[1] * 5, [1, 1, 1, 1, 0]])
def test_one_true_class_says_nothing_about_collapse(predicted):
    assert not scored([1] * 5, predicted).collapsed


def test_five_rows_half_right_cannot_be_told_from_the_baseline():
    assert scored([0, 0, 1, 1, 1], [0, 1, 1, 0, 1]).collapsed


def test_guesses_are_flagged_nearly_always_and_real_skill_nearly_never():
    """On 500 rows of two even classes, a guess passes 1 time in 40, and 60 % accuracy is skill."""
    guesses, skilled = [], []
    for seed in range(100, 160):
        rng = np.random.default_rng(seed)
        labels = rng.integers(2, size=500)
        guesses.append(scored(labels, rng.integers(2, size=500)).collapsed)
        skilled.append(scored(labels, np.where(rng.random(500) < 0.6, labels, 1 - labels)).collapsed)
    assert sum(guesses) >= 55
    assert sum(skilled) <= 3
