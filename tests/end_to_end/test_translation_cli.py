"""Translation on the command line: train, predict, and what is refused."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Run
from transferkit.formatting import percent

SMALL = [
    "--set", "tokenizer.kind=word", "--set", "model.width=32", "--set", "model.heads=2", "--set",
    "model.feed_forward=64", "--set", "model.encoder_layers=1", "--set", "model.decoder_layers=1", "--set",
    "training.batch_tokens=64", "--set", "training.learning_rate=0.01", "--set", "model.dropout=0",
    "--precision", "fp32",
]  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    numbers = {"one": "uno", "two": "due", "three": "tre", "four": "quattro", "five": "cinque", "six": "sei"}
    colours = {"red": "rosso", "green": "verde", "white": "bianco", "black": "nero", "yellow": "giallo"}
    things = {"cat": "gatto", "book": "libro", "wine": "vino", "bread": "pane", "train": "treno", "dog": "cane"}
    rows = [(f"{a} {b} {c}", f"{x} {z} {y}") for a, x in numbers.items() for b, y in colours.items()
            for c, z in things.items()]  # fmt: skip
    path.write_text("en\tit\n" + "".join(f"{one}\t{other}\n" for one, other in rows), encoding="utf-8")
    return path


@pytest.fixture
def trained(run: Run, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, trained once for the whole module."""
    folder = tmp_path_factory.getbasetemp() / "translator"
    if not folder.is_dir():
        answer = run("train", "--task", "translation", "--data", pairs, "--epochs", 15, *SMALL, "--out", folder)
        assert answer.code == 0, answer.err
        assert "BLEU" in answer.out
        assert "predicted" in answer.err
    return folder


def test_a_text_is_translated(run: Run, trained: Path) -> None:
    assert run("predict", trained, "one red cat").out.strip() == "uno gatto rosso"
    assert run("predict", trained, "-", stdin="six green dog\nfour black book\n").out.split("\n")[:2] == [
        "sei cane verde", "quattro libro nero",
    ]  # fmt: skip


def test_several_translations_have_scores(run: Run, trained: Path) -> None:
    lines = run("predict", trained, "one red cat", "--beam", 4, "--best", 3).out.strip().split("\n")
    scores = [float(line.split("\t")[0]) for line in lines]
    assert len(lines) == 3
    assert scores == sorted(scores, reverse=True)


def test_json_and_unknown_words_and_no_words(run: Run, trained: Path) -> None:
    answers = json.loads(run("predict", trained, "one zebra cat", "one quagga cat", "", "--json").out)
    texts = [answer["translations"][0]["text"] for answer in answers]
    # All that is unknown is one token.
    assert texts[0] == texts[1]
    assert texts[0].split()[:2] == ["uno", "gatto"]
    assert texts[2] == ""
    explained = json.loads(run("predict", trained, "one zebra cat", "--explain", "--json").out)
    assert explained["tokens"] == ["one", "[UNK]", "cat", "[EOS]"]
    assert explained["translation"] == texts[0]


def test_what_was_cut_off_is_said(run: Run, trained: Path, tmp_path: Path) -> None:
    assert "cut off" not in run("predict", trained, "one red cat", "two green dog").err
    cut = run("predict", trained, "one red cat", "", "--max-length", 2)
    assert cut.out.split("\n")[0] == "uno gatto"
    assert "cut off before their end: 1 of 2 translations; give them more tokens with --max-length." in cut.err
    answers = json.loads(run("predict", trained, "one red cat", "", "--json", "--max-length", 2).out)
    assert [answer["translations"][0]["ended"] for answer in answers] == [False, True]
    explained = run("predict", trained, "one red cat", "--explain", "--json", "--max-length", 2)
    answer = json.loads(explained.out)
    assert (answer["target_tokens"], answer["ended"]) == (["uno", "gatto"], False)
    assert len(answer["attention"]) == 2
    assert "cut off before their end: 1 of 1 translations" in explained.err
    source = tmp_path / "in.csv"
    source.write_text("en\none yellow train\nfive white wine\n", encoding="utf-8")
    of_file = run("predict", trained, "--file", source, "--json", "--max-length", 2)
    assert [json.loads(line)["ended"] for line in of_file.out.splitlines()] == [False, False]
    assert "cut off before their end: 2 of 2 translations" in of_file.err


