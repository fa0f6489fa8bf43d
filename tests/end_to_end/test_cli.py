"""The command line as a user meets it: in a folder with a few files, from comparing to predicting."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import SafetensorError

from tests.end_to_end.conftest import Run
from transferkit import cli

# Small batches and large steps: a random model of 20,000 weights has little to lose.
OPTIONS = [
    "--strategies", "linear-probe,lora,full", "--seeds", "0,1", "--epochs", "5",
    "--set", "training.batch_size=4", "--set", "full.learning_rate=0.003",
]  # fmt: skip


def sentence(word: str, number: int = 7) -> str:
    return f"the film number {number} was {word} , really {word}"


def reviews(path: Path, rows: int = 120) -> Path:
    """A task that a tiny model learns: `good` or `bad` says it all."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "sentiment"])
        for number in range(rows):
            word, label = (("good", "pos"), ("bad", "neg"))[number % 2]
            writer.writerow([sentence(word, number), label])
    return path


@pytest.fixture(scope="session")
def bert(backbone: Callable[[str], Path]) -> Path:
    return backbone("bert")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    """A folder with data and one comparison, made once for the tests that only read it."""
    path = tmp_path_factory.mktemp("user")
    reviews(path / "reviews.csv")
    arguments = ["compare", "--data", path / "reviews.csv", "--backbone", bert, "--out", path / "cmp"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["transferkit", *map(str, [*arguments, *OPTIONS])])
        cli.main()
    return path


