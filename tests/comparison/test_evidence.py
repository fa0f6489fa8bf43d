"""What each strategy reached, and how every two of them compare."""

import numpy as np
import pytest

from tests.comparison.made_up import CIRCUMSTANCES, LABELS, answers, compared, finished
from transferkit.comparison.conclusion import conclude
from transferkit.comparison.evidence import pareto_front, summarise
from transferkit.evaluation.results import RunResult
from transferkit.report.views import gather


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


def test_a_finished_run_without_costs_is_refused():
    run = finished("lora", 0, answers(0.8)).model_copy(update={"stored_bytes": None})
    with pytest.raises(ValueError, match="must state"):
        summarise([run], {"lora": {0: answers(0.8)}}, LABELS)
