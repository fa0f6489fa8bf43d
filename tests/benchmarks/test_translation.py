"""All sides of the benchmarks of translation do the same work."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks.twin import twin_of, untrained_twin
from torch import nn

from benchmarks import data, decoding, harness, results_table, translation, translation_quality, translation_training
from transferkit.config import TranslatorConfig
from transferkit.errors import ConfigError
from transferkit.generation.ctranslate2 import export_ctranslate2, library
from transferkit.inference.translation import load_translator
from transferkit.models.lean_translator import LeanTranslator
from transferkit.models.translator import build_translator
from transferkit.tokenization.parallel import Tokenizers
from transferkit.tokenization.trained import TrainedTokenizer
from transferkit.training import precision

TEXTS = ["the red house", "a house by the sea", "the sea is red", "is the house red", "by the red sea a house is"] * 2
SIZES = TranslatorConfig(
    width=16, heads=2, encoder_layers=2, decoder_layers=2, feed_forward=24, dropout=0.0, pre_norm=False
)


@pytest.fixture(scope="module")
def tokenizer() -> TrainedTokenizer:
    return TrainedTokenizer.train(TEXTS, "word")


def setting(tokenizer: TrainedTokenizer, beams: int, sizes: TranslatorConfig = SIZES) -> decoding.Setting:
    torch.manual_seed(3)
    model = build_translator(len(tokenizer), len(tokenizer), **sizes.model_dump()).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return decoding.Setting(model, Tokenizers(tokenizer, tokenizer), beams)


@pytest.mark.parametrize("pre_norm", [True, False])
# Of few tokens, the sources of a batch are of one length, and so their bounds are the same while beams are compared.
@pytest.mark.parametrize(("beams", "budget"), [(1, 10), (1, 1000), (4, 40)])
def test_all_sides_give_the_same_tokens(
    tokenizer: TrainedTokenizer, tmp_path: Path, beams: int, budget: int, pre_norm: bool
) -> None:
    sizes = SIZES.model_copy(update={"pre_norm": pre_norm})
    given = setting(tokenizer, beams, sizes)
    sources = translation_training.ended(tokenizer, TEXTS[:5])
    outputs = decoding.ours(given, LeanTranslator(given.model, "fp32"), sources, budget)
    twin = twin_of(given.model, tokenizer, sizes, 50)
    assert decoding.generated(twin, given.bounds, given.padding, beams, sources, budget) == outputs
    export_ctranslate2(given.model, tokenizer.vocabulary(), tokenizer.vocabulary(), tmp_path)
    translator = library().Translator(str(tmp_path))
    assert decoding.by_ctranslate2(given, translator, sources, budget) == outputs
    assert len({len(output) for output in outputs}) > 1, "they end at different lengths"
    own = [decoding.longest(len(source)) for source in sources]
    assert any(len(output) == most for output, most in zip(outputs, own, strict=True)), "one runs away"


def test_the_textbook_gives_what_greedy_decoding_gives(tokenizer: TrainedTokenizer) -> None:
    given = setting(tokenizer, 1)
    sources = translation_training.ended(tokenizer, TEXTS[:5])
    assert decoding.textbook(given, sources, 0) == decoding.ours(
        given, LeanTranslator(given.model, "fp32"), sources, budget=12
    )


@pytest.mark.parametrize("beams", [1, 4])
def test_the_peer_in_bf16_has_weights_in_it_and_the_others_keep_theirs(
    tokenizer: TrainedTokenizer, tmp_path: Path, beams: int
) -> None:
    given = setting(tokenizer, beams)
    run: Any = SimpleNamespace(precision="bf16", record=SimpleNamespace(config=SimpleNamespace(model=SIZES)))
    searches = decoding._searches(given, run, tmp_path)
    dtypes = {}
    for name in (harness.PEER_BF16, harness.PEER):
        search: Any = searches[name]()
        model = search.args[0].model if beams == 1 else search.args[0]
        dtypes[name] = {parameter.dtype for parameter in model.parameters()}
        assert len(search(translation_training.ended(tokenizer, TEXTS[:2]), 100)) == 2
    assert dtypes == {harness.PEER_BF16: {torch.bfloat16}, harness.PEER: {torch.float32}}
    assert {parameter.dtype for parameter in given.model.parameters()} == {torch.float32}


def test_a_model_that_transformers_has_not_is_refused(tokenizer: TrainedTokenizer) -> None:
    with pytest.raises(ConfigError, match=r"model\.tied=true"):
        untrained_twin(tokenizer, SIZES.model_copy(update={"tied": False}), 50)


def test_quality_counts_equal_outputs(tokenizer: TrainedTokenizer) -> None:
    red, house = (tokenizer.encode([text])[0][0] for text in ("red", "house"))
    found = decoding.quality([(red,), (house, red)], [(red,), (red, house)], tokenizer, ["red", "house red"])
    assert (found["equal_to_peer"], found["mean_tokens"]) == (0.5, 1.5)


def test_batches_of_the_peer_have_as_many_tokens_on_average() -> None:
    assert translation_training.rows_of_a_batch([[0] * 8, [0] * 2], [[0] * 4, [0] * 24], 512) == 512 // 16


@pytest.fixture
def few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the benchmark's name and form, with rows of our own."""
    folder = tmp_path / "en_it"
    folder.mkdir()
    rows = ["en\tit", *(f"{text} {number}\tuna {text} {number}" for number in range(30) for text in TEXTS[:5])]
    with gzip.open(folder / "libreoffice_help.en-it.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(rows) + "\n")
    monkeypatch.setattr(data, "DATA", tmp_path)


def test_the_peer_gets_the_epochs_that_fit() -> None:
    # A quarter of the rows takes 2 s, an epoch 8.
    assert translation_quality.epochs_within(20, 2, trial_rows=25, rows=100) == 2.5


@pytest.mark.usefixtures("few_rows")
def test_both_sides_are_trained_and_scored_on_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = SIZES.model_copy(update={"pre_norm": True})
    monkeypatch.setattr(translation, "MODEL", sizes)
    monkeypatch.setattr(translation_training, "MODEL", SIZES)
    kept = tmp_path / "run"
    translation_quality.main(["--test", "4", "--epochs", "1", "--run", str(kept), "--out", str(tmp_path)])
    result = json.loads((tmp_path / "translation_quality-help-en-it+test=4+epochs=1.json").read_text(encoding="utf-8"))
    ours, peer = result["budget"]["transferkit"], result["budget"]["peer"]
    assert ours["test_rows"] == peer["test_rows"] == 4
    assert ours["parameters"] == pytest.approx(peer["parameters"], rel=0.2)
    assert ours["signatures"] == peer["signatures"]
    assert sum(weights.numel() for weights in load_translator(kept).model.parameters()) == ours["parameters"]
    assert any("0.001; Marian has them after it, and 0.0008" in one for one in result["differences"])
    assert "| help-en-it+test=4+epochs=1, 4 sentences | Marian, Seq2SeqTrainer |" in results_table.render([result])


@pytest.mark.usefixtures("few_rows")
@pytest.mark.parametrize(("search", "native"), [("greedy", True), ("greedy", False), ("beam", True)])
def test_every_side_decodes_beside_the_others_and_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: str, native: bool
) -> None:
    monkeypatch.setattr(precision, "has_native_bf16", lambda: native)
    monkeypatch.setattr(translation, "MODEL", SIZES)
    peaks = iter(range(100, 200))

    def alone(side: Callable[[int], harness.Attempt]) -> int:
        assert side(0).peak_memory_bytes > 0
        return next(peaks)

    monkeypatch.setattr(harness, "peak_alone", alone)
    decoding.main(["--search", search, "--sentences", "5", "--epochs", "1", "--pairs", "1", "--out", str(tmp_path)])
    result = json.loads((tmp_path / f"decoding-{search}+sentences=5+epochs=1.json").read_text(encoding="utf-8"))
    in_fp32 = "transferkit_fp32" if native else "transferkit"
    others = ["transferkit_fp32", "peer_bf16"] if native else []
    names = ["transferkit", "peer", *others, "ctranslate2", "ctranslate2_int8"]
    assert {name for name, side in result.items() if isinstance(side, dict) and "bleu" in side} == set(names)
    assert [result[name]["peak_memory_bytes"] for name in names] == list(range(100, 100 + len(names)))
    # While it searches, generate's bound is that of the longest source of the batch.
    assert search == "beam" or result[in_fp32]["equal_to_peer"] == 1
    assert result["work"]["parameters"] < 50_000, "the sizes of this test"
    assert all(result[name]["ratio_median"] > 0 for name in names[2:] if name != "peer_bf16")


