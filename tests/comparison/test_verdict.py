import numpy as np
import pytest

from tests.report import samples
from transferkit.comparison.conclusion import conclude
from transferkit.comparison.verdict import compare_pairs, decide, pareto_front, summarise
from transferkit.evaluation.metrics import score
from transferkit.evaluation.results import RunResult
from transferkit.report.views import gather

COSTS = {  # trainable parameters, seconds, bytes
    "full": (22_700_000, 140.0, 90_800_000),
    "lora": (221_570, 90.0, 1_100_000),
    "linear-probe": (770, 20.0, 4_000),
    "scratch": (22_700_000, 130.0, 90_800_000),
}
LABELS = np.arange(1000) % 2
BASELINE = {"accuracy": 0.5}
CIRCUMSTANCES = {"task": "classification", "created": "", "config": {}, "environment": {}, "data": samples.data_facts()}


def answers(accuracy, shift=0, labels=LABELS):
    """Predictions right on the first `accuracy` share of the rows, after a shift of the rows."""
    right = np.roll(np.arange(len(labels)) < round(accuracy * len(labels)), shift)
    return np.where(right, labels, 1 - labels)


def finished(strategy, seed, predicted, labels=LABELS):
    scores = score(labels, np.eye(2)[predicted], ("neg", "pos"))
    parameters, seconds, stored = COSTS[strategy]
    return RunResult(
        strategy=strategy,
        seed=seed,
        run=f"runs/{strategy}-seed{seed}",
        status="finished",
        trainable_parameters=parameters,
        train_seconds=seconds + seed,
        stored_bytes=stored,
        metrics=scores.metrics,
        intervals=scores.intervals,
        collapsed=scores.collapsed,
        scores=scores,
    )


def read(verdict):
    """The reason as it reads, its non-breaking spaces as spaces."""
    return verdict.reason.replace("\u00a0", " ")


def compared(predictions, labels=LABELS, extra=(), margin=0.01):
    runs = [
        finished(strategy, seed, predicted, labels)
        for strategy, by_seed in predictions.items()
        for seed, predicted in by_seed.items()
    ]
    summaries = summarise([*runs, *extra], predictions, labels)
    pairs = compare_pairs(summaries, predictions, labels)
    return summaries, pairs, decide(summaries, pairs, BASELINE, margin)


