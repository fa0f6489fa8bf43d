"""The arithmetic of the benchmarks: ratios, quality, growth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import (
    cold_start,
    data,
    decoding,
    finetune,
    flops,
    grid,
    harness,
    inference,
    latency,
    profile_step,
    recipe,
    scale,
    translation_quality,
    translation_training,
)
from transferkit.environment import cache_folder
from transferkit.training import precision

OURS, PEER, PEER_BF16 = harness.OURS, harness.PEER, harness.PEER_BF16
TRUTH = np.array([0, 0, 1, 1])


def attempt(seconds: float, answers: list[int] | None = None) -> harness.Attempt:
    return harness.Attempt(seconds, seconds + 1, int(1000 * seconds), None if answers is None else np.array([answers]))


def benchmark(new_seeds: bool = False) -> harness.Benchmark:
    return harness.Benchmark("some", "kind", {"rows": 4}, [], 8, {PEER: 3.0}, TRUTH, new_seeds)


def test_a_peak_of_all_counts_the_processes_that_were_started() -> None:
    code = "block = bytearray(200_000_000); print(flush=True); input()"
    with harness.PeakOfAll() as memory:
        before = memory.bytes
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            assert memory.now() - before > 150_000_000
            child.communicate(b"\n")
    assert memory.now() - before < 100_000_000


def test_ratios_are_of_the_medians_and_their_ends_of_the_pairs() -> None:
    attempts = {
        OURS: [attempt(1.0), attempt(2.0), attempt(4.0)],
        PEER: [attempt(4.0), attempt(6.0), attempt(4.0)],
        PEER_BF16: [attempt(2.0), attempt(2.0), attempt(2.0)],
    }
    result = harness.summarise(benchmark(), attempts)
    assert (result["ratio_median"], result["ratio_min"], result["ratio_max"]) == (2.0, 1.0, 4.0)
    assert (result["ratio_bf16_median"], result["target_bf16"]) == (1.0, None)
    assert (result["target"], result[OURS]["median"], result[OURS]["rows_per_second"]) == (3.0, 2.0, 4.0)
    assert result[PEER]["peak_memory_bytes"] == 6000
    assert result[OURS]["total_seconds"] == [2.0, 3.0, 5.0]
    assert result[OURS]["quality"] is None
    assert result["paired"] is None


@pytest.mark.parametrize("file", sorted(harness.RESULTS.rglob("*.json")), ids=lambda file: file.stem)
def test_the_ratios_that_are_kept_are_of_the_medians_of_the_seconds_beside_them(file: Path) -> None:
    result = json.loads(file.read_text(encoding="utf-8"))
    for name, suffix in harness.SUFFIXES.items():
        if result.get(f"ratio{suffix}_median") is not None:
            wanted = median(result[name]["seconds"]) / median(result[OURS]["seconds"])
            assert result[f"ratio{suffix}_median"] == pytest.approx(wanted)
    for side in result.values():
        if isinstance(side, dict) and "ratio_median" in side:
            wanted = median(result[PEER]["seconds"]) / median(side["seconds"])
            assert side["ratio_median"] == pytest.approx(wanted)


def test_without_the_peer_in_fp32_its_column_is_empty() -> None:
    result = harness.summarise(benchmark(), {OURS: [attempt(1.0)], PEER_BF16: [attempt(2.0)]})
    assert result["ratio_median"] is None
    assert result["ratio_bf16_median"] == 2.0
    assert PEER not in result


def test_quality_counts_repeated_answers_once_and_new_seeds_each() -> None:
    attempts = {
        OURS: [attempt(1.0, [0, 0, 1, 1]), attempt(1.0, [0, 0, 1, 0])],
        PEER: [attempt(1.0, [0, 1, 1, 1]), attempt(1.0, [0, 1, 1, 1])],
    }
    once, each = harness.summarise(benchmark(), attempts), harness.summarise(benchmark(new_seeds=True), attempts)
    assert (once[OURS]["quality"]["accuracy"], each[OURS]["quality"]["accuracy"]) == (1.0, 0.875)
    assert (once["paired"]["mcnemar_p"], once["paired"]["difference"]) == (1.0, 0.25)
    assert each["paired"]["difference"] == 0.125
    low, high = each[OURS]["quality"]["accuracy_interval"]
    assert low <= 0.875 <= high


def test_the_difference_has_an_interval_over_rows_and_runs() -> None:
    truth = np.zeros(100, dtype=np.int64)
    ours, theirs = np.zeros((2, 100), dtype=np.int64), np.zeros((2, 100), dtype=np.int64)
    ours[:, :10] = 1
    worse = harness.paired(truth, ours, theirs)
    assert worse["difference"] == pytest.approx(-0.1)
    low, high = worse["difference_interval"]
    assert low < -0.1 < high < 0
    # One row of a hundred is no evidence, and where no answer differs there is nothing to vary.
    theirs[:, :9] = 1
    assert harness.paired(truth, ours, theirs)["difference_interval"][1] == 0
    assert harness.paired(truth, ours, ours)["difference_interval"] == [0, 0]


def test_f1_is_that_of_the_last_class() -> None:
    # Over two runs: three of four found, and one named in vain.
    answers = np.array([[0, 1, 1, 1], [0, 0, 1, 0]])
    assert harness.quality(TRUTH, answers)["f1"] == pytest.approx(0.75)


def test_the_sides_take_turns_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def side(name: str) -> harness.Attempt:
        order.append(name)
        return attempt(1.0)

    harness.alternate(3, {OURS: lambda _: side("a"), PEER: lambda _: side("b")})
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert capsys.readouterr().out == ""


def in_this_process(_pair: int) -> harness.Attempt:
    return harness.Attempt(1.0, 1.0, os.getpid())


def test_peaks_of_memory_are_of_a_process_that_holds_one_side_alone() -> None:
    result = {OURS: {"peak_memory_bytes": 0}, PEER: {"peak_memory_bytes": 0}}
    peaks = harness.with_peaks_alone(result, {OURS: in_this_process, PEER: in_this_process})
    processes = {os.getpid(), peaks[OURS]["peak_memory_bytes"], peaks[PEER]["peak_memory_bytes"]}
    assert len(processes) == 3


def files_in_the_cache(_pair: int) -> harness.Attempt:
    return harness.Attempt(1.0, 1.0, sum(1 for _ in cache_folder().glob("*")))


def test_what_was_measured_before_is_unknown_to_the_process_that_measures_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "measured.json").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path))
    assert files_in_the_cache(0).peak_memory_bytes == 1
    assert harness.peak_alone(files_in_the_cache) == 0


def test_the_result_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = harness.summarise(benchmark(), {OURS: [attempt(1.0, [0] * 4)], PEER: [attempt(2.0, [1] * 4)]})
    path = harness.write(result, tmp_path / "results")
    assert path.name == "some-kind.json"
    assert json.loads(capsys.readouterr().out) == json.loads(path.read_text(encoding="utf-8"))
    assert result["schema"] == "transferkit/benchmark/1"


@pytest.mark.parametrize(("native", "folder"), [(True, "."), (False, harness.WITHOUT_BF16)])
def test_a_processor_without_bf16_has_results_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool, folder: str
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(precision, "has_native_bf16", lambda: native)
    result = harness.summarise(benchmark(), {OURS: [attempt(1.0)], PEER: [attempt(2.0)]})
    assert harness.write(result, harness.arguments("").parse_args([]).out) == tmp_path / folder / "some-kind.json"
    assert harness.write(result, tmp_path / "own") == tmp_path / "own" / "some-kind.json"


def test_the_sides_take_five_turns_or_more_unless_said() -> None:
    for script in (cold_start, decoding, finetune, grid, inference, translation_training):
        assert script.parse([]).pairs >= 5
    turns = latency.parse([])
    assert turns.calls // turns.block >= 5


@pytest.mark.parametrize(
    ("script", "asked", "unusual"),
    [
        (decoding, "--run there --search beam --pairs 1", ""),
        (decoding, "--sentences 20 --epochs 1", "+sentences=20+epochs=1"),
        (grid, "--pairs 1 --peers fp32", ""),
        (grid, "--rows 100 --validation-rows 8 --test-rows 9 --epochs 1 --seeds 0,3",
         "+rows=100+validation_rows=8+test_rows=9+epochs=1+seeds=0,3"),
        (inference, "--data reviews --int8 --pairs 1", ""),
        (inference, "--rows 100", "+rows=100"),
        (latency, "--calls 200 --block 20", ""),
        (latency, "--calls 4 --block 2", "+calls=4+block=2"),
        (scale, "--sizes 1000,4000,16000,64000", ""),
        (scale, "--sizes 100,200", "+sizes=100,200"),
        (translation_quality, "--run there", ""),
        (translation_quality, "--rows 100 --test 10 --epochs 1", "+rows=100+test=10+epochs=1"),
        (translation_training, "--peers fp32", ""),
        (translation_training, "--rows 100 --epochs 2", "+rows=100+epochs=2"),
        (translation_training, "--batch-tokens 2048", "+batch_tokens=2048"),
    ],
)  # fmt: skip
def test_work_that_is_not_the_usual_has_a_file_of_its_own(script: Any, asked: str, unusual: str) -> None:
    assert script.parse(asked.split()).unusual == unusual


def test_epochs_are_of_a_training_and_no_run_that_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        decoding.parse(["--run", "there", "--epochs", "9"])
    assert "--epochs: not allowed with argument --run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "option"),
    [
        (cold_start, "--pairs"),
        (decoding, "--sentences"),
        (decoding, "--epochs"),
        (finetune, "--epochs"),
        (finetune, "--last-layers"),
        (finetune, "--rows"),
        (finetune, "--test-rows"),
        (grid, "--epochs"),
        (grid, "--rows"),
        (grid, "--validation-rows"),
        (grid, "--test-rows"),
        (grid, "--jobs"),
        (inference, "--rows"),
        (latency, "--calls"),
        (latency, "--block"),
        (profile_step, "--steps"),
        (profile_step, "--top"),
        (scale, "--sizes"),
        (translation_quality, "--rows"),
        (translation_quality, "--test"),
        (translation_quality, "--epochs"),
        (translation_training, "--rows"),
        (translation_training, "--epochs"),
        (translation_training, "--batch-tokens"),
    ],
)
@pytest.mark.parametrize("count", ["0", "-1", "few"])
def test_what_is_counted_is_above_zero(
    script: Any, option: str, count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.parse([f"{option}={count}"])
    assert f"argument {option}: '{count}' is no whole number above zero" in capsys.readouterr().err


@pytest.mark.parametrize("script", sorted(Path(harness.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_every_script_is_run_by_the_harness(script: Path) -> None:
    _, is_script, ending = script.read_text(encoding="utf-8").partition('if __name__ == "__main__":\n')
    assert not is_script or ending.strip().removeprefix("harness.") == "run(main)"


def test_a_mistake_ends_a_script_with_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(data, "DATA", tmp_path)
    with pytest.raises(SystemExit) as ended:
        harness.run(lambda: finetune.main([]))
    assert ended.value.code == 2
    said = "The data file mrpc/train.tsv is not in the data folder; set TRANSFERKIT_DATA."
    assert capsys.readouterr().err.splitlines()[-1] == said


@pytest.mark.parametrize(("code", "raised"), [(2, SystemExit), (1, subprocess.CalledProcessError)])
def test_a_process_of_a_script_has_said_its_mistake_itself(
    capsys: pytest.CaptureFixture[str], code: int, raised: type[BaseException]
) -> None:
    command = [sys.executable, "-c", f"raise SystemExit({code})"]
    with pytest.raises(raised) as ended:
        harness.run(lambda: subprocess.run(command, check=True))
    assert getattr(ended.value, "code", 2) == 2
    assert capsys.readouterr().err == ""


def test_calls_fill_their_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        latency.parse(["--calls", "30"])
    assert "--calls 30 is no multiple of --block 20" in capsys.readouterr().err


def test_a_constant_cost_is_no_deviation_from_growth_in_proportion() -> None:
    sizes = [1000, 4000, 16000]
    straight = scale.growth(sizes, [5 + 0.01 * size for size in sizes])
    assert straight["slope"] == pytest.approx(0.01)
    assert straight["constant"] == pytest.approx(5)
    assert straight["max_deviation"] == pytest.approx(0, abs=1e-9)
    bent = scale.growth(sizes, [size**2 for size in sizes])
    assert bent["max_deviation"] is not None
    assert bent["max_deviation"] > 0.25
    # Of the line 1 + n / 1000, the middle one is a tenth too much.
    off = scale.growth(sizes, [2.0, 5.5, 17.0])["max_deviation"]
    assert off is not None
    assert 0.03 < off < 0.1
    assert scale.growth(sizes[:2], [1.0, 2.0])["max_deviation"] is None


def test_every_size_computes_as_was_measured_once_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []
    had_states: list[bool] = []

    def run(command: list[str], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        states = Path(env["TRANSFERKIT_CACHE"]) / "prefix"
        calls.append((Path(command[-1]).name, env["TRANSFERKIT_CACHE"]))
        had_states.append(states.exists())
        states.mkdir(exist_ok=True)
        found = {stage: {"seconds": 1.0 + len(calls), "peak_memory_bytes": len(calls)} for stage in scale.STAGES}
        return subprocess.CompletedProcess(command, 0, json.dumps(found))

    monkeypatch.setattr(scale, "subprocess", SimpleNamespace(run=run, PIPE=subprocess.PIPE))
    scale.main(["--sizes", "4,8", "--out", str(tmp_path)])
    assert [file for file, _ in calls] == ["4.csv", "4.csv", "8.csv"]
    assert had_states[:2] == [False, False], "no features but those of its own"
    assert len({cache for _, cache in calls} | {os.environ["TRANSFERKIT_CACHE"]}) == 2
    result = json.loads((tmp_path / "scale-film-reviews+sizes=4,8.json").read_text(encoding="utf-8"))
    assert result["stages"]["prepare"]["seconds"] == [3, 4]


def test_a_sample_keeps_the_shares_of_the_classes() -> None:
    rows = data.Rows([(str(number),) for number in range(100)], ["a"] * 70 + ["b"] * 30)
    sample = rows.sample(20)
    assert (sample.labels.count("a"), sample.labels.count("b")) == (14, 6)
    assert len(set(sample.texts)) == 20
    assert len(rows.without([sample])) == 80


def test_the_backward_pass_costs_what_trains() -> None:
    factors = {
        name: flops.backward_factors(recipe.of_strategy(name, 1, last_layers=2), 6)
        for name in ("linear-probe", "partial", "lora", "full")
    }
    assert factors == {
        "linear-probe": [0] * 6,
        "partial": [0, 0, 0, 0, 2, 2],
        "lora": [1] * 6,
        "full": [2] * 6,
    }


def test_the_peak_is_of_the_fastest_product_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    # Products of 4, 2 and 3 seconds.
    clock = iter([0.0, 4.0, 4.0, 6.0, 6.0, 9.0])
    monkeypatch.setattr(flops.time, "perf_counter", lambda: next(clock))
    assert flops.matmul_flops(torch.float32, repeats=3) == 2 * flops.SIZE**3 / 2.0
    monkeypatch.undo()
    monkeypatch.setattr(flops, "matmul_flops", lambda dtype: 3.0 if dtype == torch.float32 else 4.0)
    found = flops.share_of_peak(recipe.of_strategy("full", 1), one_row(), 10.0, before={"fp32": 8.0, "bf16": 1.0})
    assert found["peak_flops_per_second"] == {"fp32": 8.0, "bf16": 4.0}
    assert found["share"] == found["flops"] / 10.0 / 8.0


def one_row() -> data.Splits:
    one = data.Rows([("film",)], ["a"])
    return data.Splits("one", one, one, one)


def test_flops_of_one_row_by_hand() -> None:
    # [CLS] film [SEP]: three tokens through six layers, 384 wide with 1,536 inside.
    forward = 6 * (2 * (4 * 384**2 + 2 * 384 * 1536) * 3 + 4 * 3**2 * 384)
    assert flops.training_flops(recipe.of_strategy("full", 2), one_row()) == 2 * (3 * forward + forward)
