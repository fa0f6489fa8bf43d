"""A translation run, loaded: what it takes for its weights, how it computes, and what it says where it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import transferkit
from transferkit import run_folder
from transferkit.config import TranslationConfig
from transferkit.errors import ConfigError, DataError, RunError
from transferkit.inference import translation_answers
from transferkit.inference.translation import load_translator
from transferkit.tokenization.trained import TrainedTokenizer
from transferkit.training.tracking import read_epochs

SIZES = {"width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "feed_forward": 20}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    rows = [f"{a} {b}\t{b} {a}" for a in ("one", "two", "six", "ten") for b in ("cat", "dog", "cow", "hen", "pig")]
    path.write_text("\n".join(["en\tit", *rows]) + "\n", encoding="utf-8")
    return path


def train(pairs: Path, folder: Path, **training: object) -> Path:
    settings: dict[str, Any] = {
        "data": {"source": str(pairs)},
        "tokenizer": {"kind": "word"},
        "model": SIZES,
        "training": {"epochs": 1, "precision": "fp32", **training},
        "decoding": {"beams": 2},
    }
    transferkit.train(TranslationConfig.model_validate(settings), folder)
    return folder


@pytest.fixture(scope="module")
def trained(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(pairs, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run that may be changed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def weights_of(run: Path) -> Path:
    return run / "model" / run_folder.TRANSLATOR_FILE


def test_it_has_the_weights_of_the_file_and_leaves_the_random_numbers_alone(run: Path) -> None:
    before = torch.get_rng_state()
    model = load_translator(run).model
    assert torch.equal(torch.get_rng_state(), before)
    kept = load_file(weights_of(run))
    own = dict(model.named_parameters())
    assert own.keys() == kept.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in kept.items())
    assert model.projection.weight is model.target_embedding.weight is model.source_embedding.weight
    assert not model.training
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"cpu"}


def without(tensors: dict[str, Tensor]) -> None:
    del tensors["encoder.norm.bias"]


def with_more(tensors: dict[str, Tensor]) -> None:
    tensors["encoder.norm.gain"] = torch.ones(16)


def with_a_shape_that_broadcasts(tensors: dict[str, Tensor]) -> None:
    tensors["encoder.norm.weight"] = torch.ones(1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without, r"\(encoder\.norm\.bias is missing\)"),
        (with_more, r"\(encoder\.norm\.gain is not known\)"),
        (with_a_shape_that_broadcasts, r"size mismatch for encoder\.norm\.weight"),
    ],
)
def test_weights_of_another_model_are_refused(run: Path, change: Any, said: str) -> None:
    tensors = load_file(weights_of(run))
    change(tensors)
    save_file(tensors, weights_of(run))
    with pytest.raises(RunError, match=rf"does not hold the weights of this run .*{said}"):
        load_translator(run)


@pytest.mark.parametrize("damaged", [True, False])
def test_a_run_that_lacks_its_weights_says_how_to_have_them(run: Path, damaged: bool) -> None:
    weights_of(run).write_bytes(b"half of a file")
    if not damaged:
        shutil.rmtree(run / "model")
    with pytest.raises(RunError, match=r"train it again with --overwrite\.$"):
        load_translator(run)
    # As after a kill.
    (run / run_folder.RESULT_FILE).unlink()
    with pytest.raises(RunError, match=rf"`transferkit train --resume --out {run}` goes on with it\.$"):
        load_translator(run)
    transferkit.resume(run)
    assert load_translator(run)(["one cat"])


def test_its_folder_is_the_same_from_everywhere(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_translator(run.name).folder == run


def test_a_precision_that_is_none_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no precision 'fp16'; choose auto, fp32 or bf16\."):
        load_translator(run, precision="fp16")  # type: ignore[arg-type]


def test_it_is_trained_scored_and_answers_in_bf16(pairs: Path, tmp_path: Path) -> None:
    folder = train(pairs, tmp_path / "run", precision="bf16")
    assert run_folder.read_translation(folder).compute.precision == "bf16"
    (epoch,) = read_epochs(folder / run_folder.METRICS_FILE)
    assert 0 < epoch.validation_loss < 10
    result = run_folder.read_result(folder)
    assert result.translation is not None
    texts = [one.source for one in result.translation.examples]
    exact, rounded = (load_translator(folder, precision=precision)(texts) for precision in ("fp32", "bf16"))
    assert [own[0].text for own in exact] == [one.predicted for one in result.translation.examples]
    assert [own[0].score for own in rounded] == pytest.approx([own[0].score for own in exact], rel=0.1)
    assert [own[0].score for own in rounded] != [own[0].score for own in exact]


def test_one_text_has_its_translations_and_several_have_theirs(run: Path) -> None:
    predictor = load_translator(run)
    texts = ["one cat", "two dog"]
    several = predictor(texts)
    assert predictor(text for text in texts) == several
    # Scores are rounded by what else is in a batch.
    singly = [predictor(text) for text in texts]
    assert [[one.tokens for one in own] for own in singly] == [[one.tokens for one in own] for own in several]
    assert predictor([]) == []


@pytest.mark.parametrize("other", [None, float("nan"), 1, ["one cat"]])
def test_what_is_not_text_is_refused_with_its_row(run: Path, other: Any) -> None:
    with pytest.raises(DataError, match=r"^Row 2 holds .*, which is not text"):
        load_translator(run)(["one cat", other])


@pytest.mark.parametrize("blank", ["", " \n", "\u200b", "\ufeff"])
def test_what_training_takes_for_blank_has_an_empty_translation(run: Path, blank: str) -> None:
    predictor = load_translator(run)
    [[translated]] = predictor([blank])
    assert (translated.text, translated.ended) == ("", True)
    with pytest.raises(DataError, match="nothing to explain about an empty text"):
        predictor.explain(blank)


@pytest.mark.parametrize("options", [{}, {"best": 2}])
def test_a_translation_of_several_lines_is_printed_in_one(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: dict[str, int]
) -> None:
    def said(as_json: bool) -> str:
        translation_answers.translate_texts(
            run, ["one cat"], translation_answers.Choice(**options), unit="line", precision="fp32", as_json=as_json,
            explained=False,
        )  # fmt: skip
        return capsys.readouterr().out

    monkeypatch.setattr(TrainedTokenizer, "decode", lambda _, rows: ["cat\r\none\ntwo"] * len(rows))
    lines = said(as_json=False).splitlines()
    assert [line.split("\t")[-1] for line in lines] == ["cat one two"] * options.get("best", 1)
    assert json.loads(said(as_json=True))["translations"][0]["text"] == "cat\r\none\ntwo"


def test_pictures_have_a_free_folder_before_anything_is_translated(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a translation that could not be drawn")

    monkeypatch.setattr(translation_answers, "load_translator", load)
    with pytest.raises(RunError, match=r"run exists and is not empty; choose another folder for --attention"):
        translation_answers.translate_texts(
            run, ["one cat"], translation_answers.Choice(), unit="row", precision="auto", as_json=False,
            explained=True, pictures=run,
        )  # fmt: skip
