"""Pre-train once, adapt many times: a run stands where a backbone does, in every verb."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import transferkit
from tests import tiny
from tests.end_to_end.conftest import Run
from tests.small_data import write_csv
from tests.test_pipeline import Log
from tests.training.test_loop import Impatient
from transferkit.config import PretrainConfig
from transferkit.data.preparation import prepare
from transferkit.errors import ConfigError, RunError, TransferKitError
from transferkit.inference.predictor import Predictor
from transferkit.run_folder import find_backbone, read_predictions, read_record
from transferkit.settings import compare_config, pretrain_config, run_config

GOOD, BAD = ("good", "fine", "wonderful"), ("bad", "dull", "terrible")
SMALL = ["--epochs", "3", "--set", "training.batch_size=8", "--precision", "fp32", "--set", "training.threads=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors, topics of three classes, reviews of two, and a run of either architecture on the topics."""
    path = tmp_path_factory.mktemp("playbook")
    tiny.save_vectors(path / "vectors.txt")
    words = [("plot", "story"), ("film", "movie"), ("scene", "slow")]
    topics = [(f"the {words[n % 3][n % 2]} was {tiny.WORDS[n % 20]}", "abc"[n % 3]) for n in range(90)]
    reviews = [(f"this film {n} was {(GOOD, BAD)[n % 2][n % 3]} !", ("pos", "neg")[n % 2]) for n in range(80)]
    write_csv(path / "topics.csv", ("text", "label"), topics)
    write_csv(path / "reviews.csv", ("text", "label"), reviews)
    for name in ("text-encoder", "averaging"):
        options = {"data.source": str(path / "topics.csv"), "encoder.vectors": str(path / "vectors.txt")}
        settings = {"encoder.architecture": name, "training.epochs": 2, "training.precision": "fp32"}
        transferkit.pretrain(pretrain_config(None, options | settings, ["training.threads=1"]), path / name)
    return path


