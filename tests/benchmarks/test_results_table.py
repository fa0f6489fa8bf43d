"""The page of results from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results_table
from transferkit.errors import DataError

DASH = results_table.DASH
MINUS = "\N{MINUS SIGN}"


def fake(**changes: Any) -> dict[str, Any]:
    side = {"seconds": [1.0] * 5, "median": 1.0, "peak_memory_bytes": 900_000_000, "quality": None}
    quality = {"accuracy": 0.81, "accuracy_interval": [0.7, 0.9], "f1": 0.86}
    return {
        "schema": "transferkit/benchmark/1",
        "name": "finetune",
        "variant": "lora",
        "work": {"data": "mrpc", "rows": 1400, "epochs": 3, "batch": 32},
        "target": 4.0,
        "ratio_median": 4.256,
        "ratio_min": 4.1,
        "ratio_max": 4.5,
        "target_bf16": 2.0,
        "ratio_bf16_median": 2.2,
        "ratio_bf16_min": 2.1,
        "ratio_bf16_max": 2.3,
        "transferkit": side | {"quality": quality},
        "peer": side,
        "environment": {"processor": "Some CPU", "cores": 2, "packages": {"torch": "2.13.0", "peft": None}},
        "threads": 1,
        "date": "2026-01-02T03:04:05+00:00",
    } | changes


SCALE = {key: value for key, value in fake(name="scale", variant="x").items() if key not in ("transferkit", "peer")} | {
    "work": {"sizes": [1000, 4000]},
    "stages": {"prepare": {"seconds_growth": {"slope": 2e-5, "max_deviation": 0.04}, "bytes_per_row": 512.4}},
}


def write(folder: Path, *results: dict[str, Any]) -> Path:
    for number, result in enumerate(results):
        (folder / f"{number}.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


def test_a_row_says_what_was_measured_where() -> None:
    text = results_table.render([fake(), fake(variant="full", target=None, ratio_bf16_median=None), SCALE])
    lines = text.splitlines()
    assert lines[2] == (
        f"| finetune lora | mrpc, 1,400 rows, 3 epochs, batch 32 | Trainer + PEFT | 4.26 (4.10 {DASH} 4.50) | 4 "
        f"| 2.20 (2.10 {DASH} 2.30) | 2 | 81.0 % (70.0 {DASH} 90.0) / {DASH} | 900 MB / 900 MB | 1 |"
    )
    assert "| finetune full |" in lines[3]
    assert f"| prepare | 1,000 {DASH} 4,000 | 2.00e-05 | 4 % | 512 | 1 |" in lines
    assert lines[-1] == "1. Some CPU, 2 cores, 1 thread; torch 2.13.0; 2026-01-02"


def test_a_peer_has_peft_only_where_it_trains_with_it() -> None:
    strategies = ("lora", "lora+rows=3500", "full", "partial", "linear-probe", "bottleneck")
    named = {strategy: results_table.row(fake(variant=strategy), 1)[2] for strategy in strategies}
    assert [strategy for strategy, peer in named.items() if peer == "Trainer + PEFT"] == ["lora", "lora+rows=3500"]
    assert set(named.values()) == {"Trainer + PEFT", "Trainer"}
    assert results_table.row(fake(name="grid"), 1)[2] == "Trainer + PEFT"


def test_one_epoch_is_no_epochs() -> None:
    assert results_table.row(fake(work={"rows": 1500, "epochs": 1}), 1)[1] == "1,500 rows, 1 epoch"


def test_batches_of_other_sizes_are_told_apart() -> None:
    work = {"rows": 1500, "batch_tokens": 4096}
    assert results_table.row(fake(work=work), 1)[1] == "1,500 rows, 4,096 tokens a batch"


def test_a_row_of_few_pairs_says_how_many_there_were() -> None:
    def pairs(number: int) -> list[str]:
        return results_table.row(fake(transferkit=fake()["transferkit"] | {"seconds": [1.0] * number}), 1)

    assert (pairs(1)[3], pairs(1)[5]) == ("4.26 (one pair)", "2.20 (one pair)")
    assert pairs(3)[3] == f"4.26 (4.10 {DASH} 4.50, 3 pairs)"
    assert pairs(5)[3] == f"4.26 (4.10 {DASH} 4.50)"


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ([-0.021, 0.004], f"; {MINUS}1.0 ({MINUS}2.1 to +0.4)"),
        ([-0.021, -0.004], f"; {MINUS}1.0 ({MINUS}2.1 to {MINUS}0.4), significantly worse"),
        ([0.0, 0.0], f"; {MINUS}1.0 (0.0 to 0.0)"),
    ],
)
def test_the_interval_of_the_difference_says_whether_ours_is_worse(interval: list[float], said: str) -> None:
    paired = {"mcnemar_p": 0.001, "difference": -0.01}
    assert results_table.row(fake(paired=paired), 1)[7] == f"81.0 % (70.0 {DASH} 90.0) / {DASH}"
    cell = results_table.row(fake(paired=paired | {"difference_interval": interval}), 1)[7]
    assert cell == f"81.0 % (70.0 {DASH} 90.0) / {DASH}{said}"


def test_without_the_peer_in_fp32_the_difference_is_to_that_in_bf16() -> None:
    result = fake(paired_bf16={"mcnemar_p": 1.0, "difference": 0.02, "difference_interval": [0.01, 0.03]})
    result["peer_bf16"] = result.pop("peer")
    assert results_table.row(result, 1)[7].endswith("; +2.0 (+1.0 to +3.0)")


def test_every_side_that_decodes_has_a_row() -> None:
    said = {"equal_to_peer": 0.996, "mean_tokens": 21.26, "bleu": 16.789}
    work = {"data": "help", "rows": 500, "true_mean_tokens": 25.0}
    ours = fake()["transferkit"] | said
    result = fake(name="decoding", variant="beam", work=work, transferkit=ours, peer=ours | {"median": 4.0})
    text = results_table.render([result | {"ctranslate2_int8": said | {"median": 0.5}}])
    assert "| decoding beam | help, 500 rows | generate |" in text
    assert "| beam | transferkit | 500.0 | 99.6 % | 21.3 (25.0) | 16.79 |" in text
    assert "| beam | generate | 125.0 | 99.6 % |" in text
    assert "| beam | ctranslate2 in int8 | 1,000.0 | 99.6 % |" in text
    assert "| beam+sentences=9 | generate |" in results_table.render([result | {"variant": "beam+sentences=9"}])


def test_a_folder_of_another_machine_has_tables_of_its_own(tmp_path: Path) -> None:
    (write(tmp_path, fake()) / "without-bf16").mkdir()
    with pytest.raises(DataError, match=r"no results in .*without-bf16"):
        results_table.render_folders(tmp_path)
    other = fake(ratio_median=1.9)
    write(tmp_path / "without-bf16", other)
    text = results_table.render_folders(tmp_path)
    assert text == f"{results_table.render([fake()])}\n\n### Without bf16\n\n{results_table.render([other])}"


def test_the_block_of_a_page_is_replaced_and_the_rest_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Before\n\n<!-- results:start -->\nold\n<!-- results:end -->\n\nafter\n", encoding="utf-8")
    folder = tmp_path / "results"
    folder.mkdir()
    write(folder, fake(), {"schema": "another"})
    results_table.main([str(page), "--results", str(folder)])
    once = page.read_text(encoding="utf-8")
    results_table.main([str(page), "--results", str(folder)])
    assert page.read_text(encoding="utf-8") == once
    assert once.startswith("# Before\n\n<!-- results:start -->\n| Benchmark |")
    assert once.endswith("<!-- results:end -->\n\nafter\n")
    assert "old" not in once


def test_print_leaves_the_page_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results_table.main(["--print", "--results", str(write(tmp_path, fake()))])
    assert capsys.readouterr().out.startswith("| Benchmark |")


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(DataError, match="no block from"):
        results_table.replace_block("# Page", "table")


def test_no_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run a benchmark first"):
        results_table.main(["--print", "--results", str(tmp_path)])
