"""What answers beside TransferKit: pipelines in fp32 and in bf16, each called in the way that is fastest for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import finetune, grid, harness, inference, latency, served, translation_training
from tests import tiny
from transferkit.inference.predictor import Prediction
from transferkit.training import precision

OURS, PEER, PEER_BF16 = harness.OURS, harness.PEER, harness.PEER_BF16
BOTH = "fp32,bf16"


@pytest.fixture(scope="module")
def exported(backbone: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> served.Served:
    """A tiny classifier as an export has it; there is no run."""
    folder = tmp_path_factory.mktemp("served")
    tiny.load_model(backbone("bert")).network.save_pretrained(folder)
    tiny.load_tokenizer(backbone("bert")).save(folder)
    return served.Served(folder / "run", folder)


class FakeRun:
    """Sure of the first label, whatever the text."""

    labels = tiny.LABELS

    def __call__(self, texts: Any) -> Any:
        answer = Prediction(self.labels[0], dict(zip(self.labels, (1.0, 0.0, 0.0), strict=True)))
        return answer if isinstance(texts, str) else [answer] * len(texts)


@pytest.mark.parametrize(("bf16", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_the_pipeline_answers_in_the_precision_of_its_column(
    exported: served.Served, bf16: bool, dtype: torch.dtype
) -> None:
    pipe = exported.pipeline(bf16)
    assert {parameter.dtype for parameter in pipe.model.parameters()} == {dtype}
    (scores,) = served.call(pipe, [tiny.CORPUS[0]], batch_size=1)
    probabilities = served.by_label(scores)
    assert set(probabilities) == set(tiny.LABELS)
    assert sum(probabilities.values()) == pytest.approx(1)


def test_one_text_goes_through_no_loader(exported: served.Served, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = exported.pipeline()
    (expected,) = served.call(pipe, [tiny.CORPUS[0]], batch_size=1)
    monkeypatch.setattr(pipe, "get_iterator", None)
    assert served.by_label(served.call_on_one(pipe, tiny.CORPUS[0])) == pytest.approx(served.by_label(expected))


def test_each_pipeline_has_the_batch_size_that_it_is_fastest_with(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def pipe(seconds: dict[int, float]) -> Any:
        def answer(rows: list[Any], batch_size: int, **_: Any) -> list[served.Scores]:
            clock[0] += seconds[batch_size]
            return [[{"label": label, "score": 1 / 3} for label in tiny.LABELS] for _ in rows]

        return answer

    monkeypatch.setattr(inference.time, "perf_counter", lambda: clock[0])
    pipes = {PEER: pipe({1: 2.0, 8: 1.0, 32: 3.0}), PEER_BF16: pipe({1: 2.0, 8: 3.0, 32: 1.0})}
    sides = inference.Sides(FakeRun(), pipes, [("a film",), ("a plot",)])
    monkeypatch.undo()
    assert sides.batch_sizes == {PEER: 8, PEER_BF16: 32}
    assert sides.batch_seconds[PEER_BF16] == {1: 2.0, 8: 3.0, 32: 1.0}
    found = {name: side(0).answers for name, side in sides.by_name().items()}
    assert [answers.tolist() for answers in found.values()] == [[[0, 0]]] * 3
    assert sides.probabilities[PEER_BF16][1] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(("native", "peers"), [(True, [PEER, PEER_BF16]), (False, [PEER])])
def test_a_peer_in_bf16_is_there_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, peers: list[str]
) -> None:
    monkeypatch.setattr(precision, "has_native_bf16", lambda: native)
    for script in (finetune, grid, inference, latency, translation_training):
        assert script.parse([]).peers == peers
        assert script.parse(["--peers", "bf16"]).peers == [PEER_BF16]


@pytest.fixture
def without_training(exported: served.Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is served is tiny and not trained, and memory is not measured."""

    @contextmanager
    def trained(*_: Any) -> Iterator[served.Served]:
        yield exported

    for script in (inference, latency):
        monkeypatch.setattr(script, "trained", trained)
        monkeypatch.setattr(script, "transferkit", SimpleNamespace(load=lambda _: FakeRun()))
    monkeypatch.setattr(harness, "peak_alone", lambda _: 7)
    # The tiny backbone takes no more.
    monkeypatch.setitem(served.OPTIONS, "max_length", 64)


@pytest.mark.parametrize("peers", ["fp32", "bf16", BOTH])
def test_latency_has_a_column_for_each_peer(without_training: None, tmp_path: Path, peers: str) -> None:
    latency.main(["--calls", "4", "--block", "2", "--peers", peers, "--out", str(tmp_path)])
    result = json.loads((tmp_path / "latency-text+calls=4+block=2.json").read_text(encoding="utf-8"))
    for name, suffix in ((PEER, ""), (PEER_BF16, "_bf16")):
        measured = ("bf16" if suffix else "fp32") in peers
        assert (name in result) == (result.get(f"ratio{suffix}_median") is not None) == measured
        assert (f"largest_probability_difference{suffix}" in result) == measured
    assert result[OURS]["p50"] < result[PEER if "fp32" in peers else PEER_BF16]["p50"]


def test_inference_has_a_column_for_each_peer(
    without_training: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = inference.data.Rows([("a good film", "a bad plot"), ("slow but fine", "it is long")], list(tiny.LABELS[:2]))
    monkeypatch.setattr(inference.data, "mrpc", lambda *_, **__: inference.data.Splits("some", rows, rows, rows))
    inference.main(["--pairs", "1", "--rows", "2", "--peers", BOTH, "--out", str(tmp_path)])
    result = json.loads((tmp_path / "inference-pairs+rows=2.json").read_text(encoding="utf-8"))
    assert result["target"] == inference.TARGETS["pairs"]
    assert result["ratio_median"] > 1
    assert result["ratio_bf16_median"] > 1
    for name, suffix in ((PEER, ""), (PEER_BF16, "_bf16")):
        assert result["work"][f"{name}_batch"] in inference.BATCH_SIZES
        assert set(result[f"{name}_trial_seconds_by_batch"]) == {"1", "8", "32"}
        assert 0 < result[f"largest_probability_difference{suffix}"] < 1
        assert result[name]["peak_memory_bytes"] == 7
        assert len(result[f"paired{suffix}"]["difference_interval"]) == 2
    assert result[PEER]["quality"] is not None