def comparison(path: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((path / "comparison.json").read_text(encoding="utf-8"))
    return content


def test_a_comparison_has_the_files_that_others_read(folder: Path) -> None:
    content = comparison(folder / "cmp")
    assert {"schema", "task", "data", "baseline", "results", "pairs", "verdict"} <= content.keys()
    assert [(r["strategy"], r["seed"], r["status"]) for r in content["results"]] == [
        (strategy, seed, "finished") for seed in (0, 1) for strategy in ("linear-probe", "lora", "full")
    ]
    for result in content["results"]:
        run_folder = folder / "cmp" / result["run"]
        assert run_folder.name == f"{result['strategy']}-seed{result['seed']}"
        for name in ("run.json", "results.json", "labels.json", "metrics.jsonl", "model", "tokenizer"):
            assert (run_folder / name).exists(), name
        assert not (run_folder / "checkpoints").exists()
        own = json.loads((run_folder / "results.json").read_text(encoding="utf-8"))
        assert own == result | {"run": "."}
        assert {"accuracy", "f1_macro", "mcc", "log_loss", "ece"} <= result["metrics"].keys()
        assert result["stored_bytes"] > 0
        assert result["peak_memory_bytes"] > 10**7
    assert len(content["pairs"]) == 3
    assert content["verdict"]["use"] in {"linear-probe", "lora", "full"}
    assert (folder / "cmp" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    pickles = [p for p in (folder / "cmp").rglob("*") if p.suffix in {".bin", ".pt", ".pkl", ".pth"}]
    assert pickles == []


def test_something_was_learnt(folder: Path) -> None:
    best = max(r["metrics"]["accuracy"] for r in comparison(folder / "cmp")["results"])
    assert best > 0.9


def test_a_second_call_repeats_nothing(folder: Path, bert: Path, run: Run) -> None:
    weights = folder / "cmp" / "runs" / "full-seed0" / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    answer = run(
        "compare", "--data", folder / "reviews.csv", "--backbone", bert, "--out", folder / "cmp", "--json", *OPTIONS
    )
    assert answer.code == 0
    assert "6 of 6 runs are finished already and are kept" in answer.err
    assert json.loads(answer.out)["verdict"] == comparison(folder / "cmp")["verdict"]
    assert weights.stat().st_mtime_ns == before


def test_a_comparison_is_no_run_to_resume(folder: Path, run: Run) -> None:
    answer = run("train", "--resume", "--out", folder / "cmp")
    assert answer.code == 2
    assert "is a comparison, which goes on when the same `transferkit compare` is called again." in answer.err


def test_other_settings_in_the_same_folder_are_refused(folder: Path, bert: Path, run: Run) -> None:
    answer = run(
        "compare", "--data", folder / "reviews.csv", "--backbone", bert, "--out", folder / "cmp",
        "--strategies", "linear-probe", "--epochs", 1,
    )  # fmt: skip
    assert answer.code == 2
    assert "other settings (training.epochs is 1 here and 5 there)" in answer.err
    assert "--overwrite" in answer.err


def test_other_data_in_the_same_folder_is_refused_whatever_the_strategy(
    folder: Path, bert: Path, run: Run, tmp_path: Path
) -> None:
    answer = run(
        "compare", "--data", reviews(tmp_path / "other.csv", rows=100), "--backbone", bert, "--out", folder / "cmp",
        "--strategies", "bitfit",
    )  # fmt: skip
    assert answer.code == 2
    assert "is a run on other data" in answer.err


def test_runs_side_by_side_show_each_run_in_one_piece(tmp_path: Path, bert: Path, run: Run) -> None:
    answer = run(
        "compare", "--data", reviews(tmp_path / "r.csv"), "--backbone", bert, "--out", tmp_path / "c", "--epochs", 2,
        "--strategies", "linear-probe,lora", "--jobs", 2,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "Report:" in answer.out
    lines = answer.err.splitlines()
    for label in ("linear-probe (seed 0)", "lora (seed 0)"):
        start = lines.index(label)
        heading = next(number for number in range(start, len(lines)) if lines[number].startswith("  Epoch"))
        assert [lines[heading + epoch].split()[0] for epoch in (1, 2)] == ["1", "2"]


def test_a_failing_strategy_stops_no_other(tmp_path: Path, bert: Path, run: Run) -> None:
    reviews(tmp_path / "r.csv")
    answer = run(
        "compare", "--data", tmp_path / "r.csv", "--backbone", bert, "--out", tmp_path / "c", "--epochs", 1,
        "--strategies", "lora(targets=no_such_layer),linear-probe", "--json",
    )  # fmt: skip
    assert answer.code == 0
    failed, finished = json.loads(answer.out)["results"]
    assert failed["status"] == "failed"
    assert "no_such_layer" in failed["error"]
    assert finished["status"] == "finished"


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ("linear_probe", "There is no strategy 'linear_probe'. Did you mean linear-probe?"),
        ("lora(rnk=2)", "strategy lora: there is no setting 'rnk'. Did you mean rank?"),
    ],
)
def test_a_published_figure_of_no_strategy_is_refused(
    tmp_path: Path, bert: Path, run: Run, published: str, message: str
) -> None:
    answer = run(
        "compare", "--data", reviews(tmp_path / "r.csv"), "--backbone", bert, "--out", tmp_path / "c",
        "--set", f'published={{"{published}": 0.64}}',
    )  # fmt: skip
    assert answer.code == 2
    assert message in answer.err.replace("\n", " ")
    assert not (tmp_path / "c").exists()


def test_predict_answers_for_texts_from_everywhere(folder: Path, run: Run) -> None:
    winner = folder / "cmp"
    answer = run("predict", winner, sentence("good"))
    assert (answer.code, answer.out.split("\t")[0]) == (0, "pos")
    one = json.loads(run("predict", winner, sentence("bad"), "--json").out)
    assert one["label"] == "neg"
    assert sum(one["probabilities"].values()) == pytest.approx(1)
    several = run("predict", winner, "-", stdin=f"{sentence('good')}\n{sentence('bad')}\n").out.splitlines()
    assert [line.split("\t")[0] for line in several] == ["pos", "neg"]
    tab, space = (run("predict", winner, "-", "--json", stdin=f"a good{between}film\n").out for between in "\t ")
    assert json.loads(tab)["probabilities"] == json.loads(space)["probabilities"]
    both = json.loads(run("predict", winner, sentence("good"), sentence("bad"), "--json").out)
    assert [answer["label"] for answer in both] == ["pos", "neg"]


def test_a_byte_that_is_no_text_is_refused_with_its_place(folder: Path, run: Run) -> None:
    said = "transferkit: {} holds the byte 0xE9, which is not UTF-8; convert the text to UTF-8.\n"
    winner = folder / "cmp"
    piped = run("predict", winner, "-", stdin=b"good\n\xc3\xa9\ncaf\xe9 good\n")
    assert (piped.code, piped.out, piped.err) == (2, "", said.format("Line 3"))
    given = run("predict", winner, "good", "caf\udce9")
    assert (given.code, given.out, given.err) == (2, "", said.format("Row 2"))
    pair = run("predict", winner, "--pair", "good", "caf\udce9")
    assert (pair.code, pair.err) == (2, said.format("Row 1"))


@pytest.mark.parametrize("options", [[], ["--explain"], ["--json"]])
def test_a_blank_line_among_many_is_refused_with_its_number(folder: Path, run: Run, options: list[str]) -> None:
    piped = run("predict", folder / "cmp", "-", *options, stdin="good\nbad\n  \ngood\n")
    assert (piped.code, piped.out) == (2, "")
    assert piped.err == "transferkit: Line 3 holds an empty text; there is nothing to predict from.\n"
    given = run("predict", folder / "cmp", "good", "", *options)
    assert (given.code, "Row 2 holds an empty text" in given.err) == (2, True)
    unseen = run("predict", folder / "cmp", "good", "\u200b\ufeff", *options)
    assert (unseen.code, "Row 2 holds an empty text" in unseen.err) == (2, True)


def test_what_the_system_refuses_is_said_in_a_sentence(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    answer = run("predict", folder / "cmp", "--file", folder / "reviews.csv", "--out", tmp_path / "new" / "out.csv")
    assert (answer.code, answer.err) == (
        2, f"transferkit: {tmp_path / 'new'}: permission denied; name another place.\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no room is left on the disk; free some"),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "no room is left on the disk; free some",
        ),
        (
            SafetensorError("Error while serializing: I/O error: File too large (os error 27)"),
            "a file would be larger than the disk or `ulimit -f` allows; allow more",
        ),
    ],
    ids=["Arrow", "safetensors", "a limit"],
)
def test_a_full_disk_is_said_in_a_sentence(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("transferkit.api.draw_report", refuse)
    answer = run("report", folder / "cmp")
    assert (answer.code, answer.err) == (2, f"transferkit: {said}, then try again.\n")


def test_a_training_without_room_can_be_gone_on_with(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for command, options in (("train", ()), ("pretrain", ("--vectors", "minilm"))):
        monkeypatch.setattr(f"transferkit.api.{command}", refuse)
        answer = run(command, *options, "--data", folder / "reviews.csv", "--out", tmp_path / "run")
        assert answer.code == 2
        assert answer.err.endswith("begin anew, or go on with train --resume where a training had begun.\n")


def test_predict_writes_a_file_in_the_order_of_the_rows(folder: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert run("predict", folder / "cmp", "--file", folder / "reviews.csv", "--out", out).code == 0
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    assert all(float(r["probability_neg"]) + float(r["probability_pos"]) == pytest.approx(1, abs=1e-5) for r in rows)
    right = [row["predicted_label"] == row["sentiment"] for row in rows]
    assert sum(right) > 100
    again = run("predict", folder / "cmp", "--file", folder / "reviews.csv", "--out", out)
    assert again.code == 2
    assert "exists" in again.err
    lines = run("predict", folder / "cmp", "--file", folder / "reviews.csv", "--json").out.splitlines()
    assert json.loads(lines[0])["predicted_label"] == rows[0]["predicted_label"]


def test_lists_and_objects_of_parquet_are_written(folder: Path, run: Run, tmp_path: Path) -> None:
    nested = {"tags": [["a", "\u00e9"], None], "meta": [{"score": 0.5}, {"score": None}]}
    pq.write_table(pa.table({"review": ["good", "bad"]} | nested), tmp_path / "new.parquet")
    as_csv = run("predict", folder / "cmp", "--file", tmp_path / "new.parquet").out
    rows = list(csv.DictReader(io.StringIO(as_csv)))
    assert [(row["tags"], row["meta"]) for row in rows] == [
        ('["a", "\u00e9"]', '{"score": 0.5}'),
        ("", '{"score": null}'),
    ]
    as_json = run("predict", folder / "cmp", "--file", tmp_path / "new.parquet", "--json").out
    rows = [json.loads(line) for line in as_json.splitlines()]
    assert {name: [row[name] for row in rows] for name in nested} == nested


@pytest.mark.parametrize(
    ("column", "as_csv", "as_json"),
    [
        ("predicted_label", 2, 2),
        ("probability_pos", 2, 0),
        ("probabilities", 0, 2),
        ("probability_other", 0, 0),
    ],
)
def test_no_column_of_the_user_is_replaced(
    folder: Path, run: Run, tmp_path: Path, column: str, as_csv: int, as_json: int
) -> None:
    source, out = tmp_path / "new.csv", tmp_path / "new" / "out"
    source.write_text(f"review,{column}\ngood,mine\n", encoding="utf-8")
    for code, options in ((as_csv, ["--overwrite"]), (as_json, ["--overwrite", "--json"])):
        answer = run("predict", folder / "cmp", "--file", source, "--out", out, *options)
        assert answer.code == code
        assert out.exists() == (code == 0)
        if code:
            assert answer.err == (
                f"transferkit: {source} has a column {column!r} already, which the answers would replace; rename it.\n"
            )
            assert not out.parent.exists()
        else:
            assert "mine" in out.read_text(encoding="utf-8")
            out.unlink()
            out.parent.rmdir()


def test_a_file_that_goes_wrong_halfway_leaves_nothing(folder: Path, run: Run, tmp_path: Path) -> None:
    source, out = tmp_path / "new.csv", tmp_path / "out.csv"
    source.write_text('review\ngood\n" "\n', encoding="utf-8")
    answer = run("predict", folder / "cmp", "--file", source, "--out", out)
    assert answer.code == 2
    assert "line 3" in answer.err
    assert list(tmp_path.iterdir()) == [source]


def test_explain_shows_every_stage(folder: Path, run: Run) -> None:
    answer = run("predict", folder / "cmp", "good film", "--explain")
    assert answer.code == 0
    for stage in ("1. text", "2. tokens", "[CLS]", "3. logits", "4. softmax", "5. label"):
        assert stage in answer.out
    stages = json.loads(run("predict", folder / "cmp", "good film", "--explain", "--json").out)
    assert len(stages["tokens"]) == len(stages["input_ids"])
    assert stages["token_type_ids"] is None


def test_evaluate_scores_new_data(folder: Path, run: Run) -> None:
    answer = run("evaluate", folder / "cmp", "--data", folder / "reviews.csv", "--json")
    assert answer.code == 0
    scores = json.loads(answer.out)
    assert scores["rows"] == 120
    assert scores["metrics"]["accuracy"] > 0.9
    assert "Accuracy" in run("evaluate", folder / "cmp", "--data", folder / "reviews.csv").out


def test_report_draws_the_page_anew(folder: Path, run: Run) -> None:
    page = folder / "cmp" / "report.html"
    before = page.read_text(encoding="utf-8")
    page.unlink()
    assert run("report", folder / "cmp").code == 0
    assert page.read_text(encoding="utf-8") == before
    assert run("report", folder / "cmp" / "runs" / "lora-seed0").code == 0
    assert (folder / "cmp" / "runs" / "lora-seed0" / "report.html").is_file()


def test_a_new_process_gives_the_logits_of_the_end_of_training(folder: Path) -> None:
    """Test rows are scored again from the files alone, for a capsule and for a whole model."""
    import numpy as np

    import transferkit
    from transferkit.config import DataConfig
    from transferkit.data.preparation import prepare
    from transferkit.run_folder import read_predictions

    rows = prepare(DataConfig(source=str(folder / "reviews.csv"))).splits["test"]["text"]
    for strategy in ("linear-probe", "lora", "full"):
        run_folder = folder / "cmp" / "runs" / f"{strategy}-seed0"
        _, logits = read_predictions(run_folder)
        again = transferkit.load(run_folder).logits([(text,) for text in rows])
        np.testing.assert_allclose(again, logits, atol=1e-5)


def test_train_writes_one_run_folder_and_never_over_another(tmp_path: Path, bert: Path, run: Run) -> None:
    reviews(tmp_path / "r.csv")
    arguments = ["train", "--data", tmp_path / "r.csv", "--backbone", bert, "--epochs", 1, "--out", tmp_path / "run"]
    answer = run(*arguments, "--strategy", "bitfit", "--seed", 3, "--json")
    assert answer.code == 0
    assert (json.loads(answer.out)["strategy"], json.loads(answer.out)["seed"]) == ("bitfit", 3)
    assert (tmp_path / "run" / "report.html").is_file()
    refused = run(*arguments)
    assert refused.code == 2
    assert "exists and is not empty" in refused.err
    assert run(*arguments, "--strategy", "partial", "--overwrite").code == 0
    assert run(*arguments[:-1], tmp_path, "--overwrite").code == 2, "a folder with other things is left alone"
    assert (tmp_path / "r.csv").is_file()


def test_the_same_seed_gives_the_same_run_bit_for_bit(tmp_path: Path, bert: Path, run: Run) -> None:
    reviews(tmp_path / "r.csv")
    for name in ("a", "b"):
        answer = run(
            "train", "--data", tmp_path / "r.csv", "--backbone", bert, "--strategy", "full", "--epochs", 1,
            "--precision", "bf16", "--out", tmp_path / name,
        )  # fmt: skip
        assert answer.code == 0
    files = [tmp_path / name / "predictions.safetensors" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_pairs_are_learnt_and_predicted(tmp_path: Path, bert: Path, run: Run) -> None:
    with (tmp_path / "pairs.tsv").open("w", encoding="utf-8") as file:
        file.write("first\tsecond\tsame\n")
        for number in range(80):
            words = ("good", "bad") if number % 2 else ("good", "good")
            file.write(f"film {number} was {words[0]}\tnumber {number} was {words[1]}\t{1 - number % 2}\n")
    out = tmp_path / "run"
    answer = run(
        "train", "--data", tmp_path / "pairs.tsv", "--pair", "first", "second", "--label", "same",
        "--backbone", bert, "--epochs", 1, "--out", out,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert run("predict", out, "--pair", "film was good", "it was good").out.split("\t")[0] in {"0", "1"}
    stages = json.loads(run("predict", out, "--pair", "film was good", "it was good", "--explain", "--json").out)
    assert stages["token_type_ids"] == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert len(run("predict", out, "-", stdin="a\tb\nc\td\n").out.splitlines()) == 2
    single = run("predict", out, "-", stdin="a\tb\nc d\n")
    assert (single.code, "trained on pairs of texts, and line 2 is a single one; put a tab" in single.err) == (2, True)
    blank = run("predict", out, "-", stdin="a\tb\nc\t\n")
    assert (blank.code, "Line 2 holds an empty text" in blank.err) == (2, True)
    refused = run("predict", out, "one text")
    assert refused.code == 2
    assert "pairs of texts" in refused.err


@pytest.mark.parametrize("option", ["--beam", "--best", "--length-penalty", "--temperature", "--seed", "--max-length"])
def test_what_decodes_has_no_effect_on_a_classifier(folder: Path, run: Run, option: str) -> None:
    answer = run("predict", folder / "cmp", "good film", option, 1)
    assert answer.code == 2
    assert f"{option} has no effect on a run of classification." in answer.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--data", "none.csv"], "none.csv"),
        (["compare", "--strategies", "lra"], "Did you mean lora"),
        (["compare", "--set", "training.epoch=1"], "Did you mean epochs"),
        (["compare", "--set", "lora.rnk=1"], "rank"),
        (["compare", "--jobs", "7"], "There are 6 runs, of which 7 cannot be made at once; change --jobs."),
        (["compare", "--seeds", "a"], "'a' is not a whole number"),
        (["compare", "none.yaml"], "There is no recipe file none.yaml"),
        (["compare", "--backbone", "./none"], "There is no folder ./none"),
        (["train", "--out", "x", "--strategy", "peft:nothing"], "PEFT has no method 'nothing'"),
        (["predict", "none", "text"], "There is no run in none"),
        (["predict", "none"], "Give one of TEXT, --pair and --file"),
        (["predict", "none", "text", "--out", "x.csv"], "--out has no effect without --file"),
        (["predict", "none", "--file", "x.csv", "--overwrite"], "--overwrite has no effect without --out"),
        (["evaluate", "none"], "--data is missing"),
        (["report", "none"], "There is no folder none"),
        (["compare", "--no-such-option"], "--no-such-option"),
        (["train"], "--out"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = run(*arguments)
    assert answer.code == 2
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_verb(run: Run) -> None:
    answer = run("--help")
    assert answer.code == 0
    for verb in ("train", "compare", "evaluate", "predict", "report", "export"):
        assert f"\n  {verb} " in answer.out
