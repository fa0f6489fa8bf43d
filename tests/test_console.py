"""What a person reads in a terminal, and what a pipe receives."""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from transferkit import console
from transferkit.evaluation.results import ClassificationExample, Comparison, RunResult, TranslationScores

from .report import samples

LONG = "lora(rank=4,alpha=16,targets=query+value)"
MARKED_UP = "No module [red]ffn[/red] matches :smile:"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What is printed to a terminal of the given width, or to a pipe where it is None, with plain spaces and dashes."""

    def show(print_it, width: int | None) -> str:
        settings = {"highlight": False, "markup": False, "emoji": False, "color_system": None}
        terminal = Console(width=width or 80, force_terminal=width is not None, **settings)
        monkeypatch.setattr(console, "OUT", terminal)
        print_it()
        return capsys.readouterr().out.replace("\u00a0", " ").replace("\u2013", "-")

    return show


def six_strategies(train_seconds: float | None = None) -> Comparison:
    runs = [samples.run(name) for name in samples.STRATEGIES]
    if train_seconds is not None:
        runs = [run.model_copy(update={"train_seconds": train_seconds}) for run in runs]
    return samples.compare(runs)


def with_trouble() -> Comparison:
    runs = [
        samples.run(name, seed, collapsed=name == "scratch") for seed in (0, 1) for name in ("full", "scratch", LONG)
    ]
    stopped = RunResult(strategy="partial", seed=0, run="runs/partial-seed0", status="interrupted")
    return samples.compare([*runs, samples.failed("peft:ia3", MARKED_UP), stopped])


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start)).rstrip()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200, None])
@pytest.mark.parametrize("comparison", [six_strategies(), with_trouble()], ids=["six", "trouble"])
def test_nothing_is_cut_at_any_width(shown, comparison: Comparison, width: int | None) -> None:
    text = shown(lambda: console.print_comparison(comparison), width)
    table, _, _ = text.partition("\n\n")
    assert "…" not in text
    assert all(cell_len(line) <= (width or 80) for line in table.splitlines())
    # Names may fold, each letter of them is there.
    squeezed = re.sub(r"\s", "", "".join(line[:26] for line in table.splitlines()))
    for summary in comparison.summaries:
        assert re.sub(r"\s", "", summary.strategy)[:12] in squeezed
        assert f"{100 * summary.accuracy_mean:.1f} %" in table
        assert f"{summary.trainable_parameters:,}" in table


@pytest.mark.parametrize("seconds", [0.4, 104.6, 725.0, 7800.0])
def test_eighty_columns_hold_what_is_needed_to_choose(shown, seconds: float) -> None:
    text = shown(lambda: console.print_comparison(six_strategies(seconds)), 80)
    written = {0.4: "0.4 s", 104.6: "105 s", 725.0: "12 min 5 s", 7800.0: "2 h 10 min"}[seconds]
    cells = ["lora", "81.3 %", "79.4 - 83.3", "81.3 %", "592,130", written, "2.37 MB"]
    assert re.split(r"  +", line_of(text, "lora")) == cells
    assert re.split(r"  +", line_of(text, "majority"))[1:] == ["50.0 %", "-", "33.3 %", "-", "-", "-"]
    assert "300 test rows" in text.splitlines()[0]
    for heading in ("Accuracy", "interval", "F1", "parameters", "Train", "Stored"):
        assert heading in text


def test_more_room_shows_more(shown) -> None:
    narrow, usual, wide, widest = (
        shown(lambda: console.print_comparison(with_trouble()), width) for width in (60, 80, 120, 180)
    )
    assert "Stored" not in narrow
    assert "Stored" in usual
    assert "SD of" not in usual
    assert "SD of" in wide
    assert "MCC" in widest
    assert "memory" in widest


def test_flags_stand_beside_the_numbers_or_below_the_name(shown) -> None:
    usual = shown(lambda: console.print_comparison(with_trouble()), 80).splitlines()
    full = next(index for index, line in enumerate(usual) if line.startswith("full "))
    assert usual[full + 1].strip() == "recommended"
    wide = shown(lambda: console.print_comparison(with_trouble()), 140)
    assert line_of(wide, "full").endswith("recommended")
    assert line_of(wide, "scratch").endswith("collapsed")
    assert line_of(wide, "peft:ia3").endswith("failed")


def test_options_of_a_strategy_fold_after_a_comma(shown) -> None:
    lines = shown(lambda: console.print_comparison(with_trouble()), 80).splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("lora("))
    assert [line[:20].rstrip() for line in lines[first : first + 3]] == [
        "lora(rank=4,", "  alpha=16,targets=", "  query+value)",
    ]  # fmt: skip


def test_trouble_and_the_verdict_follow_the_table_word_for_word(shown) -> None:
    comparison = with_trouble()
    lines = shown(lambda: console.print_comparison(comparison), None).splitlines()
    assert lines[-5:] == [
        "Collapsed: scratch, seed 0. All 300 test rows are answered 'pos'.",
        "Collapsed: scratch, seed 1. All 300 test rows are answered 'pos'.",
        f"Failed: peft:ia3, seed 0. {MARKED_UP}",
        "Interrupted: partial, seed 0.",
        comparison.verdict.reason,
    ]


def test_sentences_wrap_in_a_terminal_and_not_in_a_pipe(shown) -> None:
    comparison = six_strategies()
    reason = "word " * 40 + "end."
    verdict = comparison.verdict.model_copy(update={"reason": reason})
    told = comparison.model_copy(update={"verdict": verdict})
    assert reason in shown(lambda: console.print_comparison(told), None)
    wrapped = shown(lambda: console.print_comparison(told), 80)
    assert max(len(line) for line in wrapped.splitlines()) <= 80
    assert " ".join(wrapped.split()).endswith(reason)


def test_without_any_finished_run_the_failure_is_told(shown) -> None:
    comparison = samples.compare([samples.failed("lora", "boom")]).model_copy(update={"baseline": {}})
    text = shown(lambda: console.print_comparison(comparison), 80)
    assert "Failed: lora, seed 0. boom" in text


def test_scores_of_a_run_stand_beside_the_baseline(shown) -> None:
    text = shown(lambda: console.print_run(samples.run("lora")), 80)
    assert re.split(r"  +", line_of(text, "Accuracy")) == ["Accuracy", "81.3 %", "76.9 - 85.7", "50.0 %"]
    assert re.split(r"  +", line_of(text, "MCC")) == ["MCC", "0.627", "0.583 to 0.671", "0.000"]
    assert re.split(r"  +", line_of(text, "F1 of")) == ["F1 of “pos”", "81.2 %", "-", "66.7 %"]
    assert re.split(r"  +", line_of(text, "neg")) == ["neg", "80.9 %", "82.0 %", "81.5 %", "150", "152"]
    cost = "lora: 592,130 of 23,306,116 parameters trained (2.54 %) in 104 s; 2.37 MB to store."
    assert cost in " ".join(text.split())


def test_long_labels_of_one_beginning_are_told_apart(shown) -> None:
    labels = tuple(f"{'a very long name of a class, ' * 3}{end}" for end in ("first", "second"))
    text = shown(lambda: console.print_run(samples.run("lora", labels=labels)), 120)
    assert len(re.findall(r"a very long name .*first ", text)) == 1
    # The scores of the positive label, and its row among the classes.
    assert len(re.findall(r"a very long name .*second\b", text)) == 2


@pytest.mark.parametrize("width", [60, 80, None])
@pytest.mark.parametrize("label", ["Conditions of employment, wages", "x" * 80, "\u65e5\u672c\u8a9e" * 7])
def test_a_long_label_folds_and_cuts_no_number(shown, label: str, width: int | None) -> None:
    text = shown(lambda: console.print_run(samples.run("lora", labels=("other", label))), width)
    metrics, classes, _ = text.split("\n\n")
    assert all(cell_len(line) <= (width or 80) for line in text.rpartition("\n\n")[0].splitlines())
    assert re.split(r"  +", line_of(metrics, "Accuracy"))[1:] == ["81.3 %", "76.9 - 85.7", "50.0 %"]
    assert re.split(r"  +", line_of(metrics, "MCC"))[1:] == ["0.627", "0.583 to 0.671", "0.000"]
    assert re.split(r"  +", line_of(metrics, "F1 of"))[1:] == ["81.2 %", "-", "66.7 %"]
    assert re.split(r"  +", line_of(classes, label[:6]))[1:] == ["81.8 %", "80.7 %", "81.2 %", "150", "148"]
    for table in (metrics, classes):
        names = "".join(re.split(r"  +", line)[0] for line in table.splitlines())
        assert label[:20].replace(" ", "") in names.replace(" ", "")


def test_a_collapse_and_an_interruption_are_told(shown) -> None:
    collapsed = shown(lambda: console.print_run(samples.run("lora", collapsed=True)), None)
    assert "Collapsed: All 300 test rows are answered 'pos'." in collapsed.splitlines()
    stopped = samples.run("lora").model_copy(update={"scores": None, "status": "interrupted"})
    assert "The run was interrupted before it was scored." in shown(lambda: console.print_run(stopped), None)


def test_text_of_the_data_is_not_markup(shown) -> None:
    label = "[bold]:smile:[/nonsense]\n"
    text = shown(lambda: console.print_run(samples.run("lora", labels=(label, "b"))), None)
    assert "[bold]:smile:[/nonsense]" in line_of(text, "[bold]")


def test_epochs_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    ((_, records),) = samples.histories([samples.run("lora")], epochs=12).items()
    with console.progress() as listener:
        for record in [*records[:-1], records[-1].model_copy(update={"seconds": 725.0})]:
            listener.epoch_ended(record)
    heading, *lines = capsys.readouterr().err.replace("\u00a0", " ").splitlines()
    columns = ["Epoch", "Training loss", "Validation loss", "Accuracy", "Macro F1", "Time"]
    assert re.split(r"  +", heading.strip()) == columns
    ends = [heading.index(column) + len(column) for column in columns]
    assert len(lines) == 12
    assert all(line[end - 1] != " " and line[end : end + 1] in ("", " ") for line in lines for end in ends)
    first = records[0]
    shares = [f"{100 * first.metrics['accuracy']:.1f} %", f"{100 * first.metrics['f1_macro']:.1f} %"]
    losses = [f"{first.train_loss:.3f}", f"{first.validation_loss:.3f}"]
    assert re.split(r"  +", lines[0].strip()) == ["1", *losses, *shares, "12.5 s"]
    assert lines[-1].endswith("12 min 5 s  best")
    assert max(map(len, lines)) <= 80


def test_the_epochs_of_every_run_have_a_heading_and_those_that_go_on_too(capsys: pytest.CaptureFixture[str]) -> None:
    ((_, records),) = samples.histories([samples.run("lora")], epochs=3).items()
    with console.progress() as listener:
        for label, own in (("first", records), ("gone on with", records[1:])):
            listener.started(label, 10)
            for record in own:
                listener.epoch_ended(record)
    begins = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert begins == ["first", "Epoch", "1", "2", "3", "gone", "Epoch", "2", "3"]


def test_scores_of_a_translation_stand_with_intervals_and_signatures(shown) -> None:
    scores = TranslationScores(
        rows=50, metrics={"bleu": 23.44, "chrf": 48.02}, intervals={"bleu": (22.1, 24.9), "chrf": (47.0, 49.1)},
        signatures={"bleu": "nrefs:1|tok:13a", "chrf": "nrefs:1|nc:6"}, examples=(),
    )  # fmt: skip
    text = shown(lambda: console.print_translation(scores), 80)
    assert text.startswith("50 test rows")
    assert re.split(r"  +", line_of(text, "BLEU ")) == ["BLEU", "23.4", "22.1 - 24.9"]
    assert re.split(r"  +", line_of(text, "chrF ")) == ["chrF", "48.0", "47.0 - 49.1"]
    assert text.splitlines()[-2:] == ["BLEU: nrefs:1|tok:13a", "chrF: nrefs:1|nc:6"]


def test_the_texts_of_a_classifier_are_left_to_tensorboard(capsys: pytest.CaptureFixture[str]) -> None:
    ((_, (record, *_)),) = samples.histories([samples.run("lora")]).items()
    one = ClassificationExample(text=("a long review",), label="pos", predicted="neg", probability=0.75)
    with console.progress() as listener:
        listener.epoch_ended(record.model_copy(update={"examples": (one,)}))
    assert "review" not in capsys.readouterr().err


def test_log_lines_reach_a_pipe_whole(capsys: pytest.CaptureFixture[str]) -> None:
    message = "The text column is " + "'a very long name' " * 12 + MARKED_UP
    with console.progress() as listener:
        listener.planned(10)
        listener.started("lora [x] (seed 0)", 10)
        listener.advanced(10)
        listener.said(message)
    written = capsys.readouterr()
    assert written.err.splitlines() == ["lora [x] (seed 0)", message]
    assert written.out == ""


def test_a_terminal_shows_the_bars_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(force_terminal=True, width=100, markup=False, emoji=False, highlight=False, record=True)
    monkeypatch.setattr(console, "LOG", terminal)
    with terminal.capture() as captured, console.progress() as listener:
        listener.planned(20)
        listener.started("lora [x] (seed 0)", 10)
        listener.advanced(5)
    text = captured.get()
    for words in ("all runs", "lora [x] (seed 0)", "left:"):
        assert words in text
