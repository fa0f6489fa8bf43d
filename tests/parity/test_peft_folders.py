"""LoRA through PEFT's folder format, both ways, with equal logits and the head in it."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests import tiny
from transferkit.adaptation.bottleneck import Bottleneck
from transferkit.adaptation.lora import LoRA
from transferkit.adaptation.peft_format import export_peft, import_peft
from transferkit.errors import AdaptationError, TransferKitError

Folders = Callable[[str], Path]
FAMILIES = tiny.WITH_LINEARS
# The modules of a head. PEFT by itself knows the last one only, and leaves the others to chance.
HEADS = {name: sorted({start.split(".")[1] for start in tiny.FAMILIES[name].head}) for name in FAMILIES}


@torch.no_grad()
def logits(network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    result: Tensor = network.eval()(**batch).logits
    return result


def load_with_peft(base: nn.Module, folder: Path) -> nn.Module:
    with warnings.catch_warnings():
        # PEFT asks every base for an attribute that transformers has deprecated.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        model: nn.Module = PeftModel.from_pretrained(base, folder)
    return model


def trained_by_peft(base: Any, batch: Mapping[str, Tensor], folder: Path, **options: Any) -> Tensor:
    """Train with PEFT, save to `folder`, and give the logits."""
    settings = {"task_type": TaskType.SEQ_CLS, "r": 3, "lora_alpha": 7, "target_modules": ["query"]} | options
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        model = get_peft_model(base, LoraConfig(**settings))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(**batch).logits, torch.arange(3)).backward()
        optimizer.step()
    result = logits(model, batch)
    model.save_pretrained(folder)
    return result


@pytest.mark.parametrize("strategy", [LoRA(rank=3, alpha=5), LoRA(rank=4, alpha=5, rank_stabilised=True)])
@pytest.mark.parametrize("name", FAMILIES)
def test_peft_reads_what_we_write(name: str, strategy: LoRA, backbone: Folders, tmp_path: Path) -> None:
    model, batch = tiny.load_model(backbone(name)), tiny.make_batch(backbone(name))
    untrained = logits(model.network, batch)
    strategy.apply(model)
    tiny.train_steps(model, batch)
    ours = logits(model.network, batch)
    export_peft(model.network, tmp_path, "tiny")
    base = tiny.load_model(backbone(name), seed=5).network
    theirs = logits(load_with_peft(base, tmp_path), batch)
    torch.testing.assert_close(theirs, ours, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(ours, untrained, atol=1e-2)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"], config["task_type"]) == (strategy.rank, "tiny", "SEQ_CLS")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_a_pooler_that_was_new_is_written_too(backbone: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(backbone("bert"), tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "pooler" not in k}, folder / "model.safetensors", {"format": "pt"})
    model, batch = tiny.load_model(folder), tiny.make_batch(folder)
    LoRA().apply(model)
    tiny.train_steps(model, batch)
    export_peft(model.network, tmp_path / "peft", "tiny")
    base = tiny.load_model(folder, seed=5).network
    ours = logits(model.network, batch)
    torch.testing.assert_close(logits(load_with_peft(base, tmp_path / "peft"), batch), ours, atol=1e-6, rtol=1e-5)
    again = tiny.load_model(folder, seed=6).network
    import_peft(again, tmp_path / "peft")
    torch.testing.assert_close(logits(again, batch), ours, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rank_stabilised", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_we_read_what_peft_writes(name: str, rank_stabilised: bool, backbone: Folders, tmp_path: Path) -> None:
    batch = tiny.make_batch(backbone(name))
    family = tiny.FAMILIES[name]
    theirs = trained_by_peft(
        tiny.load_model(backbone(name)).network, batch, tmp_path, use_rslora=rank_stabilised,
        target_modules=[*family.attention, *family.feed_forward], modules_to_save=HEADS[name],
    )  # fmt: skip
    network = tiny.load_model(backbone(name), seed=5).network
    report = import_peft(network, tmp_path)
    torch.testing.assert_close(logits(network, batch), theirs, atol=1e-6, rtol=1e-5)
    trainable = {key for key, p in network.named_parameters() if p.requires_grad}
    assert set(report.trainable_names) == trainable
    assert any("lora_a" in key for key in trainable)
    assert any(key.endswith(("classifier.weight", "out_proj.weight")) for key in trainable)


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
def test_there_and_back_again(name: str, backbone: Folders, tmp_path: Path) -> None:
    model, batch = tiny.load_model(backbone(name)), tiny.make_batch(backbone(name))
    LoRA(rank=2, targets=("layer.1.**",)).apply(model)
    tiny.train_steps(model, batch)
    export_peft(model.network, tmp_path, "tiny")
    network = tiny.load_model(backbone(name), seed=5).network
    import_peft(network, tmp_path)
    assert torch.equal(logits(network, batch), logits(model.network, batch))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"query": 8}}, "rank_pattern"),
        ({"alpha_pattern": {"query": 8}}, "alpha_pattern"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "trains biases"),
        ({"init_lora_weights": "pissa_niter_4"}, "starts from pissa_niter_4, which changes the base"),
        ({"peft_type": "IA3"}, r"holds IA3, not LORA; train with peft:<METHOD>"),
        ({"r": 0}, "rank is 0"),
    ],
)
def test_variants_that_are_not_plain_lora_are_refused(
    change: dict[str, Any], reason: str, backbone: Folders, tmp_path: Path
) -> None:
    exported(backbone("bert"), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TransferKitError, match=reason) as error:
        import_peft(tiny.load_model(backbone("bert")).network, tmp_path)
    assert "\n" not in str(error.value)


def exported(base: Path, folder: Path) -> None:
    model = tiny.load_model(base)
    LoRA(rank=2).apply(model)
    export_peft(model.network, folder, "tiny")


def test_dora_saved_by_peft_is_refused(backbone: Folders, tmp_path: Path) -> None:
    batch = tiny.make_batch(backbone("bert"))
    trained_by_peft(tiny.load_model(backbone("bert")).network, batch, tmp_path, use_dora=True)
    with pytest.raises(AdaptationError, match="uses PEFT's use_dora"):
        import_peft(tiny.load_model(backbone("bert")).network, tmp_path)


def test_lora_on_a_layer_of_the_head_is_refused(backbone: Folders, tmp_path: Path) -> None:
    batch = tiny.make_batch(backbone("modernbert"))
    trained_by_peft(tiny.load_model(backbone("modernbert")).network, batch, tmp_path, target_modules="all-linear")
    with pytest.raises(AdaptationError, match=r"has LoRA on head\.dense, a layer of the head"):
        import_peft(tiny.load_model(backbone("modernbert")).network, tmp_path)


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})


def test_folders_that_do_not_fit_are_refused(backbone: Folders, tmp_path: Path) -> None:
    exported(backbone("bert"), tmp_path)
    with pytest.raises(AdaptationError, match="does not fit DistilBertForSequenceClassification"):
        import_peft(tiny.load_model(backbone("distilbert")).network, tmp_path)
    with pytest.raises(AdaptationError, match=r"classifier\.bias is \(3,\) there and \(2,\) in the model"):
        import_peft(tiny.load_model(backbone("bert"), labels=("no", "yes")).network, tmp_path)
    edit(tmp_path, lambda tensors: tensors.update({"base_model.model.bert.extra": torch.ones(1)}))
    with pytest.raises(AdaptationError, match=r"it has weights for bert\.extra, and the model has not"):
        import_peft(tiny.load_model(backbone("bert")).network, tmp_path)


def test_a_folder_without_the_whole_head_is_refused(backbone: Folders, tmp_path: Path) -> None:
    exported(backbone("bert"), tmp_path / "bert")
    edit(tmp_path / "bert", lambda tensors: [tensors.pop(key) for key in list(tensors) if "classifier" in key])
    with pytest.raises(AdaptationError, match=r"no weights for the head's classifier\.bias"):
        import_peft(tiny.load_model(backbone("bert")).network, tmp_path / "bert")
    batch, folder = tiny.make_batch(backbone("modernbert")), tmp_path / "modernbert"
    trained_by_peft(tiny.load_model(backbone("modernbert")).network, batch, folder, target_modules=["Wqkv"])
    with pytest.raises(AdaptationError, match=r"no weights for the head's head\.dense\.weight; save it with mod"):
        import_peft(tiny.load_model(backbone("modernbert")).network, folder)


def test_folders_that_are_broken_are_refused(backbone: Folders, tmp_path: Path) -> None:
    network = tiny.load_model(backbone("bert")).network
    with pytest.raises(AdaptationError, match="is not a PEFT folder"):
        import_peft(network, tmp_path)
    exported(backbone("bert"), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    with pytest.raises(AdaptationError, match="is not readable"):
        import_peft(network, tmp_path)
    weights.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(AdaptationError, match=r"no adapter_model\.safetensors; other formats can run code"):
        import_peft(network, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(AdaptationError, match="is not readable as JSON"):
        import_peft(network, tmp_path)


def test_only_lora_is_exported(backbone: Folders, tmp_path: Path) -> None:
    model = tiny.load_model(backbone("bert"))
    Bottleneck().apply(model)
    with pytest.raises(AdaptationError, match="no LoRA layers to export"):
        export_peft(model.network, tmp_path / "out", "tiny")
    assert not (tmp_path / "out").exists()
