"""A run computes the same however fast it computes: settings of speed change no result beyond rounding."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

import transferkit
from tests import tiny
from tests.small_data import write_csv
from tests.training.test_checkpoint import Killed
from tests.training.test_tensorboard import events_of, tables_of
from transferkit import api, job, run_folder
from transferkit.adaptation.lora import LoRA
from transferkit.adaptation.strategies import STRATEGIES
from transferkit.config import RunConfig
from transferkit.data.preparation import prepare
from transferkit.errors import AdaptationError, ConfigError, RunError
from transferkit.evaluation.results import EpochRecord
from transferkit.job import prepare_job
from transferkit.pipeline import run_one
from transferkit.run_folder import read_lora, read_predictions, read_record, read_result
from transferkit.settings import compare_config, run_config
from transferkit.tokenization.pretrained import TextTokenizer
from transferkit.training import prefix_cache
from transferkit.training.precision import Compute
from transferkit.training.prefix_cache import States
from transferkit.training.tracking import Listener, read_epochs

# The layer that is on top.
TOP = "encoder.layer.1.**.query"
WORDS = ("good", "fine", "wonderful", "funny"), ("bad", "dull", "boring", "terrible")


class Log(Listener):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def said(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def settings(backbone: Callable[[str], Path], tmp_path: Path) -> dict[str, object]:
    """Of a run on a tiny backbone, in two parts for long batches and of several lengths."""
    rows = []
    for number in range(60):
        label = number % 2
        word = WORDS[label][number // 2 % 4]
        rows.append((f"the film was {word} " + "and the plot " * (number % 5) + str(number), ("good", "bad")[label]))
    return {
        "data.source": str(write_csv(tmp_path / "data.csv", ("text", "label"), rows)),
        "backbone.name": str(backbone("bert")),
        "training.epochs": 3,
        "training.batch_size": 8,
        "training.max_batch_tokens": 60,
        "training.precision": "fp32",
        "training.attention": "fused",
        "training.threads": 1,
    }


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path / "cache"))


class ThreadsInUse(Listener):
    """Keeps with how many threads torch computes whenever rows have gone through the model, from training on."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def begun(self, step: int) -> None:
        # What was tokenized before has advanced too.
        self.seen.clear()

    def advanced(self, rows: int) -> None:
        self.seen.add(torch.get_num_threads())


def run(
    settings: dict[str, object], folder: Path, strategy: str, listener: Listener | None = None, **training: object
) -> tuple[list[EpochRecord], np.ndarray]:
    """The epochs and the test logits of a run."""
    changed = settings | {f"training.{name}": value for name, value in training.items()}
    config: RunConfig = run_config(None, changed | {"strategies": [strategy]}, [])
    transferkit.train(config, folder, overwrite=True, listener=listener)
    epochs = [record.model_copy(update={"seconds": 0.0}) for record in read_epochs(folder / "metrics.jsonl")]
    return epochs, read_predictions(folder)[1]


def losses(epochs: list[EpochRecord]) -> list[float]:
    return [value for record in epochs for value in (record.train_loss, record.validation_loss)]


@pytest.mark.parametrize("strategy", ["linear-probe", "partial(layers=1)", f"lora(targets={TOP})"])
@pytest.mark.parametrize("mode", ["memory", "disk"])
def test_the_prefix_cache_changes_no_loss_and_no_logit(
    settings: dict[str, object], tmp_path: Path, strategy: str, mode: str
) -> None:
    plain, plain_logits = run(settings, tmp_path / "plain", strategy, prefix_cache="off")
    kept, kept_logits = run(settings, tmp_path / "kept", strategy, prefix_cache=mode)
    np.testing.assert_allclose(losses(kept), losses(plain), rtol=1e-5)
    np.testing.assert_allclose(kept_logits, plain_logits, atol=1e-5)


@pytest.mark.parametrize("strategy", ["linear-probe", "partial(layers=1)", f"lora(targets={TOP})"])
def test_in_bf16_the_prefix_cache_changes_no_loss_beyond_rounding(
    settings: dict[str, object], tmp_path: Path, strategy: str
) -> None:
    in_bf16 = {"precision": "bf16", "attention": "plain"}
    plain, _ = run(settings, tmp_path / "plain", strategy, prefix_cache="off", **in_bf16)
    kept, _ = run(settings, tmp_path / "kept", strategy, prefix_cache="memory", **in_bf16)
    np.testing.assert_allclose(losses(kept), losses(plain), rtol=1e-2)


