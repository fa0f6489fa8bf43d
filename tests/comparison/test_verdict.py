"""What is recommended, and the sentences that say so."""

import numpy as np

from tests.comparison.made_up import BASELINE, CIRCUMSTANCES, COSTS, LABELS, answers, compared, finished, read
from transferkit.comparison.conclusion import conclude
from transferkit.comparison.verdict import decide
from transferkit.evaluation.results import RunResult


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
        failed = RunResult(strategy="full", seed=0, run="runs/full-seed0", status="failed", error="nan")
        for extra in ((), (failed,)):
            reason = compared({"lora": {0: answers(0.8)}}, extra=extra)[2].reason
            assert "No other strategy has results to compare it with." in reason

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

    def test_several_seeds_that_are_left_out_are_spoken_of_as_several(self):
        summaries, pairs, _ = compared({s: {0: answers(0.8)} for s in ("full", "lora")})
        reason = decide(summaries, pairs, BASELINE, 0.01, uncounted=(1, 2)).reason
        assert reason.endswith("Seeds 1 and 2 are left out, since not every strategy has finished with them.")

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