class TestSummarise:
    def test_best_first_with_means_over_seeds(self):
        predictions = {s: {0: answers(a), 1: answers(a + 0.04)} for s, a in [("linear-probe", 0.7), ("lora", 0.8)]}
        best, other = compared(predictions)[0]
        assert (best.strategy, other.strategy) == ("lora", "linear-probe")
        assert best.seeds == (0, 1)
        assert best.accuracy_mean == pytest.approx(0.82)
        assert best.accuracy_sd == pytest.approx(0.04 / np.sqrt(2))
        assert best.train_seconds_mean == 90.5
        assert best.accuracy_interval[0] < 0.8 < 0.84 < best.accuracy_interval[1]

    def test_a_seed_that_one_strategy_has_not_finished_is_left_out_and_that_is_said(self):
        predictions = {"full": {0: answers(0.8), 1: answers(0.812)}, "lora": {0: answers(0.803)}}
        runs = [finished(s, seed, predicted) for s, of in predictions.items() for seed, predicted in of.items()]
        logits = {s: {seed: np.eye(2)[predicted] for seed, predicted in of.items()} for s, of in predictions.items()}
        found = conclude(runs, logits, LABELS, 0.01, **CIRCUMSTANCES)
        assert [(s.strategy, s.seeds, s.accuracy_mean) for s in found.summaries] == [
            ("lora", (0,), 0.803),
            ("full", (0,), 0.8),
        ]
        assert found.verdict.reason.endswith("Seed 1 is left out, since not every strategy has finished with it.")
        assert [len(strategy.scored) for strategy in gather(found)] == [1, 1]
        runs.append(finished("lora", 1, answers(0.8)))
        logits["lora"][1] = np.eye(2)[answers(0.8)]
        whole = conclude(runs, logits, LABELS, 0.01, **CIRCUMSTANCES)
        assert [s.seeds for s in whole.summaries] == [(0, 1), (0, 1)]
        assert "left out" not in whole.verdict.reason

    def test_several_seeds_that_are_left_out_are_spoken_of_as_several(self):
        summaries, pairs, _ = compared({s: {0: answers(0.8)} for s in ("full", "lora")})
        reason = decide(summaries, pairs, BASELINE, 0.01, uncounted=(1, 2)).reason
        assert reason.endswith("Seeds 1 and 2 are left out, since not every strategy has finished with them.")

    def test_one_seed_has_the_interval_of_its_run_and_no_spread(self):
        predictions = {"lora": {0: answers(0.8)}}
        (summary,) = compared(predictions)[0]
        assert summary.accuracy_interval == finished("lora", 0, answers(0.8)).intervals["accuracy"]
        assert summary.accuracy_sd is None

    def test_costs_that_differ_between_seeds_count_at_their_largest(self):
        runs = [finished("lora", seed, answers(0.8)) for seed in (0, 1)]
        runs[0] = runs[0].model_copy(update={"stored_bytes": 2_000_000, "trainable_parameters": 9})
        (summary,) = summarise(runs, {"lora": {0: answers(0.8), 1: answers(0.8)}}, LABELS)
        assert (summary.stored_bytes, summary.trainable_parameters) == (2_000_000, 221_570)

    def test_runs_that_did_not_finish_are_left_out(self):
        failed = RunResult(strategy="full", seed=0, run="runs/full-seed0", status="failed", error="no memory")
        partly = finished("lora", 1, answers(0.6)).model_copy(update={"status": "interrupted"})
        summaries, pairs, verdict = compared({"lora": {0: answers(0.8)}}, extra=[failed, partly])
        assert [(s.strategy, s.seeds) for s in summaries] == [("lora", (0,))]
        assert pairs == ()
        assert verdict.use == "lora"

    def test_collapsed_when_at_least_half_of_the_seeds_are(self):
        constant = np.ones_like(LABELS)
        fine = answers(0.8)
        assert compared({"lora": {0: constant, 1: fine}})[0][0].collapsed
        assert not compared({"lora": {0: constant, 1: fine, 2: fine}})[0][0].collapsed


class TestPareto:
    def test_worked_example(self):
        costs, scores = [1, 2, 3, 3, 2], [0.7, 0.8, 0.8, 0.9, 0.75]
        assert pareto_front(costs, scores).tolist() == [True, True, False, True, False]

    def test_equals_share_the_front(self):
        assert pareto_front([1, 1], [0.5, 0.5]).tolist() == [True, True]

    def test_nobody_on_the_front_is_dominated_and_everyone_else_is(self):
        rng = np.random.default_rng(0)
        costs, scores = rng.integers(10, size=60), rng.integers(10, size=60)
        front = pareto_front(costs, scores)
        for cost, own, on_front in zip(costs, scores, front, strict=True):
            dominated = ((costs <= cost) & (scores >= own) & ((costs < cost) | (scores > own))).any()
            assert dominated != on_front

    def test_summaries_name_the_costs_at_which_they_are_on_the_front(self):
        summaries = compared({s: {0: answers(a)} for s, a in [("full", 0.84), ("scratch", 0.7), ("lora", 0.8)]})[0]
        by_name = {summary.strategy: summary.pareto for summary in summaries}
        assert (
            set(by_name["full"])
            == set(by_name["lora"])
            == {
                "trainable_parameters",
                "train_seconds",
                "stored_bytes",
            }
        )
        assert by_name["scratch"] == ()

    def test_a_collapsed_strategy_is_on_no_front_and_takes_no_other_off_one(self):
        constant, fine, weak = np.ones_like(LABELS), {0: answers(0.84), 1: answers(0.84)}, answers(0.6)
        # The mean of lora is above that of scratch, which costs more, and half of its seeds collapsed.
        predictions = {"full": fine, "lora": {0: constant, 1: answers(0.9)}, "scratch": {0: weak, 1: weak}}
        by_name = {summary.strategy: summary for summary in compared(predictions)[0]}
        assert list(by_name) == ["full", "lora", "scratch"]
        assert by_name["lora"].collapsed
        assert by_name["lora"].pareto == ()
        assert by_name["scratch"].pareto == ("train_seconds",)

    def test_where_all_collapsed_there_is_no_front(self):
        constant = np.ones_like(LABELS)
        summaries = compared({"full": {0: constant}, "lora": {0: constant}})[0]
        assert [summary.pareto for summary in summaries] == [(), ()]


