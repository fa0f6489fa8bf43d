"""The page of a translation run, from its files."""

from __future__ import annotations

import re

import pytest

from tests.report.test_page import Reader
from transferkit.config import TranslationConfig
from transferkit.evaluation.results import (
    EpochRecord,
    ParallelFacts,
    RunResult,
    TranslationExample,
    TranslationScores,
)
from transferkit.report import translation_page
from transferkit.run_record import ComputeRecord, TranslationRecord

EXAMPLE = TranslationExample(source="A <b>bold</b> word", target="Una parola <i>", predicted="Una parola & basta")
LENGTHS = {"mean": 21.5, "median": 20.0, "p95": 44.0, "max": 90.0}
FACTS = ParallelFacts(
    source="pairs.tsv", languages=("en", "it"), rows={"train": 900, "validation": 50, "test": 50},
    hashes={"train": "a" * 64, "validation": "b" * 64, "test": "c" * 64}, empty=1, leaked=2,
    too_long={"train": 3, "validation": 0, "test": 0}, max_length=128, vocabularies=(8000, 7500),
    source_tokens=LENGTHS, target_tokens=LENGTHS, unknown=0.01, padding=0.1, notes=("Of 1,000 rows, some were drawn.",),
)  # fmt: skip
RECORD = TranslationRecord(
    created="2026-11-25T20:00:00+00:00", label="translator", config=TranslationConfig(), task="translation",
    tokenizer_hash="d" * 64, compute=ComputeRecord(precision="bf16", attention="fused", threads=2),
    trainable_names=("projection.weight",), total_bytes=30_000_000, data=FACTS, environment={"python": "3.11"},
)  # fmt: skip
SCORES = TranslationScores(
    rows=50, metrics={"bleu": 23.44, "chrf": 48.02}, intervals={"bleu": (22.1, 24.9), "chrf": (47.0, 49.1)},
    signatures={"bleu": "nrefs:1|tok:13a", "chrf": "nrefs:1|nc:6"}, examples=(EXAMPLE,),
)  # fmt: skip
FINISHED = RunResult(
    strategy="scratch", seed=0, run=".", status="finished", trainable_parameters=7_500_000,
    total_parameters=7_500_000, train_seconds=1400.0, evaluate_seconds=20.0, stored_bytes=30_000_000, epochs=2,
    best_epoch=2, precision="bf16", metrics=SCORES.metrics, intervals=SCORES.intervals, translation=SCORES,
)  # fmt: skip
STOPPED = RunResult(strategy="scratch", seed=0, run=".", status="interrupted", epochs=1)
EPOCHS = [
    EpochRecord(
        epoch=n, step=100 * n, learning_rate=1e-3, train_loss=5.0 / n, validation_loss=4.5 / n,
        metrics={"perplexity": 9.0, "bleu": 10.0 * n, "chrf": 20.0 * n}, seconds=60.0, best=True, examples=(EXAMPLE,),
    )
    for n in (1, 2)
]  # fmt: skip


def read(result: RunResult, epochs: list[EpochRecord]) -> tuple[str, Reader]:
    html = translation_page.render(RECORD, result, epochs)
    return html, Reader(html)


def test_scores_stand_with_their_intervals_and_signatures() -> None:
    _, page = read(FINISHED, EPOCHS)
    for said in (
        "BLEU 23.4 on 50 test rows",
        "22.1 \u2013 24.9",
        "47.0 \u2013 49.1",
        "nrefs:1|tok:13a",
        "nrefs:1|nc:6",
    ):
        assert said in page.text.replace("\u00a0", " ")


def test_texts_are_escaped_and_shown_whole() -> None:
    html, page = read(FINISHED, EPOCHS)
    assert "<b>bold" not in html
    for side in (EXAMPLE.source, EXAMPLE.target, EXAMPLE.predicted):
        assert side in page.text


def test_each_text_is_laid_out_in_the_direction_of_its_own_script() -> None:
    _, page = read(FINISHED, EPOCHS)
    texts = [attributes for attributes in page.all("td") if attributes.get("class") == "text"]
    assert [attributes.get("dir") for attributes in texts] == ["auto"] * 3


@pytest.mark.parametrize(("result", "epochs"), [(FINISHED, EPOCHS), (FINISHED, EPOCHS[:1]), (STOPPED, [])])
def test_the_page_loads_nothing_and_its_links_lead_somewhere(result: RunResult, epochs: list[EpochRecord]) -> None:
    html, page = read(result, epochs)
    assert not re.findall(r"https?://(?!www\.w3\.org)", html)
    targets = {attributes.get("id") for _, attributes in page.elements}
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= targets
    assert all(picture.get("role") == "img" and picture.get("aria-label") for picture in page.all("svg"))
    assert translation_page.render(RECORD, result, epochs) == html


def test_a_stopped_run_says_so_and_shows_what_it_reached() -> None:
    _, page = read(STOPPED, EPOCHS[:1])
    assert "There are no scores: the run was interrupted" in page.text
    assert "BLEU 10.0 and chrF 20.0 at epoch 1" in " ".join(svg["aria-label"] for svg in page.all("svg"))


@pytest.mark.parametrize(("result", "rows"), [(FINISHED, "Test"), (STOPPED, "Validation")])
def test_examples_are_of_test_rows_once_these_are_translated(result: RunResult, rows: str) -> None:
    _, page = read(result, EPOCHS)
    assert f"{rows} rows that lie evenly over the data" in page.text
    assert page.text.count("rows that lie evenly over the data") == 1


def test_what_was_left_out_is_counted() -> None:
    _, page = read(FINISHED, EPOCHS)
    assert "train 900 3" in page.text
    assert FACTS.notes[0] in page.text
