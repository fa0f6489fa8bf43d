"""The export in 8-bit integers answers nearly as the run does, says how nearly, and refuses what it cannot take."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import transferkit
from tests.small_data import write_csv
from transferkit import DataConfig, cli
from transferkit.errors import DataError, RunError
from transferkit.inference import quantization
from transferkit.inference.export import export_to_int8, export_transformers
from transferkit.inference.predictor import Predictor
from transferkit.inference.quantized import is_quantized, openvino
from transferkit.settings import run_config

TEXTS = ["the film was a very good story", "bad", "this movie is not funny and the plot was terrible but not boring"]
ROWS = [(f"{TEXTS[number % 3]} {number}", "good" if number % 3 == 0 else "bad") for number in range(60)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "data.csv", ("text", "label"), ROWS)


@pytest.fixture
def trained(backbone: Callable[[str], Path], data: Path, tmp_path: Path) -> Callable[..., Predictor]:
    """Train a strategy on a tiny backbone and load the run."""

    def train(
        family: str = "bert", strategy: str = "full", pooling: str = "mean", base: str | None = None
    ) -> Predictor:
        settings = {
            "data.source": str(data),
            "backbone.name": base or str(backbone(family)),
            "backbone.head_pooling": pooling,
            "strategies": [strategy],
            "training.epochs": 2,
            "training.learning_rate": 0.01,
        }
        transferkit.train(run_config(None, settings, []), tmp_path / "run")
        return transferkit.load(tmp_path / "run")

    return train


@pytest.mark.parametrize(
    ("family", "strategy", "pooling"),
    [("bert", "full", "mean"), ("roberta", "lora", "model"), ("modernbert", "bottleneck", "mean")],
)
def test_answers_are_those_of_the_run_but_for_rounding(
    trained: Callable[..., Predictor], tmp_path: Path, family: str, strategy: str, pooling: str
) -> None:
    run = trained(family, strategy, pooling)
    rows = [(text,) for text, _ in ROWS]
    exact = run.logits(rows)
    said = export_to_int8(run, tmp_path / "int8")
    exported = transferkit.load(tmp_path / "int8")
    assert exported.is_quantized
    rounded = exported.logits(rows)
    assert not np.array_equal(rounded, exact)
    # 8 bits of the range of the logits, several layers deep.
    assert np.abs(rounded - exact).max() < 0.1 * np.ptp(exact)
    assert exported(TEXTS[0]).label == run(TEXTS[0]).label
    assert "McNemar p" in said


def test_what_it_costs_is_measured_on_the_test_rows(trained: Callable[..., Predictor], tmp_path: Path) -> None:
    run = trained()
    quality = quantization.export_quantized(run, tmp_path / "int8")
    written = json.loads((tmp_path / "int8" / "model" / quantization.QUALITY_FILE).read_text(encoding="utf-8"))
    assert written == json.loads(quality.model_dump_json(by_alias=True))
    assert quality.rows == run.record.data.rows["test"]
    assert quality.calibration_rows == run.record.data.rows["train"]
    accuracy = json.loads((run.folder / "results.json").read_text(encoding="utf-8"))["metrics"]["accuracy"]
    assert quality.exact["accuracy"] == pytest.approx(accuracy)
    assert quality.difference == pytest.approx(quality.quantized["accuracy"] - accuracy)
    low, high = quality.interval
    assert low <= quality.difference <= high
    assert quality.quantized_bytes > 0
    assert quality.exact_bytes == bytes_of(run.folder / "model"), "and not of its predictions"


def bytes_of(folder: Path) -> int:
    """Of the weights in a folder of a model."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def test_the_size_is_that_of_a_base_that_has_moved(
    trained: Callable[..., Predictor], backbone: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(backbone("bert"), here / "base")
    monkeypatch.chdir(here)
    trained(strategy="lora", base="base")
    here.rename(there)
    monkeypatch.chdir(there)
    quality = quantization.export_quantized(transferkit.load(tmp_path / "run"), tmp_path / "int8")
    assert quality.exact_bytes == bytes_of(there / "base") > 0


def test_the_folder_is_a_run_to_predict_and_evaluate(
    trained: Callable[..., Predictor], tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    trained()
    out = str(tmp_path / "int8")
    monkeypatch.setattr(
        sys, "argv", ["transferkit", "export", str(tmp_path / "run"), "--to", "openvino-int8", "--out", out]
    )
    cli.main()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("int8 answers ")
    assert printed[1:] == [out]
    scores = transferkit.evaluate(out, DataConfig(source=str(data)))
    assert scores.rows == len(ROWS)
    for option in ([], ["--explain"]):
        monkeypatch.setattr(sys, "argv", ["transferkit", "predict", out, TEXTS[0], *option])
        cli.main()
        assert "good" in capsys.readouterr().out


def test_threads_get_the_answers_that_one_gets(trained: Callable[..., Predictor], tmp_path: Path) -> None:
    export_to_int8(trained(), tmp_path / "int8")
    exported = transferkit.load(tmp_path / "int8")
    expected = [exported(text) for text in TEXTS]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(exported, TEXTS * 50)) == expected * 50


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_has_no_effect_on_it_and_is_refused(
    trained: Callable[..., Predictor], tmp_path: Path, precision: str
) -> None:
    export_to_int8(trained(), tmp_path / "int8")
    with pytest.raises(RunError, match=f"answers in int8; precision {precision} has no effect"):
        transferkit.load(tmp_path / "int8", precision=precision)
    with pytest.raises(RunError, match="name the run that it was exported from"):
        export_transformers(transferkit.load(tmp_path / "int8"), tmp_path / "out")


def test_rows_that_changed_are_refused_and_nothing_is_written(
    trained: Callable[..., Predictor], tmp_path: Path, data: Path
) -> None:
    run = trained()
    write_csv(data, ("text", "label"), [(f"{text} anew", label) for text, label in ROWS])
    with pytest.raises(DataError, match="are no longer those of the run"):
        export_to_int8(run, tmp_path / "int8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "run"]


def test_a_failure_leaves_nothing(
    trained: Callable[..., Predictor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    run = trained()
    monkeypatch.setattr(quantization, "_measure", fail)
    for name in ("int8", "exported/int8"):
        with pytest.raises(KeyboardInterrupt):
            export_to_int8(run, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "run"]


def test_a_model_that_cannot_be_written_is_one_sentence(
    trained: Callable[..., Predictor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(openvino("nncf"), "save_model", fail)
    with pytest.raises(RunError, match=r"cannot write its model \(.*iostream error\); see that there is room"):
        export_to_int8(trained(), tmp_path / "int8")


def test_a_folder_in_use_is_left_alone(trained: Callable[..., Predictor], tmp_path: Path) -> None:
    (tmp_path / "int8").mkdir()
    (tmp_path / "int8" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="exists and is not empty"):
        export_to_int8(trained(), tmp_path / "int8")
    assert not is_quantized(tmp_path / "int8")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(RunError, match=r"int8 needs the package nncf: pip install 'transferkit\[int8\]'"):
        openvino("nncf")


def test_nobody_is_told_that_it_is_used() -> None:
    openvino("nncf")
    assert sys.modules["openvino_telemetry"] is None
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]


def test_a_damaged_model_is_one_sentence(trained: Callable[..., Predictor], tmp_path: Path) -> None:
    export_to_int8(trained(), tmp_path / "int8")
    (tmp_path / "int8" / "model" / "openvino_model.xml").write_text("<net")
    with pytest.raises(RunError, match="cannot be loaded by OpenVINO"):
        transferkit.load(tmp_path / "int8")