class TestPairs:
    def test_all_pairs_best_first_with_holm_over_them(self):
        predictions = {
            "linear-probe": {0: answers(0.7)},
            "full": {0: answers(0.84)},
            "lora": {0: answers(0.835, shift=9)},
        }
        pairs = compared(predictions)[1]
        names = [(pair.a, pair.b) for pair in pairs]
        assert names == [("full", "lora"), ("full", "linear-probe"), ("lora", "linear-probe")]
        assert pairs[0].difference == pytest.approx(0.005)
        assert pairs[0].interval[0] < 0 < pairs[0].interval[1]
        assert all(pair.mcnemar_p <= pair.holm_p <= 1 for pair in pairs)
        assert pairs[1].holm_p < 1e-6 < 0.05 < pairs[0].holm_p

    def test_only_common_seeds_count(self):
        predictions = {
            "full": {0: answers(0.9), 1: answers(0.8)},
            "lora": {1: answers(0.8), 2: answers(0.7)},
            "linear-probe": {3: answers(0.7)},
        }
        (pair,) = compared(predictions)[1]
        assert (pair.a, pair.b, pair.difference, pair.mcnemar_p) == ("full", "lora", 0, 1)

    def test_p_over_seeds_is_twice_the_mean(self):
        one_seed = compared({"full": {0: answers(0.82)}, "lora": {0: answers(0.8)}})[1][0].mcnemar_p
        equal = compared({"full": {1: answers(0.82)}, "lora": {1: answers(0.82)}})[1][0].mcnemar_p
        assert equal == 1
        both = {
            "full": {0: answers(0.82), 1: answers(0.81)},
            "lora": {0: answers(0.8), 1: answers(0.79)},
        }
        assert compared(both)[1][0].mcnemar_p == pytest.approx(2 * one_seed)

    def test_seeds_that_disagree_leave_the_difference_open(self):
        steady = {"full": {s: answers(0.82) for s in range(3)}, "lora": {s: answers(0.8) for s in range(3)}}
        shaky = {
            "full": {0: answers(0.9), 1: answers(0.82), 2: answers(0.74)},
            "lora": {s: answers(0.8) for s in range(3)},
        }
        (sure,), (open_,) = compared(steady)[1], compared(shaky)[1]
        assert sure.difference == pytest.approx(open_.difference)
        assert sure.interval[0] > 0 > open_.interval[0]