def test_the_length_penalty_is_an_exponent_of_the_length(run: Run, trained: Path) -> None:
    def score(penalty: int) -> float:
        answer = run("predict", trained, "one red cat", "--length-penalty", penalty, "--json")
        return float(json.loads(answer.out)["translations"][0]["score"])

    assert score(0) == pytest.approx(score(2) * 4**2)


def test_every_step_is_shown(run: Run, trained: Path) -> None:
    shown = run("predict", trained, "one red cat", "--explain").out
    for stage in ("1. source", "2. tokens (4)", "3. target, token by token", "5. translation: uno gatto rosso"):
        assert stage in shown
    answer = json.loads(run("predict", trained, "one red cat", "--explain", "--json").out)
    assert answer["target_tokens"] == ["uno", "gatto", "rosso", "[EOS]"]
    assert all(0 < share <= 1 for share in answer["probabilities"])
    # A row for each token of the target, a share for each of the source.
    assert [len(row) for row in answer["attention"]] == [len(answer["tokens"])] * len(answer["target_tokens"])
    assert [sum(row) for row in answer["attention"]] == pytest.approx([1.0] * 4, abs=1e-5)
    most = max(answer["attention"][0])
    assert f"{answer['tokens'][answer['attention'][0].index(most)]} {percent(most, 0)}" in shown


