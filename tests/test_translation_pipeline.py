"""A translation run from a file to a folder: what it learns, what it keeps, and how it goes on after a stop."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import transferkit
from tests.training.test_checkpoint import Killed
from tests.training.test_loop import Impatient
from transferkit import run_folder, translation_pipeline
from transferkit.config import TranslationConfig
from transferkit.errors import DataError, RunError, TransferKitError
from transferkit.formatting import percent
from transferkit.generation.retrace import read_retraced
from transferkit.inference.translation import load_translator
from transferkit.run_folder import read_result, read_translation
from transferkit.tasks.translation import Translation
from transferkit.tokenization.trained import SPECIAL, TrainedTokenizer
from transferkit.training.loop import Plan
from transferkit.training.optimizer import make_optimizer
from transferkit.training.tracking import Listener, read_epochs
from transferkit.translation_pipeline import mean_loss, prepare_translation

COLOURS = {"red": "rosso", "green": "verde", "white": "bianco", "black": "nero", "yellow": "giallo"}
THINGS = {"cat": "gatto", "book": "libro", "wine": "vino", "bread": "pane", "train": "treno", "dog": "cane"}
SETTINGS = {
    "tokenizer": {"kind": "word"},
    "model": {"width": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "feed_forward": 64, "dropout": 0.0},
    "training": {"epochs": 12, "batch_tokens": 64, "learning_rate": 0.01, "precision": "fp32"},
    "decoding": {"beams": 2},
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences whose adjective goes behind the noun in the other language."""
    lines = ["en\tit"]
    for number, verb in enumerate(("sees", "buys", "likes", "hides")):
        for colour, colore in COLOURS.items():
            for thing, cosa in THINGS.items():
                other = ("vede", "compra", "ama", "nasconde")[number]
                lines.append(f"he {verb} the {colour} {thing}\tlui {other} il {cosa} {colore}")
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def config(pairs: Path, **training: object) -> TranslationConfig:
    changed = {"training": {**SETTINGS["training"], **training}}
    return TranslationConfig.model_validate({"data": {"source": str(pairs)}, **SETTINGS, **changed})


@pytest.fixture(scope="module")
def run(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    transferkit.train(config(pairs), folder)
    return folder


def test_tensorboard_shows_what_the_first_validation_row_looks_at(pairs: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    transferkit.train(config(pairs, epochs=2, tensorboard=True), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    layers = [f"attention/{kind}/layer 1" for kind in ("cross", "decoder", "encoder")]
    assert sorted(events.Tags()["images"]) == layers
    steps = [record.step for record in read_epochs(tmp_path / "run" / "metrics.jsonl")]
    assert all([one.step for one in events.Images(name)] == steps for name in layers)


def test_it_learns_to_translate_sentences_it_has_not_seen(run: Path) -> None:
    result = read_result(run)
    assert result.status == "finished"
    assert result.metrics["bleu"] > 60
    assert result.translation is not None
    assert result.intervals["bleu"][0] <= result.metrics["bleu"] <= result.intervals["bleu"][1]
    epochs = read_epochs(run / "metrics.jsonl")
    assert epochs[-1].validation_loss < 0.5 * epochs[0].validation_loss
    assert {"perplexity", "bleu", "chrf"} == epochs[0].metrics.keys()
    assert len(epochs[0].examples) == 3


def test_it_trains_with_the_adam_of_the_paper(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.AdamW] = []

    def remembered(*arguments: Any) -> torch.optim.AdamW:
        made.append(make_optimizer(*arguments))
        return made[-1]

    monkeypatch.setattr("transferkit.training.loop.make_optimizer", remembered)
    transferkit.train(config(pairs, epochs=1), tmp_path / "run")
    (optimizer,) = made
    assert [(group["betas"], group["eps"]) for group in optimizer.param_groups] == [((0.9, 0.98), 1e-9)] * 2


def test_the_settings_reach_the_model_the_loss_and_the_plan(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def begun(model: nn.Module, task: Translation, _: object, plan: Plan, **__: object) -> None:
        given.update(model=model, task=task, plan=plan)
        raise Killed

    monkeypatch.setattr(translation_pipeline, "fit", begun)
    settings = config(pairs, label_smoothing=0.2, schedule="inverse-sqrt", warmup_ratio=0.3)
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"dropout": 0.3})})
    with pytest.raises(Killed):
        transferkit.train(settings, tmp_path / "run")
    assert given["task"] == Translation(label_smoothing=0.2)
    assert (given["plan"].schedule, given["plan"].warmup_ratio) == ("inverse-sqrt", 0.3)
    assert given["model"].shape.dropout == 0.3