class TestDecide:
    def test_a_clear_winner(self):
        verdict = compared({"full": {0: answers(0.84)}, "lora": {0: answers(0.78)}})[2]
        assert (verdict.use, verdict.ties) == ("full", ())
        low, high = finished("full", 0, answers(0.84)).intervals["accuracy"]
        assert f"84.0 % of the test rows correctly (95 % interval {100 * low:.1f} \u2013 {100 * high:.1f})" in read(
            verdict
        )
        assert "most frequent class gives 50.0 %" in read(verdict)
        assert "22,700,000 parameters in 140 s and takes 90.8 MB" in read(verdict)
        assert "The next best, lora, gives up 6.0 points" in read(verdict)
        assert "p < 0.001" in read(verdict)

    def test_a_cheaper_tie_within_the_margin_is_recommended(self):
        verdict = compared({"full": {0: answers(0.84)}, "lora": {0: answers(0.835, shift=9)}})[2]
        assert (verdict.use, verdict.ties) == ("lora", ("lora",))
        assert "221,570 parameters in 90 s and takes 1.1 MB" in read(verdict)
        assert "The most accurate, full, trains 22,700,000 parameters" in read(verdict)
        assert "you give up 0.5 points (95 % interval " in read(verdict)

    def test_a_cheaper_one_that_is_exactly_as_accurate_gives_up_nothing(self):
        verdict = compared({"full": {0: LABELS}, "lora": {0: LABELS}})[2]
        assert (verdict.use, verdict.ties) == ("lora", ("lora",))
        assert (
            "On these test rows it is as accurate as full, which trains 22,700,000 parameters (95 % interval of the "
            "difference 0.0 to 0.0 points). One seed only"
        ) in read(verdict)
        assert "give up" not in verdict.reason
        other_rows = compared(
            {"full": {0: answers(0.84)}, "lora": {0: answers(0.84, shift=9)}, "scratch": {0: answers(0.838)}}
        )[2]
        assert "as accurate as full" in other_rows.reason
        assert " points); scratch cannot be told apart from full." in read(other_rows)

    def test_the_margin_is_inclusive(self):
        predictions = {"full": {0: answers(0.85)}, "lora": {0: answers(0.84, shift=20)}}
        assert compared(predictions, margin=0.01)[2].use == "lora"
        assert compared(predictions, margin=0.009)[2].use == "full"

    def test_a_tie_beyond_the_margin_is_named_but_not_recommended(self):
        verdict = compared({"full": {0: answers(0.85)}, "lora": {0: answers(0.83, shift=60)}})[2]
        assert (verdict.use, verdict.ties) == ("full", ("lora",))
        assert "lora cannot be told apart from it" in verdict.reason

    def test_within_the_margin_but_significantly_worse_is_not_recommended(self):
        verdict = compared({"full": {0: answers(0.85)}, "lora": {0: answers(0.841)}})[2]
        assert (verdict.use, verdict.ties) == ("full", ())

    def test_a_dearer_tie_is_not_recommended(self):
        verdict = compared({"lora": {0: answers(0.84)}, "full": {0: answers(0.835, shift=9)}})[2]
        assert (verdict.use, verdict.ties) == ("lora", ("full",))

    def test_the_cheapest_of_several_ties(self):
        predictions = {
            "full": {0: answers(0.84)},
            "lora": {0: answers(0.838, shift=9)},
            "linear-probe": {0: answers(0.835, shift=9)},
        }
        verdict = compared(predictions)[2]
        assert (verdict.use, verdict.ties) == ("linear-probe", ("lora", "linear-probe"))
        assert "as it can for lora" in verdict.reason

    def test_of_equally_cheap_ties_the_more_accurate(self):
        predictions = {"scratch": {0: answers(0.838, shift=9)}, "full": {0: answers(0.84)}}
        verdict = compared(predictions)[2]
        assert (verdict.use, verdict.ties) == ("full", ("scratch",))

    def test_a_collapsed_strategy_is_never_recommended(self):
        """90 % by the majority class is no reason to prefer it to 88 % with both classes found."""
        labels = (np.arange(1000) % 10 == 0).astype(int)
        majority = np.zeros(1000, dtype=int)
        predictions = {"linear-probe": {0: majority}, "full": {0: answers(0.88, labels=labels)}}
        summaries, pairs, verdict = compared(predictions, labels=labels, margin=0.05)
        assert summaries[0].strategy == "linear-probe"
        assert len(pairs) == 1
        assert (verdict.use, verdict.ties) == ("full", ())
        assert "stayed at the majority baseline" in verdict.reason

    def test_all_collapsed(self):
        verdict = compared({"full": {0: np.ones_like(LABELS)}, "lora": {0: answers(0.5)}})[2]
        assert (verdict.use, verdict.ties) == (None, ())
        assert verdict.reason.startswith("Nothing to recommend")

    def test_nothing_finished(self):
        verdict = compared({})[2]
        assert verdict.use is None
        assert "No run finished" in verdict.reason

    def test_one_strategy_says_that_there_is_no_comparison(self):
        assert "no other strategy to compare it with" in compared({"lora": {0: answers(0.8)}})[2].reason

    def test_one_seed_is_said_and_several_are_counted(self):
        one = compared({"lora": {0: answers(0.8)}, "full": {0: answers(0.7)}})[2].reason
        assert one.endswith("One seed only: the intervals cover the choice of test rows, not of the seed.")
        two = compared({s: {0: answers(a), 1: answers(a)} for s, a in [("lora", 0.8), ("full", 0.7)]})[2].reason
        assert "One seed" not in two
        assert "on average over 2 seeds" in two

    def test_a_strategy_that_failed_as_often_as_it_finished_is_left_out_and_costs_the_others_no_seed(self):
        predictions = {"full": {0: answers(0.9)}, "lora": {seed: answers(0.8) for seed in range(2)}}
        failed = RunResult(strategy="full", seed=1, run="runs/full-seed1", status="failed", error="nan")
        runs = [finished(s, seed, predicted) for s, of in predictions.items() for seed, predicted in of.items()]
        logits = {s: {seed: np.eye(2)[one] for seed, one in of.items()} for s, of in predictions.items()}
        comparison = conclude([*runs, failed], logits, LABELS, 0.01, **CIRCUMSTANCES)
        assert [(one.strategy, one.seeds) for one in comparison.summaries] == [("lora", (0, 1))]
        assert comparison.verdict.use == "lora"
        assert "Left out, as at least half of the runs failed: full (1 of 2)." in read(comparison.verdict)
        alone = conclude([runs[0], failed], {"full": logits["full"]}, LABELS, 0.01, **CIRCUMSTANCES)
        assert (alone.verdict.use, alone.summaries) == (None, ())
        assert (
            read(alone.verdict) == "Nothing to recommend. Left out, as at least half of the runs failed: full (1 of 2)."
        )

    def test_means_over_different_seeds_recommend_nothing(self):
        predictions = {
            "full": {0: answers(0.9), 1: answers(0.8)},
            "lora": {1: answers(0.82), 2: answers(0.82)},
            "linear-probe": {0: answers(0.7), 2: answers(0.7)},
        }
        verdict = compared(predictions)[2]
        assert verdict.use is None
        assert "no seed is finished by every strategy" in verdict.reason

    def test_test_rows_of_one_class_recommend_nothing(self):
        labels = np.zeros(30, dtype=np.int64)
        summaries, pairs, _ = compared({"full": {0: labels}, "lora": {0: labels}}, labels=labels)
        verdict = decide(summaries, pairs, {"accuracy": 1.0}, 0.01)
        assert verdict.use is None
        assert "all test rows are of one class" in verdict.reason

    def test_a_pair_given_the_other_way_round_reads_the_same(self):
        summaries, pairs, verdict = compared({"full": {0: answers(0.84)}, "lora": {0: answers(0.78)}})
        turned = [
            p.model_copy(
                update={
                    "a": p.b,
                    "b": p.a,
                    "difference": -p.difference,
                    "interval": (-p.interval[1], -p.interval[0]),
                }
            )
            for p in pairs
        ]
        assert decide(summaries, turned, BASELINE, 0.01) == verdict

    def test_ten_rows(self):
        labels = np.array([0, 1, 0, 1, 1] * 2)
        predictions = {"full": {0: labels}, "lora": {0: np.array([0, 1, 0, 1, 1, 0, 1, 0, 1, 0])}}
        _, (pair,), verdict = compared(predictions, labels=labels)
        assert pair.mcnemar_p == 1
        assert verdict.use == "full"

    def test_a_reason_stays_short(self):
        predictions = {s: {0: answers(0.84, shift=i)} for i, s in enumerate(COSTS)}
        assert compared(predictions)[2].reason.count(". ") <= 3


def test_a_finished_run_without_costs_is_refused():
    run = finished("lora", 0, answers(0.8)).model_copy(update={"stored_bytes": None})
    with pytest.raises(ValueError, match="must state"):
        summarise([run], {"lora": {0: answers(0.8)}}, LABELS)