def test_where_it_looks_is_drawn(run: Run, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    assert run("predict", trained, "one red cat", "--explain", "--attention", folder).code == 0
    kinds = [f"{kind}-layer1{head}" for kind in ("cross", "decoder", "encoder") for head in ("", "-head1", "-head2")]
    assert sorted(path.stem for path in folder.iterdir()) == sorted(kinds)
    assert "<svg" in (folder / "cross-layer1-head1.svg").read_text(encoding="utf-8")
    again = run("predict", trained, "one red cat", "--explain", "--attention", folder)
    assert (again.code, "exists and is not empty" in again.err) == (2, True)
    alone = run("predict", trained, "one red cat", "--attention", tmp_path / "other")
    assert (alone.code, "--attention has an effect with --explain" in alone.err) == (2, True)


def test_it_is_exported_to_ctranslate2_and_compared(run: Run, trained: Path, tmp_path: Path) -> None:
    answer = run("export", trained, "--to", "ctranslate2", "--out", tmp_path / "ct2")
    assert answer.code == 0, answer.err
    assert "CTranslate2 gives the same tokens for 100.0\u00a0% of 9 sentences by greedy decoding" in answer.out
    import ctranslate2

    library = ctranslate2.Translator(str(tmp_path / "ct2"))
    assert library.translate_batch([["one", "red", "cat"]])[0].hypotheses[0] == ["uno", "gatto", "rosso"]
    wrong = run("export", trained, "--to", "peft", "--out", tmp_path / "peft")
    assert (wrong.code, "is a run of translation" in wrong.err) == (2, True)


def test_an_export_that_fails_leaves_nothing(
    run: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("transferkit.generation.ctranslate2.compare_ctranslate2", fail)
    answer = run("export", trained, "--to", "ctranslate2", "--out", tmp_path / "exported" / "ct2")
    assert (answer.code, "no room is left on the disk" in answer.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_translated_in_its_order(run: Run, trained: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("id,en\n1,one yellow train\n2,five white wine\n", encoding="utf-8")
    assert run("predict", trained, "--file", source, "--out", out).code == 0
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["translation"] for row in rows] == ["uno treno giallo", "cinque vino bianco"]
    assert [row["id"] for row in rows] == ["1", "2"]
    assert run("predict", trained, "--file", source, "--out", out).code == 2
    answer = run("predict", trained, "--file", source, "--out", tmp_path, "--overwrite")
    assert answer.code == 2
    assert "is a folder; name a file" in answer.err


def test_a_row_without_a_text_has_an_empty_translation(run: Run, trained: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,en\n1,\n2,five white wine\n", encoding="utf-8")
    answer = run("predict", trained, "--file", source)
    assert [row["translation"] for row in csv.DictReader(answer.out.splitlines())] == ["", "cinque vino bianco"]


@pytest.mark.parametrize(
    ("column", "options", "code"),
    [("translation", [], 2), ("translation", ["--json"], 2), ("ended", ["--json"], 2), ("ended", [], 0)],
)
def test_no_column_of_the_user_is_replaced(
    run: Run, trained: Path, tmp_path: Path, column: str, options: list[str], code: int
) -> None:
    source = tmp_path / "in.csv"
    source.write_text(f"en,{column}\none red cat,mine\n", encoding="utf-8")
    answer = run("predict", trained, "--file", source, *options)
    assert (answer.code, "mine" in answer.out) == (code, code == 0)
    assert (f"in.csv has a column {column!r} already, which the answers would replace" in answer.err) == (code == 2)


def test_a_translator_reads_one_column(run: Run, trained: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("en,de\none,eins\n", encoding="utf-8")
    answer = run("predict", trained, "--file", source, "--column", "en", "--column", "de")
    assert (answer.code, answer.out) == (2, "")
    assert "reads single texts, and --column names 'en', 'de'; name one column with it." in answer.err


def test_a_tab_in_a_line_is_part_of_the_text(run: Run, trained: Path) -> None:
    piped, given = run("predict", trained, "-", stdin="one\tred\n"), run("predict", trained, "one red")
    assert piped.out == given.out


def test_there_is_a_line_out_for_each_line_in(run: Run, trained: Path) -> None:
    assert run("predict", trained, "-", stdin=b"one red\rcat\r\n\ntwo black dog\n").out.split("\n") == [
        "uno gatto rosso", "", "due cane nero", "",
    ]  # fmt: skip


def test_a_byte_that_is_no_text_is_refused_with_its_place(run: Run, trained: Path) -> None:
    piped = run("predict", trained, "-", stdin=b"one\ncaf\xe9\n")
    assert (piped.code, "Line 2 holds the byte 0xE9, which is not UTF-8" in piped.err) == (2, True)
    given = run("predict", trained, "caf\udce9", "--explain")
    assert (given.code, "Row 1 holds the byte 0xE9, which is not UTF-8" in given.err) == (2, True)


def test_a_blank_text_has_an_empty_translation(run: Run, trained: Path) -> None:
    assert json.loads(run("predict", trained, " ", "--json").out)["translations"][0]["text"] == ""
    assert "nothing to explain" in run("predict", trained, " ", "--explain").err


def test_words_can_be_drawn(run: Run, trained: Path) -> None:
    answer = run("predict", trained, "one red cat", "--temperature", "0.5", "--top-k", 3, "--top-p", "0.9")
    assert answer.code == 0
    assert answer.out.strip()


def test_what_was_drawn_is_drawn_again_with_its_seed(run: Run, trained: Path) -> None:
    def drawn(seed: int) -> str:
        return run("predict", trained, "one red cat", "two black dog", "--temperature", 5, "--seed", seed).out

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--backbone", "minilm"], "backbone.name has no effect on --task translation"),
        (["--strategy", "lora"], "strategy has no effect on --task translation"),
        (["--label", "it"], "data.label has no effect on --task translation"),
        (["--set", "model.tied=true", "--set", "tokenizer.joint=false"], "model.tied needs one vocabulary"),
        (["--set", "model.heads=3"], "cannot be divided among 3 heads"),
        (["--set", "training.class_weights=balanced"], "there is no setting 'training.class_weights'"),
        (["--pair", "en", "fr"], "no column or language 'fr'"),
        (["--resume"], "has no effect with --resume"),
    ],
)
def test_what_has_no_effect_is_refused(run: Run, pairs: Path, tmp_path: Path, options: list[str], said: str) -> None:
    answer = run("train", "--task", "translation", "--data", pairs, "--out", tmp_path / "run", *options)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pair", "a", "b"], "--pair has no effect on a translation"),
        (["one", "--best", "3", "--beam", "2"], "--best 3 is more than the 2 hypotheses"),
        (["one", "--beam", "2", "--top-k", "3"], "choose one"),
        (["one", "--temperature", "-1"], "A temperature is finite and at least 0.0001"),
        (["one", "--temperature", "0"], "A temperature is finite and at least 0.0001"),
        (["one", "--temperature", "nan"], "A temperature is finite and at least 0.0001"),
        (["one", "--beam", "2", "--length-penalty", "inf"], "A length penalty is from -10 to 10"),
        (["one", "--best", "2", "--explain"], "--best has no effect with --explain, which takes the best"),
        (["--file", "in.csv", "--best", "2"], "--best has no effect with --file, which takes the best"),
        (["one", "--seed", "1"], "--seed has no effect where no word is drawn"),
        (["one", "--beam", "1", "--length-penalty", "2"], "--length-penalty has no effect on a search of one"),
        (["one", "--top-p", "0.5", "--length-penalty", "2"], "choose one"),
        (["one", "--max-length", "0"], "Invalid value for '--max-length'"),
        (["", "--explain"], "nothing to explain about an empty text"),
    ],
)
def test_what_cannot_be_translated_is_refused(run: Run, trained: Path, options: list[str], said: str) -> None:
    answer = run("predict", trained, *options)
    assert (answer.code, said in answer.err) == (2, True), answer.err


def test_the_second_of_two_files_needs_the_first(run: Run, tmp_path: Path) -> None:
    answer = run("train", "--task", "translation", "--target-data", "t.it", "--out", tmp_path / "run")
    assert (answer.code, "--target-data (target_file) needs --data (source)" in answer.err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_rows_that_are_too_long_are_refused_if_asked(run: Run, pairs: Path, tmp_path: Path) -> None:
    longer = tmp_path / "pairs.tsv"
    longer.write_text(pairs.read_text(encoding="utf-8") + "one very red cat\tuno\n" * 2, encoding="utf-8")
    options = ["--task", "translation", "--data", longer, *SMALL, "--epochs", 1, "--max-length", 4]
    answer = run("train", *options, "--on-too-long", "error", "--out", tmp_path / "run")
    assert (answer.code, "has 5 and 2 tokens, more than --max-length allows; raise it" in answer.err) == (2, True)
    assert not (tmp_path / "run").exists()
    dropped = run("train", *options, "--on-too-long", "drop", "--out", tmp_path / "run")
    assert (dropped.code, "with more than 4 tokens left out." in dropped.err) == (0, True)


def test_verbs_for_classifiers_say_what_a_translator_is(run: Run, trained: Path, pairs: Path) -> None:
    answer = run("evaluate", trained, "--data", pairs)
    assert (answer.code, "is a run of translation" in answer.err) == (2, True)


def test_there_is_nothing_to_resume(run: Run, tmp_path: Path) -> None:
    answer = run("train", "--resume", "--out", tmp_path)
    assert (answer.code, f"There is no run in {tmp_path} to go on with" in answer.err) == (2, True)


def test_a_folder_that_is_no_run_is_named_before_any_option(run: Run, tmp_path: Path) -> None:
    for options in (["--beam", 4], ["--explain", "--attention", tmp_path / "maps"]):
        answer = run("predict", tmp_path / "translatr", "Hello", *options)
        assert (answer.code, f"There is no run in {tmp_path / 'translatr'}" in answer.err) == (2, True)