def test_a_stopped_pretraining_goes_on_to_the_same_backbone(folder: Path, tmp_path: Path) -> None:
    options = {"data.source": str(folder / "topics.csv"), "encoder.vectors": str(folder / "vectors.txt")}
    fast = {"training.epochs": 3, "training.precision": "fp32", "training.checkpoint_minutes": 0.0}
    config = pretrain_config(None, options | fast, ["training.threads=1", "training.batch_size=8"])
    transferkit.pretrain(config, tmp_path / "whole")
    stopped = transferkit.pretrain(config, tmp_path / "stopped", listener=Impatient(150))
    assert (stopped.status, stopped.epochs) == ("interrupted", 1)
    said = "was stopped before its end, so it is no backbone yet; go on with it by `transferkit train --resume --out "
    with pytest.raises(RunError, match=f"{said}{tmp_path / 'stopped'}`"):
        find_backbone(str(tmp_path / "stopped"))
    assert transferkit.resume(tmp_path / "stopped").status == "finished"
    whole, resumed = (load_file(tmp_path / one / "model" / "model.safetensors") for one in ("whole", "stopped"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert find_backbone(str(tmp_path / "stopped")).folder == tmp_path / "stopped" / "model"


def trained(folder: Path, backbone: object, strategy: str, out: Path, *options: str) -> Path:
    settings = {"data.source": str(folder / "reviews.csv"), "backbone.name": str(backbone), "strategies": [strategy]}
    fast = {"training.epochs": 3, "training.precision": "fp32", "training.threads": 1, "training.batch_size": 8}
    transferkit.train(run_config(None, settings | fast, options), out)
    return out


def test_the_command_line_pretrains_adapts_predicts_and_evaluates(folder: Path, tmp_path: Path, run: Run) -> None:
    code, _, log = run(
        "pretrain", "--data", folder / "topics.csv", "--vectors", folder / "vectors.txt", "--layers", 1, "--heads", 4,
        "--feed-forward", 16, "--freeze-vectors", "--seed", 3, "--out", tmp_path / "base", *SMALL,
    )  # fmt: skip
    assert code == 0
    assert "network.embedding.weight" in log
    architecture = json.loads((tmp_path / "base" / "model" / "config.json").read_text())
    assert (architecture["model_type"], architecture["layers"]) == ("transferkit-text-encoder", 1)
    record = read_record(tmp_path / "base")
    # Its attention is ours, which is computed in one way.
    assert "Computing in fp32, 1 thread, as asked for." in log
    assert record.compute.attention is None
    assert isinstance(record.config, PretrainConfig)
    assert (record.config.seed, record.config.encoder.heads) == (3, 4)
    origins = {(row.name, row.origin, row.trains) for row in record.weights}
    assert ("network.embedding.weight", "loaded", False) in origins
    assert ("head.*.weight", "new", True) in origins

    code, _, log = run(
        "compare", "--backbone", tmp_path / "base", "--data", folder / "reviews.csv", "--out", tmp_path / "out",
        *SMALL, "--set", "training.learning_rate=0.02",
    )  # fmt: skip
    assert code == 0
    assert "head.*.weight" in log
    assert "replaced" in log
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [result["error"] for result in comparison["results"] if result["status"] != "finished"] == []
    assert len(comparison["results"]) == 6

    for one in (tmp_path / "out" / "runs").iterdir():
        labels, logits = read_predictions(one)
        code, out, _ = run("evaluate", one, "--data", folder / "reviews.csv", "--json")
        assert code == 0
        assert json.loads(out)["rows"] == 80
        code, out, _ = run("predict", one, "this film was good !", "--json")
        assert code == 0
        assert json.loads(out)["label"] in ("pos", "neg")
        assert len(labels) == len(logits)


def test_a_comparison_says_of_each_strategy_once_what_becomes_of_the_weights(folder: Path, tmp_path: Path) -> None:
    settings = {
        "data.source": str(folder / "reviews.csv"), "backbone.name": str(folder / "text-encoder"),
        "training.epochs": 1, "training.precision": "fp32", "training.threads": 1,
    }  # fmt: skip
    log = Log()
    config = compare_config(None, settings | {"strategies": ["linear-probe", "full"], "seeds": [0, 1]}, [])
    transferkit.compare(config, tmp_path / "out", listener=log)
    probe, full = (lines for lines in log.lines if lines.startswith("Parameters"))
    assert re.search(r"^network\.embedding\.weight .* loaded +frozen$", probe, re.MULTILINE)
    assert re.search(r"^head\.\*\.weight .* replaced +trains$", probe, re.MULTILINE)
    assert re.search(r"^network\.embedding\.weight .* loaded +trains$", full, re.MULTILINE)
    assert "frozen" not in full
    transferkit.compare(config.model_copy(update={"seeds": (0, 1, 2)}), tmp_path / "out", listener=log)
    assert [lines for lines in log.lines if lines.startswith("Parameters")][2:] == [probe, full], "of what is new"


@pytest.mark.parametrize(
    ("architecture", "strategy"),
    [
        *itertools.product(
            ["text-encoder", "averaging"], ["scratch", "full", "linear-probe", "lora(rank=2)", "peft:ia3"]
        ),
        ("text-encoder", "peft:prompt-tuning(num_virtual_tokens=2)"),
    ],
)
def test_a_run_answers_with_what_training_ended_with(
    folder: Path, tmp_path: Path, architecture: str, strategy: str
) -> None:
    run = trained(folder, folder / architecture, strategy, tmp_path / "run")
    predictor = transferkit.load(run, precision="fp32")
    data = {"source": str(folder / "reviews.csv")}
    _, logits = read_predictions(run)
    test = prepare(predictor.record.config.data).splits["test"]
    np.testing.assert_allclose(predictor.logits([(text,) for text in test["text"]]), logits, atol=1e-5)
    assert transferkit.evaluate(run, transferkit.DataConfig.model_validate(data)).rows == 80


def test_an_averaging_run_keeps_a_b_and_the_head_alone(folder: Path, tmp_path: Path) -> None:
    run = trained(folder, folder / "averaging", "lora(rank=2,alpha=0.1)", tmp_path / "run")
    with safe_open(run / "model" / "capsule.safetensors", framework="pt") as file:
        assert set(file.keys()) == {
            "network.hidden.lora_a", "network.hidden.lora_b", "head.1.weight", "head.1.bias",
        }  # fmt: skip


def test_a_base_is_found_where_it_was(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run = trained(folder, "averaging", "lora", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert transferkit.load(run)("good film").label in ("pos", "neg")


def test_a_comparison_and_a_transformers_run_are_backbones_too(
    folder: Path, tmp_path: Path, backbone: Callable[[str], Path], run: Run
) -> None:
    run(
        "compare", "--backbone", backbone("bert"), "--data", folder / "reviews.csv", "--strategies", "full",
        "--out", tmp_path / "cmp", *SMALL, "--set", "training.learning_rate=0.003", "--epochs", 8,
    )  # fmt: skip
    files = find_backbone(str(tmp_path / "cmp"))
    assert files.folder == tmp_path / "cmp" / "runs" / "full-seed0" / "model"
    adapted = trained(folder, tmp_path / "cmp", "lora", tmp_path / "run")
    record = read_record(adapted)
    assert {row.origin for row in record.weights if "pooler" not in row.name} == {"loaded", "added"}, "the same classes"
    predictor = transferkit.load(adapted, precision="fp32")
    assert predictor.is_lean
    rows: list[tuple[str, ...]] = [("this film was good !",), ("bad",)]
    np.testing.assert_allclose(predictor.logits(rows), slowly(predictor, rows), atol=1e-5)


def slowly(predictor: Predictor, rows: list[tuple[str, ...]]) -> np.ndarray:
    """Logits from the model as it was trained."""
    tokens = [predictor.tokenizer.backend(row[0], return_tensors="pt") for row in rows]
    return np.stack([predictor.model(**one)[0].detach().numpy() for one in tokens])


def test_a_capsule_is_no_backbone(folder: Path, tmp_path: Path) -> None:
    run = trained(folder, folder / "averaging", "lora", tmp_path / "run")
    with pytest.raises(RunError, match="holds a capsule of lora, not a whole model, and so is no backbone; name a run"):
        find_backbone(str(run))


def test_pairs_that_become_one_text_are_said(folder: Path, tmp_path: Path) -> None:
    rows = [(f"this film was {GOOD[n % 3]} {n}", f"the {BAD[n % 3]} plot", "ab"[n % 2]) for n in range(40)]
    settings = {
        "data.source": str(write_csv(tmp_path / "pairs.csv", ("first", "second", "label"), rows)),
        "data.pair": ("first", "second"), "encoder.vectors": str(folder / "vectors.txt"), "training.epochs": 1,
    }  # fmt: skip
    log = Log()
    transferkit.pretrain(pretrain_config(None, settings, []), tmp_path / "run", listener=log)
    said = "puts nothing between the two texts of a pair, so the backbone reads them as one"
    assert [said in line for line in log.lines].count(True) == 1
    assert any(said in note for note in read_record(tmp_path / "run").data.notes)
    settings = {"data.source": str(folder / "topics.csv"), "encoder.vectors": str(folder / "vectors.txt")}
    log = Log()
    transferkit.pretrain(pretrain_config(None, settings | {"training.epochs": 1}, []), tmp_path / "one", listener=log)
    assert not any(said in line for line in log.lines)


def test_a_run_that_was_killed_and_an_export_without_weights_are_no_backbones(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "averaging", tmp_path / "run")
    assert find_backbone(str(run)).folder == run / "model"
    (run / "results.json").unlink()
    with pytest.raises(RunError, match="was stopped before its end"):
        find_backbone(str(run))
    (run / "model" / "config.json").unlink()
    with pytest.raises(RunError, match="holds no weights that can be trained; name the run that it was exported from"):
        find_backbone(str(run))


def test_a_run_without_its_head_is_refused(folder: Path, tmp_path: Path) -> None:
    run = trained(folder, folder / "averaging", "full", tmp_path / "run")
    (run / "model" / "head.safetensors").unlink()
    with pytest.raises(RunError, match="is not whole: its head is missing"):
        transferkit.load(run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--vectors is missing: name a file of word vectors, or minilm"),
        ({"encoder.vectors": "none.txt"}, "There is no file of word vectors none.txt"),
        ({"encoder.vectors": "~nosuchuser/glove.txt"}, "There is no file of word vectors ~nosuchuser/glove.txt"),
        ({"encoder.vectors": "minilmm"}, "There are no word vectors 'minilmm'"),
        ({"encoder.heads": 3}, "have 8 numbers, which 3 heads cannot share"),
        (
            {"encoder.architecture": "averaging", "encoder.layers": 3},
            "encoder.layers has no effect on the",
        ),
        ({"encoder.hidden": 64}, "encoder.hidden has no effect on the architecture text-encoder"),
        ({"backbone.name": "bert"}, "backbone.name has no effect on pre-training"),
        ({"backbone.name": "minilm"}, "backbone.name has no effect on pre-training"),
        ({"strategy": "lora"}, "pre-training trains all weights; the strategy lora has no effect"),
        ({"encoder.vector": "x"}, "there is no setting 'encoder.vector'. Did you mean vectors"),
    ],
)
def test_what_cannot_be_pretrained_is_said(
    folder: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    given = {"encoder.vectors": str(folder / "vectors.txt")} if options and "encoder.vectors" not in options else {}

    def pretrain() -> None:
        config = pretrain_config(None, {"data.source": str(folder / "topics.csv")} | given | options, [])
        transferkit.pretrain(config, tmp_path / "out")

    with pytest.raises(TransferKitError) as error:
        pretrain()
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_wrong_setting_of_a_recipe_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("encoder: [vectors]\ntraining: fast\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml: training is "):
        pretrain_config(tmp_path / "recipe.yaml", {}, [])


def test_from_python_it_has_the_same_defaults() -> None:
    settings = {"encoder": {"vectors": "glove.txt"}, "training": {"epochs": 2}}
    config = PretrainConfig.model_validate(settings)
    assert (config.training.learning_rate, config.training.epochs) == (1e-3, 2)
    assert config == pretrain_config(None, {"encoder.vectors": "glove.txt", "training.epochs": 2}, [])
