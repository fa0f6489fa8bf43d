"""Backbones of every family load with every head, and a folder that is no backbone is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from transferkit.config import BackboneConfig
from transferkit.errors import BackboneError
from transferkit.models.backbones import (
    choose_pooling,
    load_classifier,
    longest_input,
    pool_first,
    pool_mean,
    read_architecture,
)
from transferkit.models.hub import BackboneFiles, locate

Folders = Callable[[str], Path]
POOLINGS = ("mean", "first", "model")


def copied(folder: Path, target: Path) -> Path:
    return shutil.copytree(folder, target / "model")


def files_in(folder: Path) -> BackboneFiles:
    return BackboneFiles(str(folder), folder)


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def one_sentence(error: pytest.ExceptionInfo[BackboneError]) -> bool:
    message = str(error.value)
    return message.endswith(".") and "\n" not in message and len(message) < 400


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_every_family_gives_logits_that_padding_does_not_change(name: str, pooling: str, backbone: Folders) -> None:
    check_padding(name, pooling, backbone)


@pytest.mark.parametrize(
    ("name", "pooling"), [("bart", "model"), ("t5", "model"), ("xlnet", "mean"), ("xlnet", "first")]
)
def test_so_do_families_with_a_decoder_or_with_relative_positions(name: str, pooling: str, backbone: Folders) -> None:
    check_padding(name, pooling, backbone)


def check_padding(name: str, pooling: str, backbone: Folders) -> None:
    model = tiny.load_model(backbone(name), pooling)
    together = tiny.logits_of(model, tiny.make_batch(backbone(name)))
    assert together.shape == (len(tiny.CORPUS), len(tiny.LABELS))
    if (name, pooling) != ("gpt2", "first"):
        # A causal model knows nothing but the first token there, and two of the texts begin alike.
        assert together.std(0).min() > 0.01, "the rows must differ for the rest to mean anything"
    for row, text in enumerate(tiny.CORPUS):
        alone = tiny.logits_of(model, tiny.make_batch(backbone(name), (text,)))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)


def test_a_head_that_reads_the_last_position_of_a_batch_is_refused(backbone: Folders) -> None:
    with pytest.raises(BackboneError, match=r"head of xlnet, .* which is padding after a shorter text; use") as error:
        tiny.load_model(backbone("xlnet"))
    assert one_sentence(error)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_head_parameters_are_exactly_the_new_ones(name: str, pooling: str, backbone: Folders) -> None:
    model = tiny.load_model(backbone(name), pooling)
    starts = tiny.FAMILIES[name].head if pooling == "model" else ("head.",)
    expected = {key for key, _ in model.named_parameters() if key.startswith(starts)}
    assert expected
    assert model.head_parameters == expected
    # All the others are in the files, and come from there.
    saved = load_file(backbone(name) / "model.safetensors")
    for key, parameter in model.named_parameters():
        if key not in model.head_parameters:
            stem = key.removeprefix("network.")
            source = next(saved[stem[i:]] for i in starts_of_parts(stem) if stem[i:] in saved)
            assert torch.equal(parameter, source), key


def starts_of_parts(name: str) -> list[int]:
    return [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]


def test_a_pooler_that_the_files_lack_is_part_of_the_head(backbone: Folders, tmp_path: Path) -> None:
    folder = copied(backbone("bert"), tmp_path)
    edit_weights(folder, lambda tensors: [tensors.pop(key) for key in list(tensors) if "pooler" in key])
    assert tiny.load_model(folder).head_parameters == {
        "network.bert.pooler.dense.weight",
        "network.bert.pooler.dense.bias",
        "network.classifier.weight",
        "network.classifier.bias",
    }
    assert tiny.load_model(folder, "mean").head_parameters == {"head.1.weight", "head.1.bias"}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_weights_missing_from_the_body_are_refused(pooling: str, backbone: Folders, tmp_path: Path) -> None:
    folder = copied(backbone("bert"), tmp_path)
    edit_weights(folder, lambda tensors: tensors.pop("encoder.layer.1.output.dense.weight"))
    with pytest.raises(BackboneError, match=r"not whole.*encoder\.layer\.1\.output\.dense\.weight") as error:
        tiny.load_model(folder, pooling)
    assert one_sentence(error)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_config_that_does_not_fit_the_weights_is_refused(pooling: str, backbone: Folders, tmp_path: Path) -> None:
    folder = copied(backbone("bert"), tmp_path)
    edit_json(folder / "config.json", vocab_size=7)
    with pytest.raises(BackboneError, match=r"not whole.*word_embeddings"):
        tiny.load_model(folder, pooling)


def test_a_classifier_with_other_classes_gets_a_new_head(backbone: Folders, tmp_path: Path) -> None:
    tiny.load_model(backbone("bert"), labels=("a", "b", "c", "d", "e")).network.save_pretrained(tmp_path)
    shutil.copy(backbone("bert") / "tokenizer.json", tmp_path)
    shutil.copy(backbone("bert") / "tokenizer_config.json", tmp_path)
    model = tiny.load_model(tmp_path, labels=("no", "yes"))
    assert tiny.logits_of(model, tiny.make_batch(tmp_path)).shape == (3, 2)
    assert model.head_parameters == {"network.classifier.weight", "network.classifier.bias"}
    assert model.network.config.id2label == {0: "no", 1: "yes"}


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "first"),
        ({"pooling_mode": "cls"}, "first"),
        ({"pooling_mode_max_tokens": True}, "model"),
        (None, "model"),
    ],
)
def test_auto_pooling_follows_the_models_own_pooling_file(
    declared: dict[str, bool] | None, expected: str, tmp_path: Path
) -> None:
    if declared is not None:
        modules = [{"path": "", "type": "st.Transformer"}, {"path": "1_Pooling", "type": "st.models.Pooling"}]
        (tmp_path / "modules.json").write_text(json.dumps(modules))
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(declared))
    files = files_in(tmp_path)
    assert choose_pooling(files, BackboneConfig()) == expected
    assert choose_pooling(files, BackboneConfig(head_pooling="first")) == "first"


def test_the_built_in_backbone_declares_mean_pooling() -> None:
    assert choose_pooling(locate("minilm"), BackboneConfig()) == "mean"
    assert longest_input(locate("minilm")) == 512


def test_poolings_by_hand() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]])
    mask = torch.tensor([[True, True, False]])
    assert torch.equal(pool_mean(hidden, mask), torch.tensor([[2.0, 4.0]]))
    assert torch.equal(pool_first(hidden, mask), torch.tensor([[1.0, 2.0]]))


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert"])
def test_fingerprint_is_of_the_pretrained_weights_alone(name: str, backbone: Folders, tmp_path: Path) -> None:
    model = tiny.load_model(backbone(name), seed=1)
    other_head = tiny.load_model(backbone(name), labels=("x", "y"), seed=2)
    assert model.fingerprint() == other_head.fingerprint()
    assert len(model.fingerprint()) == 64
    with torch.no_grad():
        next(p for key, p in model.named_parameters() if key in model.head_parameters).add_(1)
    assert model.fingerprint() == other_head.fingerprint()
    with torch.no_grad():
        last = [p for key, p in model.named_parameters() if key not in model.head_parameters][-1]
        last.view(-1)[0] = torch.nextafter(last.view(-1)[0], torch.tensor(torch.inf))
    assert model.fingerprint() != other_head.fingerprint()


def test_heads_drawn_with_one_seed_are_equal(backbone: Folders) -> None:
    batch = tiny.make_batch(backbone("bert"))
    logits = [tiny.logits_of(tiny.load_model(backbone("bert"), seed=seed), batch) for seed in (1, 1, 2)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2], atol=1e-3)


def test_longest_input_knows_the_positions_that_roberta_cannot_use(backbone: Folders) -> None:
    # 66 positions, of which the padding index 1 and the 0 before it are never used.
    assert longest_input(files_in(backbone("roberta"))) == 64
    assert longest_input(files_in(backbone("bert"))) == 64
    assert longest_input(files_in(backbone("gpt2"))) == 64
    model = tiny.load_model(backbone("roberta"))
    for length, fits in ((64, True), (65, False)):
        ids = torch.full((1, length), 9)
        if fits:
            model(input_ids=ids, attention_mask=torch.ones_like(ids, dtype=torch.bool))
        else:
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=ids, attention_mask=torch.ones_like(ids, dtype=torch.bool))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"config.json is missing") as error:
        locate(str(tmp_path))
    assert one_sentence(error)


def test_pickled_weights_are_refused(backbone: Folders, tmp_path: Path) -> None:
    folder = copied(backbone("bert"), tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="no weights as safetensors"):
        locate(str(folder))
    with pytest.raises(BackboneError):
        tiny.load_model(folder)


@pytest.mark.parametrize("content", ["{broken", '{"model_type": "no-such-family"}', "{}", "[]", '{"vocab_size": 7}'])
def test_a_config_that_says_nothing_is_refused(content: str, backbone: Folders, tmp_path: Path) -> None:
    folder = copied(backbone("bert"), tmp_path)
    (folder / "config.json").write_text(content)
    for ask in (read_architecture, longest_input):
        with pytest.raises(BackboneError, match=r"config\.json") as error:
            ask(locate(str(folder)))
        assert one_sentence(error)


def test_a_truncated_weights_file_is_refused(backbone: Folders, tmp_path: Path) -> None:
    folder = copied(backbone("bert"), tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(BackboneError, match="cannot be loaded") as error:
        tiny.load_model(folder)
    assert one_sentence(error)


def test_a_model_that_needs_its_own_code_is_refused(backbone: Folders, tmp_path: Path) -> None:
    folder = copied(backbone("bert"), tmp_path)
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    edit_json(folder / "config.json", model_type="own", auto_map={"AutoConfig": "own.C", "AutoModel": "own.M"})
    with pytest.raises(BackboneError, match="code from its own repository") as error:
        read_architecture(locate(str(folder)))
    assert one_sentence(error)
    assert not ran.exists()


def test_broken_json_beside_the_model_is_refused(backbone: Folders, tmp_path: Path) -> None:
    folder = copied(backbone("bert"), tmp_path)
    (folder / "modules.json").write_text("[{")
    with pytest.raises(BackboneError, match=r"modules\.json is not readable as JSON"):
        tiny.load_model(folder, "auto")


@pytest.mark.parametrize(
    ("settings", "pooling", "reason"),
    [
        ({"model_type": "vit"}, "mean", "does not take text"),
        ({"model_type": "t5"}, "mean", "an encoder and a decoder"),
        ({"model_type": "dpr"}, "model", "no classification head of its own"),
    ],
)
def test_families_that_do_not_fit_are_refused_before_their_weights_are_read(
    settings: dict[str, str], pooling: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config = BackboneConfig.model_validate({"head_pooling": pooling})
    with pytest.raises(BackboneError, match=reason) as error:
        load_classifier(files_in(tmp_path), config, tiny.LABELS, 0)
    assert one_sentence(error)