@pytest.mark.usefixtures("few_rows")
def test_memory_of_a_training_is_of_each_side_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation_training, "MODEL", SIZES)
    peaks = iter([7, 8])

    def alone(side: Callable[[int], harness.Attempt]) -> int:
        # What another process is given, and does.
        assert pickle.loads(pickle.dumps(side))(0).seconds > 0
        return next(peaks)

    monkeypatch.setattr(harness, "peak_alone", alone)
    asked = ["--rows", "20", "--pairs", "1", "--peers", "fp32", "--out", str(tmp_path)]
    translation_training.main(asked)
    result = json.loads((tmp_path / "translation_training-help-en-it+rows=20.json").read_text(encoding="utf-8"))
    assert [result[side]["peak_memory_bytes"] for side in (harness.OURS, harness.PEER)] == [7, 8]
    assert all(result[side]["target_tokens_per_second"] > 0 for side in (harness.OURS, harness.PEER))
    assert result["work"]["rows"] == 20


def test_pairs_are_written_as_a_run_reads_them(tmp_path: Path) -> None:
    some = translation.Pairs(["a", "b"], ["c", 'd "e"'])
    config = translation.configuration({"train": some, "validation": some, "test": some}, tmp_path, epochs=2)
    assert Path(config.data.source).read_text(encoding="utf-8") == 'en\tit\na\tc\nb\td "e"\n'
    assert (config.training.epochs, config.model.pre_norm, config.tokenizer.folder) == (2, True, None)
    kept = translation.configuration({"train": some, "validation": some, "test": some}, tmp_path, tmp_path)
    assert kept.tokenizer.folder == str(tmp_path)