class Log(Listener):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def said(self, message: str) -> None:
        self.lines.append(message)


@pytest.mark.parametrize("joint", [True, False])
def test_the_facts_are_those_of_the_rows_and_are_said(tmp_path: Path, joint: bool) -> None:
    def table(name: str, rows: list[tuple[str, str]]) -> str:
        (tmp_path / name).write_text("en\tit\n" + "".join(f"{one}\t{other}\n" for one, other in rows), encoding="utf-8")
        return str(tmp_path / name)

    rows = [(f"{'very ' * (number % 4)}red cat", "gatto rosso") for number in range(40)]
    # Words that occur once on a side are unknown; a row is longer than ten tokens; and one stands in test as well.
    train = [*rows, ("red zebra", "zebù rosso"), ("very " * 12 + "red", "rosso"), ("green cat", "gatto verde")]
    test = [("green cat", "verde gatto"), ("green dog", "cane verde")]
    settings = config(tmp_path, batch_tokens=10_000).model_dump()
    settings["data"] |= {
        "source": table("train.tsv", train), "test": table("test.tsv", test),
        "validation": table("validation.tsv", [("one", "uno"), ("two", "due")]),
    }  # fmt: skip
    settings["tokenizer"] = {"kind": "word", "max_length": 10, "joint": joint}
    settings["model"]["tied"] = joint
    log = Log()
    facts = prepare_translation(TranslationConfig.model_validate(settings), log).facts

    lengths = [[len(side.split()) + 1 for side in row] for row in train[:-1]]
    sources, targets = ([row[side] for row in lengths] for side in (0, 1))
    for found, own in ((facts.source_tokens, sources), (facts.target_tokens, targets)):
        assert (found["mean"], found["max"]) == (pytest.approx(sum(own) / len(own)), max(own))
    assert facts.unknown == pytest.approx(2 / (sum(sources) + sum(targets)))
    # One batch of the rows that are short enough, each side as long as its longest to a multiple of four.
    real, number = sum(sources) + sum(targets) - (14 + 2), len(lengths) - 1
    assert facts.padding == pytest.approx(1 - real / (number * (8 + 4)))
    known = (len({*SPECIAL, "red", "cat", "very"}), len({*SPECIAL, "gatto", "rosso"}))
    assert facts.vocabularies == ((len(SPECIAL) + 5,) * 2 if joint else known)
    vocabulary = "Vocabulary: 9 entries, joint; " if joint else "Vocabulary: 7 and 6 entries; "
    said = [
        "1 row taken out of train, since the same source or target stands in validation or test.",
        "1 row of train with more than 10 tokens left out.",
        f"{vocabulary}{percent(facts.unknown, 2)} of the tokens are unknown to it.",
        f"Sources have 5 tokens on average, targets 3; padding is {percent(facts.padding)} of the tokens in training",
    ]
    assert [sum(line.startswith(start) for line in log.lines) for start in said] == [1, 1, 1, 1]


def test_sentences_too_short_for_bleu_still_have_a_best_epoch(tmp_path: Path) -> None:
    pairs = [(f"{a} {b}", f"{y} {x}") for a, x in COLOURS.items() for b, y in THINGS.items()]
    table = tmp_path / "pairs.tsv"
    table.write_text("en\tit\n" + "".join(f"{one}\t{other}\n" for one, other in pairs), encoding="utf-8")
    transferkit.train(config(table, epochs=15), tmp_path / "run")
    epochs = read_epochs(tmp_path / "run" / "metrics.jsonl")
    best = epochs[read_result(tmp_path / "run").best_epoch - 1]  # type: ignore[operator]
    assert best.metrics["chrf"] == max(epoch.metrics["chrf"] for epoch in epochs) > 0
    assert best.metrics["bleu"] == 0


def test_a_loaded_run_translates_as_it_was_scored(run: Path) -> None:
    predictor = load_translator(run, precision="fp32")
    translation = read_result(run).translation
    assert translation is not None
    found = predictor([one.source for one in translation.examples])
    assert [own[0].text for own in found] == [one.predicted for one in translation.examples]


