"""A whole benchmark at the smallest size, with the real libraries on both sides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import data, finetune, grid, peer, recipe
from transferkit.environment import cache_folder

# What TransferKit reports of its side, most of it in the README's table; backbone minilm, two classes.
TRAINABLE = {
    "scratch": 22_566_146,
    "linear-probe": 770,
    "partial": 3_549_698,
    "bitfit": 26_498,
    # Query, value: 6 layers x 2 x (384 + 384) x 8.
    "lora": 6 * 2 * 768 * 8 + 770,
    "bottleneck": 565_538,
    "full": 22_566_146,
}


def splits_of_three() -> data.Splits:
    rows = data.Rows([("film",), ("film " * 5,), ("film " * 4,)], ["a", "b", "a"])
    return data.Splits("some", rows, rows, rows)


@pytest.mark.slow
def test_finetune_writes_every_field(tmp_path: Path) -> None:
    if not data.DATA.is_dir() and "CI" not in os.environ:
        pytest.skip(f"{data.DATA} with the MRPC files is not on this machine; set TRANSFERKIT_DATA")
    options = "--strategy linear-probe --rows 32 --test-rows 16 --epochs 1 --pairs 1 --peers fp32 --out"
    command = [sys.executable, "-m", "benchmarks.finetune", *options.split(), str(tmp_path)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=data.ROOT)
    result = json.loads(answer.stdout)
    written = tmp_path / "finetune-linear-probe+rows=32+test_rows=16+epochs=1.json"
    assert result == json.loads(written.read_text(encoding="utf-8"))
    assert result["ratio_median"] > 0
    assert result["target"] == 25
    for side in ("transferkit", "peer"):
        assert 0 <= result[side]["quality"]["accuracy"] <= 1
        assert result[side]["peak_memory_bytes"] > 1e8
    assert result["transferkit"]["share_of_peak"]["share"] > 0
    assert 0 <= result["transferkit"]["padding_share"] < 0.5


@pytest.mark.parametrize(
    ("asked", "unusual"),
    [
        ("", ""),
        ("--epochs 3 --rows 400", ""),
        ("--epochs 10", "+epochs=10"),
        ("--strategy linear-probe --epochs 10", ""),
        ("--strategy linear-probe --epochs 3", "+epochs=3"),
        ("--strategy partial --rows 3500 --last-layers 4", "+rows=3500+last_layers=4"),
        ("--strategy partial --last-layers 2 --test-rows 8", "+test_rows=8"),
    ],
)
def test_what_is_usual_is_so_of_a_strategy(asked: str, unusual: str) -> None:
    assert finetune.parse(asked.split()).unusual == unusual


def test_last_layers_are_of_partial_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        finetune.parse(["--strategy", "lora", "--last-layers", "2"])
    assert "--last-layers has no effect on lora" in capsys.readouterr().err


def test_every_training_of_ours_computes_its_states_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "prefix").mkdir()
    (tmp_path / "measured.json").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path))
    found: list[list[str]] = []

    def seen(*_: object) -> tuple[SimpleNamespace, None]:
        found.append([path.name for path in cache_folder().iterdir()])
        (cache_folder() / "prefix").mkdir()
        (cache_folder() / "measured.json").write_text("{}\n", encoding="utf-8")
        return SimpleNamespace(train_seconds=1.0), None

    def stopped(*_: object, **__: object) -> None:
        seen()
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "train_ours", seen)
    finetune.ours(recipe.of_strategy("partial", epochs=1), splits_of_three(), 0)
    monkeypatch.setattr(grid.transferkit, "compare", stopped)
    with pytest.raises(KeyboardInterrupt):
        grid.ours(splits_of_three(), 1, [0], 1, 0)
    assert found == [["measured.json"], ["measured.json"]]
    assert cache_folder() == tmp_path
    assert (tmp_path / "measured.json").read_text(encoding="utf-8") == "{}\n"
    assert list((tmp_path / "prefix").iterdir()) == []


# PEFT asks the model by a name that transformers has deprecated.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("strategy", list(TRAINABLE))
def test_the_peer_trains_as_many_parameters(quiet_libraries: None, strategy: str) -> None:
    model = peer.build(recipe.of_strategy(strategy, epochs=1), classes=2)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == TRAINABLE[strategy]


def test_padding_is_that_of_the_batches_that_train(quiet_libraries: None) -> None:
    # 3, 7 and 6 tokens with the marks: batches are as long as a multiple of four, and never above the longest of all.
    splits = splits_of_three()
    alike = recipe.of_strategy("lora", epochs=1)
    assert finetune.padding_share(alike, splits) == pytest.approx(1 - 16 / 21)
    assert finetune.padding_share(replace(alike, batch_size=1), splits) == pytest.approx(1 - 16 / (4 + 7 + 7))