OF_OTHERS = [
    *((name, "linear-probe") for name in (*tiny.OTHERS, "xlnet")),
    ("bart", "peft:lora"),
    ("t5", "lora"),
    ("xlnet", "full"),
]


@pytest.mark.parametrize(("name", "strategy"), OF_OTHERS)
def test_families_that_do_not_take_every_text_train_and_predict(
    settings: dict[str, object], backbone: Callable[[str], Path], tmp_path: Path, name: str, strategy: str
) -> None:
    pooling = "mean" if name == "xlnet" else "model"
    of_family = {"name": str(backbone(name)), "head_pooling": pooling}
    changed = settings | {f"backbone.{key}": value for key, value in of_family.items()}
    run(changed, tmp_path / "run", strategy, epochs=1, attention="auto")
    assert transferkit.load(tmp_path / "run")("the film was fine").label in ("bad", "good")


def test_a_step_of_a_large_encoder_decoder_is_timed_on_the_end_of_a_text(
    settings: dict[str, object], backbone: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = []

    def choose(_training: object, batch: dict[str, torch.Tensor], _of: str, model: torch.nn.Module) -> object:
        timed.append((batch["input_ids"].shape, model(**batch).shape))
        return Compute(), "It was timed."

    monkeypatch.setattr(job, "choose", choose)
    monkeypatch.setattr(job, "probe_shape", lambda *_: (2, 6))
    prepare_job(
        run_config(None, settings | {"backbone.name": str(backbone("bart")), "strategies": ["lora"]}, []), Listener()
    )
    assert timed == [((2, 6), (2, 2))]


@pytest.mark.parametrize(
    "training",
    [
        {"precision": "bf16", "attention": "plain"},
        {"precision": "bf16", "attention": "fused"},
        {"attention": "plain"},
        {"prefix_cache": "disk"},
        {"max_batch_tokens": 10_000},
    ],
    ids=str,
)
@pytest.mark.parametrize("strategy", ["full", "lora(dropout=0.1)", "partial(layers=1)"])
def test_a_seed_gives_the_same_numbers_bit_for_bit_with_each_setting(
    settings: dict[str, object], tmp_path: Path, strategy: str, training: dict[str, object]
) -> None:
    if training == {"prefix_cache": "disk"} and not strategy.startswith("partial"):
        training = {}
    (first, logits), (second, again) = (run(settings, tmp_path / name, strategy, **training) for name in "ab")
    assert first == second
    assert np.array_equal(logits, again)


def test_a_run_that_keeps_the_mean_names_no_best_epoch(settings: dict[str, object], tmp_path: Path) -> None:
    run(settings, tmp_path / "run", "lora", keep="average", epochs=3)
    result = read_result(tmp_path / "run")
    assert (result.status, result.epochs, result.best_epoch) == ("finished", 3, None)
    with pytest.raises(ConfigError, match="there are 2; train for 3 or more, or keep the best"):
        run(settings, tmp_path / "short", "lora", keep="average", epochs=2)


@pytest.mark.parametrize(
    ("strategy", "pooling"), [("full", "model"), ("partial(layers=1)", "model"), ("linear-probe", "mean")]
)
def test_tensorboard_shows_curves_answers_and_where_it_looks(
    settings: dict[str, object], tmp_path: Path, strategy: str, pooling: str
) -> None:
    folder = tmp_path / "run"
    epochs, _ = run(settings | {"backbone.head_pooling": pooling}, folder, strategy, tensorboard=True)
    events, steps = events_of(folder), [record.step for record in epochs]
    points = {name: [one.step for one in events.Scalars(name)] for name in events.Tags()["scalars"]}
    metrics = ("loss", "accuracy", "f1_macro", "mcc")
    assert points == {"train/loss": [10], "train/learning_rate": [10]} | {f"validation/{m}": steps for m in metrics}
    assert events.Tags()["images"] == ["attention/layer 2"]
    assert [one.step for one in events.Images("attention/layer 2")] == steps
    rows = prepare(read_record(folder).config.data).splits["validation"][:5]
    tables = tables_of(events)
    assert [step for step, _ in tables] == steps
    for (_, table), record in zip(tables, epochs, strict=True):
        lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
        assert [line[0] for line in lines] == rows["text"]
        assert [line[1] for line in lines] == [("bad", "good")[label] for label in rows["label"]]
        assert [line[2] for line in lines] == [one.predicted for one in record.examples]
        assert all(0.5 <= one.probability <= 1 for one in record.examples)


@pytest.mark.parametrize("training", [{}, {"precision": "bf16", "attention": "plain"}], ids=str)
@pytest.mark.parametrize("strategy", ["full", "lora(dropout=0.1)", "partial(layers=1)"])
def test_tensorboard_changes_no_weight_and_no_logit(
    settings: dict[str, object], tmp_path: Path, strategy: str, training: dict[str, object]
) -> None:
    plain, logits = run(settings, tmp_path / "plain", strategy, **training)
    seen, same = run(settings, tmp_path / "seen", strategy, **training, tensorboard=True)
    assert [record.model_copy(update={"examples": ()}) for record in seen] == plain
    assert np.array_equal(logits, same)
    files = {file.name for file in (tmp_path / "plain" / "model").glob("*.safetensors")}
    assert files
    for name in files:
        one, other = (load_file(tmp_path / folder / "model" / name) for folder in ("plain", "seen"))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert not (tmp_path / "plain" / "tensorboard").exists()


def test_one_thread_and_two_agree(settings: dict[str, object], tmp_path: Path) -> None:
    # So wide, and in batches so large, that both have work: torch splits what has more than 32,768 numbers.
    wide = tiny.save_backbone("bert", tmp_path / "wide", hidden_size=64, intermediate_size=512)
    changed = settings | {
        "backbone.name": str(wide),
        "training.batch_size": 32,
        "training.max_batch_tokens": 10_000,
    }
    before = torch.get_num_threads()
    in_one, in_two = ThreadsInUse(), ThreadsInUse()
    one, _ = run(changed, tmp_path / "run", "full", listener=in_one, threads=1)
    two, _ = run(changed, tmp_path / "run", "full", listener=in_two, threads=2)
    assert (in_one.seen, in_two.seen) == ({1}, {2})
    np.testing.assert_allclose(losses(one), losses(two), rtol=1e-3)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("training", [{"attention": "plain"}, {"max_batch_tokens": 10_000}], ids=str)
def test_kernels_and_parts_of_batches_change_no_more_than_rounding(
    settings: dict[str, object], tmp_path: Path, training: dict[str, object]
) -> None:
    # Without dropout, whose draws depend on the calls.
    settings |= {"backbone.head_pooling": "mean", "backbone.head_dropout": 0.0}
    (plain, _), (other, _) = (run(settings, tmp_path / "run", "lora", **changes) for changes in ({}, training))
    np.testing.assert_allclose(losses(plain), losses(other), rtol=1e-4)


def test_how_it_computed_is_recorded_and_said(settings: dict[str, object], tmp_path: Path) -> None:
    log = Log()
    config = run_config(None, settings | {"strategies": ["linear-probe"]}, [])
    transferkit.train(config, tmp_path / "run", listener=log)
    compute = read_record(tmp_path / "run").compute
    assert (compute.precision, compute.attention, compute.threads) == ("fp32", "fused", 1)
    assert "Computing in fp32, fused attention, 1 thread, as asked for." in log.lines
    assert any(line.startswith("Padding is ") for line in log.lines)


def test_runs_of_a_comparison_share_what_frozen_layers_answer(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = []
    fill = prefix_cache._fill

    def counted(*arguments: object) -> None:
        filled.append(arguments)
        fill(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(prefix_cache, "_fill", counted)
    config = compare_config(None, settings | {"strategies": ["linear-probe"], "seeds": [0, 1, 2]}, [])
    comparison = transferkit.compare(config, tmp_path / "out")
    assert [result.status for result in comparison.results] == ["finished"] * 3
    assert len(filled) == 3, "once for each split, whatever the seed"


def test_a_comparison_tokenizes_each_split_once(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenized: list[int] = []
    tokenize = TextTokenizer.tokenize

    def counted(self: TextTokenizer, rows: Dataset, *rest: object) -> object:
        tokenized.append(len(rows))
        return tokenize(self, rows, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(TextTokenizer, "tokenize", counted)
    grid = {"strategies": ["linear-probe", "lora"], "seeds": [0, 1], "training.epochs": 1}
    comparison = transferkit.compare(compare_config(None, settings | grid, []), tmp_path / "out")
    assert [result.status for result in comparison.results] == ["finished"] * 4
    assert len(tokenized) == 3
    assert sum(tokenized) == 60


@pytest.mark.parametrize(
    ("strategy", "training", "message"),
    [
        ("full", {"prefix_cache": "memory"}, "full trains from the first layer on"),
        ("linear-probe", {"prefix_cache": "disk", "frozen_dropout": True}, "dropout in frozen layers changes"),
    ],
)
def test_a_cache_without_effect_is_refused(
    settings: dict[str, object], tmp_path: Path, strategy: str, training: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"--prefix-cache \w+ has no effect: {message}"):
        run(settings, tmp_path / "run", strategy, **training)
    assert not (tmp_path / "run").exists()


class StopsInTheSecondEpoch(Listener):
    """Presses Ctrl-C after some rows of it."""

    rows: int | None = None

    def epoch_ended(self, record: EpochRecord) -> None:
        self.rows = 20

    def advanced(self, rows: int) -> None:
        if self.rows is not None:
            self.rows -= rows
            if self.rows <= 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("strategy", ["lora", "full", "linear-probe"])
def test_a_stopped_classifier_goes_on_to_the_same_weights(
    settings: dict[str, object], tmp_path: Path, strategy: str, precision: str
) -> None:
    changed = settings | {
        "training.checkpoint_minutes": 0.0, "training.precision": precision, "strategies": [strategy]
    }  # fmt: skip
    config: RunConfig = run_config(None, changed, [])
    transferkit.train(config, tmp_path / "whole")
    stopped = transferkit.train(config, tmp_path / "stopped", listener=StopsInTheSecondEpoch())
    assert stopped.status == "interrupted"
    resumed = transferkit.resume(tmp_path / "stopped")
    assert resumed.status == "finished"
    assert resumed.metrics == read_result(tmp_path / "whole").metrics
    np.testing.assert_array_equal(read_predictions(tmp_path / "stopped")[1], read_predictions(tmp_path / "whole")[1])
    assert not (tmp_path / "stopped" / "checkpoints").exists()


def test_a_stopped_run_goes_on_from_its_revision_of_the_backbone(
    settings: dict[str, object], tmp_path: Path, backbone: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for revision in ("old", "new"):
        shutil.copytree(backbone("bert"), tmp_path / revision)
    weights = tmp_path / "new" / "model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    newest = "old"

    def download(_: str, revision: str | None, **__: object) -> str:
        return str(tmp_path / (revision or newest))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    changed = settings | {"backbone.name": "someone/model", "strategies": ["lora"]}
    transferkit.train(run_config(None, changed, []), tmp_path / "run", listener=StopsInTheSecondEpoch())
    newest = "new"
    assert transferkit.resume(tmp_path / "run").status == "finished"
    assert read_record(tmp_path / "run").backbone.revision == "old"


class DiesInTheFirstEpoch(Listener):
    """Ends the process before there is a checkpoint."""

    def advanced(self, rows: int) -> None:
        raise Killed


@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_a_run_that_died_before_its_first_checkpoint_begins_anew(
    settings: dict[str, object], tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: RunConfig = run_config(None, settings | {"strategies": [strategy]}, [])
    transferkit.train(config, tmp_path / "whole")
    job = prepare_job(config, Listener())
    run_folder.make_folder(tmp_path / "dead", overwrite=False)
    with pytest.raises(Killed):
        run_one(config, job, tmp_path / "dead", strategy, DiesInTheFirstEpoch())
    with pytest.raises(
        RunError, match=r"dead has no model; it was stopped, and `transferkit train --resume --out .*dead`"
    ):
        transferkit.load(tmp_path / "dead")
    begun = read_record(tmp_path / "dead").created
    monkeypatch.setattr(run_folder, "now", lambda: "later")
    assert transferkit.resume(tmp_path / "dead").status == "finished"
    assert read_record(tmp_path / "dead").created == begun
    np.testing.assert_array_equal(read_predictions(tmp_path / "dead")[1], read_predictions(tmp_path / "whole")[1])


def test_a_run_that_cannot_begin_replaces_nothing(settings: dict[str, object], tmp_path: Path) -> None:
    run(settings, tmp_path / "run", "linear-probe", epochs=1)
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    with pytest.raises(AdaptationError, match="qery"):
        run(settings, tmp_path / "run", "lora(targets=qery)")
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before
    with pytest.raises(AdaptationError, match="qery"):
        run(settings, tmp_path / "new", "lora(targets=qery)")
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(AdaptationError, match="qery"):
        run(settings, tmp_path / "link", "lora(targets=qery)")
    assert list((tmp_path / "link").iterdir()) == []


@pytest.mark.parametrize("changed", [{"tokenization.max_length": 8}, {"backbone.head_pooling": "first"}], ids=str)
def test_states_of_other_tokens_or_another_pooling_are_not_served(
    settings: dict[str, object], tmp_path: Path, changed: dict[str, object]
) -> None:
    kept = tmp_path / "cache" / "prefix"
    run(settings, tmp_path / "one", "linear-probe", prefix_cache="disk", epochs=1)
    before = set(kept.glob("*.states"))
    run(settings | changed, tmp_path / "two", "linear-probe", prefix_cache="disk", epochs=1)
    assert len(set(kept.glob("*.states")) - before) == len(before) > 0


def test_strategies_that_freeze_the_same_layers_share_their_states(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = []
    fill = prefix_cache._fill

    def counted(states: States, *rest: object) -> None:
        filled.append(states)
        fill(states, *rest)

    monkeypatch.setattr(prefix_cache, "_fill", counted)
    labels = ["partial(layers=1)", "partial(layers=1,learning_rate=0.01)"]
    config = compare_config(None, settings | {"training.epochs": 1, "strategies": labels}, [])
    comparison = transferkit.compare(config, tmp_path / "all")
    assert [result.status for result in comparison.results] == ["finished"] * 2 * len(config.seeds)
    # Training, validation and test rows, once.
    assert len(filled) == 3


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"training.checkpoint_minutes": 1}, "training.checkpoint_minutes has no effect on a comparison"),
        ({"training.prefix_cache": "memory"}, "--prefix-cache memory had no effect"),
    ],
    ids=str,
)
def test_what_has_no_effect_on_a_comparison_is_said(
    settings: dict[str, object], tmp_path: Path, training: dict[str, object], said: str
) -> None:
    log = Log()
    config = compare_config(None, settings | training | {"training.epochs": 1, "strategies": ["full"]}, [])
    try:
        transferkit.compare(config, tmp_path / "all", listener=log)
    except ConfigError as error:
        log.said(str(error))
    assert any(said in line for line in log.lines)


def test_a_comparison_makes_no_folder_its_own_that_others_have_files_in(
    settings: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "project" / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "project" / "thesis.tex").write_text("precious", encoding="utf-8")
    config = compare_config(None, settings | {"training.epochs": 1, "strategies": ["linear-probe"]}, [])
    for overwrite in (False, True):
        with pytest.raises(RunError, match=r"is not empty|leaves it alone"):
            transferkit.compare(config, tmp_path / "project", overwrite=overwrite)
    assert sorted(file.name for file in (tmp_path / "project").iterdir()) == ["runs", "thesis.tex"]


def test_a_finished_run_is_kept_where_another_of_its_strategy_comes_beside_it(
    settings: dict[str, object], tmp_path: Path
) -> None:
    log = Log()
    for labels in (["lora(rank=1)"], ["lora(rank=1)", "lora(rank=2)"], ["lora(rank=2)"]):
        config = compare_config(None, settings | {"training.epochs": 1, "strategies": labels}, [])
        comparison = transferkit.compare(config, tmp_path / "all", listener=log)
        assert [result.status for result in comparison.results] == ["finished"] * len(labels)
    assert [line for line in log.lines if "finished already" in line] == [
        "1 of 2 runs are finished already and are kept.", "1 of 1 runs are finished already and are kept."
    ]  # fmt: skip
    assert sorted(folder.name for folder in (tmp_path / "all" / "runs").iterdir()) == [
        "lora-rank=2-seed0", "lora-seed0"
    ]  # fmt: skip


def test_settings_that_no_run_can_have_remove_no_earlier_comparison(
    settings: dict[str, object], tmp_path: Path
) -> None:
    good = settings | {"training.epochs": 1, "strategies": ["linear-probe"]}
    transferkit.compare(compare_config(None, good, []), tmp_path / "all")
    before = sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*"))
    bad = compare_config(None, good | {"training.keep": "average"}, [])
    with pytest.raises(ConfigError, match=r"training\.keep=average"):
        transferkit.compare(bad, tmp_path / "all", overwrite=True)
    assert sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*")) == before


def test_a_backbone_in_the_folder_that_would_be_overwritten_is_kept(
    settings: dict[str, object], tmp_path: Path
) -> None:
    changed = settings | {"training.epochs": 1, "strategies": ["full"]}
    transferkit.compare(compare_config(None, changed, []), tmp_path / "all")
    before = sorted(file.relative_to(tmp_path) for file in (tmp_path / "all").rglob("*"))
    on_itself = changed | {"backbone.name": str(tmp_path / "all" / "runs" / "full-seed0")}
    message = "The backbone .*full-seed0 is in .*, which would be overwritten; choose another --out"
    with pytest.raises(RunError, match=message):
        transferkit.compare(compare_config(None, on_itself, []), tmp_path / "all", overwrite=True)
    with pytest.raises(RunError, match=message):
        transferkit.train(run_config(None, on_itself, []), tmp_path / "all" / "runs" / "full-seed0", overwrite=True)
    assert sorted(file.relative_to(tmp_path) for file in (tmp_path / "all").rglob("*")) == before


def test_dropout_before_a_head_of_the_backbones_own_is_refused(settings: dict[str, object], tmp_path: Path) -> None:
    changed = settings | {"backbone.head_pooling": "auto", "backbone.head_dropout": 0.3}
    with pytest.raises(ConfigError, match=r"backbone\.head_dropout has no effect: the head is the backbone's own"):
        run(changed, tmp_path / "run", "linear-probe", epochs=1)
    assert not (tmp_path / "run").exists()


def test_a_run_of_lora_says_what_it_learnt_in_its_folder_and_on_its_page(
    settings: dict[str, object], tmp_path: Path
) -> None:
    run(settings, tmp_path / "run", "lora(rank=2)", epochs=1)
    updates = read_lora(tmp_path / "run")
    assert updates is not None
    assert {(module.rank, module.scaling) for module in updates.modules} == {(2, 4.0)}
    assert all(module.update_norm > 0 and 1 <= module.effective_rank <= 2 for module in updates.modules)
    page = tmp_path / "run" / "report.html"
    drawn = page.read_text(encoding="utf-8")
    assert "What LoRA learned" in drawn
    assert updates.plane is not None
    assert f"Plane of the update of {updates.plane.module}" in drawn
    page.unlink()
    api.draw_report(tmp_path / "run")
    assert page.read_text(encoding="utf-8") == drawn


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_capsule_answers_as_it_did_when_a_default_has_changed(
    family: str, backbone: Callable[[str], Path], settings: dict[str, object], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    class Later(LoRA):
        alpha: float = 64.0

    settings["backbone.name"] = str(backbone(family))
    run(settings, tmp_path / "run", "lora(rank=2)", learning_rate=0.01)
    before = transferkit.load(tmp_path / "run").logits([("the film was fine",)])
    monkeypatch.setitem(STRATEGIES, "lora", Later)
    assert np.array_equal(transferkit.load(tmp_path / "run").logits([("the film was fine",)]), before)


@pytest.mark.parametrize("strategy", ["full", "linear-probe", "bottleneck"])
def test_a_run_of_another_strategy_has_no_updates(settings: dict[str, object], tmp_path: Path, strategy: str) -> None:
    run(settings, tmp_path / "run", strategy, epochs=1)
    assert not (tmp_path / "run" / "lora.json").exists()
    assert read_lora(tmp_path / "run") is None
    assert "What LoRA learned" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_strategies_whose_names_differ_in_stars_alone_have_folders_of_their_own(
    settings: dict[str, object], tmp_path: Path
) -> None:
    labels = ["partial(patterns=encoder.layer.*.**)", "partial(patterns=encoder.layer.**.**)"]
    changed = settings | {"training.epochs": 1, "strategies": labels}
    comparison = transferkit.compare(compare_config(None, changed, []), tmp_path / "all")
    assert [result.status for result in comparison.results] == ["finished"] * 2
    assert len({result.run for result in comparison.results}) == 2
    assert {result.strategy for result in comparison.results} == set(labels)


def test_strategies_with_long_options_have_folders_of_names_that_a_disk_takes(
    settings: dict[str, object], tmp_path: Path
) -> None:
    parts = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    patterns = [f"encoder.layer.{layer}.{part}.*" for layer in (0, 1) for part in parts]
    labels = [f"partial(patterns={'+'.join([*patterns, last])})" for last in ("pooler.**", "encoder.layer.1.output.**")]
    changed = settings | {"training.epochs": 1, "strategies": ["linear-probe", *labels]}
    comparison = transferkit.compare(compare_config(None, changed, []), tmp_path / "all")
    assert [(result.strategy, result.status) for result in comparison.results] == [
        (label, "finished") for label in ("linear-probe", *labels)
    ]
    short, *long = (result.run for result in comparison.results)
    assert short == "runs/linear-probe-seed0"
    assert len(set(long)) == 2
    for run_path in long:
        assert re.fullmatch(r"runs/partial-patterns=.{83}-[0-9a-f]{6}-seed0", run_path)
        assert (tmp_path / "all" / run_path / "run.json").is_file()


def test_states_of_another_configuration_of_the_same_weights_are_not_served(
    settings: dict[str, object], tmp_path: Path, backbone: Callable[[str], Path]
) -> None:
    base = tmp_path / "base"
    shutil.copytree(backbone("bert"), base)
    changed = settings | {"backbone.name": str(base), "training.prefix_cache": "disk"}
    run(changed, tmp_path / "one", "linear-probe", epochs=1)
    before = len(list((tmp_path / "cache" / "prefix").glob("*.states")))
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.5}), encoding="utf-8")
    run(changed, tmp_path / "two", "linear-probe", epochs=1)
    assert len(list((tmp_path / "cache" / "prefix").glob("*.states"))) == 2 * before > 0


def test_a_comparison_goes_on_from_the_same_backbone_alone(
    settings: dict[str, object], tmp_path: Path, backbone: Callable[[str], Path]
) -> None:
    base = tmp_path / "base"
    shutil.copytree(backbone("bert"), base)
    changed = settings | {"training.epochs": 1, "strategies": ["linear-probe"], "backbone.name": str(base)}
    transferkit.compare(compare_config(None, changed, []), tmp_path / "all")
    weights = load_file(base / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunError, match="is a run from another backbone"):
        transferkit.compare(compare_config(None, changed, []), tmp_path / "all")


def test_a_comparison_shows_the_updates_of_its_runs_of_lora(settings: dict[str, object], tmp_path: Path) -> None:
    changed = settings | {"training.epochs": 1, "strategies": ["lora", "lora(rank=1)", "linear-probe"]}
    transferkit.compare(compare_config(None, changed, []), tmp_path / "all")
    files = sorted(file.parent.name for file in (tmp_path / "all").rglob("lora.json"))
    assert files == ["lora-rank=1-seed0", "lora-seed0"]
    drawn = (tmp_path / "all" / "report.html").read_text(encoding="utf-8")
    assert drawn.count("Updates by kind of module in ") == 2 * 2  # the caption, and the label of its frame
    assert drawn.count("Plane of the update of") == 2  # the caption and the words of one picture: rank 1 has no plane