def test_the_validation_loss_is_that_of_the_kept_weights(run: Path) -> None:
    record = read_translation(run)
    job = prepare_translation(record.config, Listener())
    predictor = load_translator(run, precision="fp32")
    loss = mean_loss(predictor.model, job.tables["validation"], 64, job.compute, Listener())
    best = read_epochs(run / "metrics.jsonl")[read_result(run).best_epoch - 1]  # type: ignore[operator]
    assert loss == pytest.approx(best.validation_loss, rel=1e-5)


def test_a_finished_run_keeps_no_checkpoint_and_is_safetensors_and_json(run: Path) -> None:
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert files == {
        "attention.safetensors", "metrics.jsonl", "model/translator.safetensors", "report.html", "results.json",
        "run.json", "tokenizer/joint.json",
    }  # fmt: skip
    # What is tied is kept once.
    names = load_file(run / "model" / "translator.safetensors").keys()
    assert len([name for name in names if "embedding" in name or "projection" in name]) == 1
    with pytest.raises(RunError, match="is finished"):
        transferkit.resume(run)


def test_other_tokenizers_than_those_of_the_run_are_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    tokenizer = copy / "tokenizer" / "joint.json"
    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    content["model"]["vocab"]["zebra"] = len(content["model"]["vocab"])
    tokenizer.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunError, match="not those that the run was trained with"):
        load_translator(copy)
    (copy / "model" / "translator.safetensors").write_bytes(b"damaged")
    shutil.copy(run / "tokenizer" / "joint.json", tokenizer)
    with pytest.raises(RunError, match="does not hold the weights of this run"):
        load_translator(copy)


def test_the_attention_of_the_first_example_is_kept(run: Path, tmp_path: Path) -> None:
    one = read_retraced(run / "attention.safetensors")
    translation = read_result(run).translation
    assert translation is not None
    assert list(one.source) == [*translation.examples[0].source.split(), "[EOS]"]
    assert list(one.written) == [*translation.examples[0].predicted.split(), "[EOS]"]
    assert one.given == ("[SOS]", *one.written[:-1])
    (cross,) = one.attentions.cross
    assert cross.shape == (1, 2, len(one.given), len(one.source))
    torch.testing.assert_close(cross.sum(-1), torch.ones(cross.shape[:-1]))
    assert "Attention" in (run / "report.html").read_text(encoding="utf-8")
    (tmp_path / "damaged").write_bytes(b"x")
    with pytest.raises(RunError, match="is damaged"):
        read_retraced(tmp_path / "damaged")


def test_a_long_sentence_is_not_drawn_where_there_is_a_shorter_one(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transferkit.translation_pipeline.MOST_TOKENS", 8)
    rows = ["en\tit", "he sees the red cat the red cat\tlui vede", "the cat\til gatto", "the dog he sees\til cane"]
    (tmp_path / "test.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    asked = config(pairs, epochs=1)
    data = asked.data.model_copy(update={"test": str(tmp_path / "test.tsv")})
    transferkit.train(asked.model_copy(update={"data": data}), tmp_path / "run")
    assert read_retraced(tmp_path / "run" / "attention.safetensors").source == ("the", "cat", "[EOS]")


def test_the_same_seed_gives_the_same_weights(pairs: Path, run: Path, tmp_path: Path) -> None:
    transferkit.train(config(pairs), tmp_path / "again")
    weights = [load_file(one / "model" / "translator.safetensors") for one in (run, tmp_path / "again")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_tokenizers_of_an_earlier_run_are_taken(pairs: Path, run: Path, tmp_path: Path) -> None:
    settings = config(pairs, epochs=1).model_dump() | {"tokenizer": {"folder": str(run)}}
    transferkit.train(TranslationConfig.model_validate(settings), tmp_path / "other")
    assert read_translation(tmp_path / "other").tokenizer_hash == read_translation(run).tokenizer_hash


def test_rows_that_are_too_long_are_refused_if_asked(pairs: Path, tmp_path: Path) -> None:
    strict = config(pairs).model_dump()
    strict["data"]["on_too_long"] = "error"
    strict["tokenizer"] = {"kind": "word", "max_length": 4}
    with pytest.raises(DataError, match="has 6 and 6 tokens, more than --max-length"):
        transferkit.train(TranslationConfig.model_validate(strict), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_after_ctrl_c_the_run_goes_on_to_the_same_weights(pairs: Path, tmp_path: Path) -> None:
    settings = config(pairs, epochs=3, checkpoint_minutes=0)
    transferkit.train(settings, tmp_path / "whole")
    stopped = transferkit.train(settings, tmp_path / "stopped", listener=Impatient(150))
    assert stopped.status == "interrupted"
    assert (tmp_path / "stopped" / "report.html").is_file()
    finished = transferkit.resume(tmp_path / "stopped")
    assert finished.status == "finished"
    assert finished.train_seconds > stopped.train_seconds
    whole, resumed = (load_file(tmp_path / one / "model" / "translator.safetensors") for one in ("whole", "stopped"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert read_result(tmp_path / "whole").metrics == read_result(tmp_path / "stopped").metrics


def test_killed_before_the_result_is_written_it_can_still_go_on(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = run_folder.write_json

    def killed(path: Path, record: object) -> None:
        if path.name == run_folder.RESULT_FILE:
            raise Killed
        write(path, record)

    with monkeypatch.context() as patch:
        patch.setattr("transferkit.run_folder.write_json", killed)
        with pytest.raises(Killed):
            transferkit.train(config(pairs, epochs=2), tmp_path / "run")
    assert transferkit.resume(tmp_path / "run").status == "finished"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_other_data_than_before_is_refused(pairs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pairs.tsv"
    copy.write_bytes(pairs.read_bytes())
    transferkit.train(config(copy, epochs=3, checkpoint_minutes=0), tmp_path / "run", listener=Impatient(150))
    copy.write_text(copy.read_text(encoding="utf-8") + "he sings\tlui canta\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"The data of .* has changed since it began"):
        transferkit.resume(tmp_path / "run")


def test_other_tokenizers_than_before_are_refused(pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    transferkit.train(config(pairs, epochs=3, checkpoint_minutes=0), folder, listener=Impatient(150))
    tokenizer = folder / "tokenizer" / "joint.json"
    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    # Of the same size: the weights would fit.
    vocabulary = content["model"]["vocab"]
    vocabulary["cat"], vocabulary["dog"] = vocabulary["dog"], vocabulary["cat"]
    tokenizer.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunError, match="not those that the run was trained with"):
        transferkit.resume(folder)


def test_it_goes_on_with_the_tokenizers_that_it_began_with(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_anew(*_: object) -> None:
        raise AssertionError("another vocabulary")

    transferkit.train(config(pairs, epochs=3, checkpoint_minutes=0), tmp_path / "run", listener=Impatient(150))
    with monkeypatch.context() as patch:
        patch.setattr(TrainedTokenizer, "train", train_anew)
        assert transferkit.resume(tmp_path / "run").status == "finished"


def test_a_loss_without_a_perplexity_ends_with_advice(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation_pipeline, "mean_loss", lambda *_: 5000.0)
    with pytest.raises(
        TransferKitError, match=r"validation perplexity is inf in epoch 1; lower --set training.learning_rate"
    ):
        transferkit.train(config(pairs, epochs=1), tmp_path / "run")


def test_killed_at_random_steps_it_goes_on_to_the_same_weights(pairs: Path, tmp_path: Path) -> None:
    # Long enough that the training is still going on when it is struck.
    settings = config(pairs, epochs=30, checkpoint_minutes=0)
    # With dropout going on needs the random numbers as well.
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"dropout": 0.1})})
    transferkit.train(settings, tmp_path / "whole")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(settings.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "transferkit", "train"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    delays, arguments = random.Random(0), [str(recipe), "--task", "translation", "--out", str(folder)]
    for _ in range(2):
        _kill_after_a_checkpoint([*command, *arguments], folder, delays.uniform(0, 0.5), environment)
        arguments = ["--resume", "--out", str(folder)]
    subprocess.run([*command, *arguments], check=True, env=environment, capture_output=True)
    whole, resumed = (load_file(one / "model" / "translator.safetensors") for one in (tmp_path / "whole", folder))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def _kill_after_a_checkpoint(command: list[str], folder: Path, delay: float, environment: dict[str, str]) -> None:
    """SIGKILL, a moment after the process has written a checkpoint."""
    state = folder / "checkpoints" / "state.safetensors"
    before = state.stat().st_mtime_ns if state.is_file() else 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (state.is_file() and state.stat().st_mtime_ns > before):
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it finished before it could be killed"
