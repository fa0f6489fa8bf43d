"""The command line: one thin verb per capability.

Heavy libraries are imported where a verb needs them, so that `--help` answers at once.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from transferkit import __version__
from transferkit.errors import ConfigError, TransferKitError
from transferkit.options import (
    DATA_SETTINGS,
    ENCODER_SETTINGS,
    OF_BACKBONES,
    TRAINING_SETTINGS,
    TRANSLATION_SETTINGS,
    Command,
    Setting,
    by_path,
    setting_options,
)

if TYPE_CHECKING:
    from transferkit.evaluation.results import RunResult


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="transferkit")
def app() -> None:
    """Adapt a pretrained text model to your data in every way, compare the ways honestly, keep the best."""


def training_options(command: Command) -> Command:
    """The options that `train` and `compare` share."""
    return _training_options(command, TRAINING_SETTINGS)


def _training_options(command: Command, settings: list[Setting]) -> Command:
    command = click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")(command)
    command = click.option("--overwrite", is_flag=True, help="Replace what an earlier run left in --out.")(command)
    command = click.option(
        "--set", "assignments", multiple=True, metavar="SECTION.FIELD=VALUE",
        help="Any setting, such as training.batch_size=16 or lora.rank=8; may be repeated.",
    )(command)  # fmt: skip
    command = setting_options(*DATA_SETTINGS, *settings)(command)
    return click.argument("recipe", required=False, type=click.Path(path_type=Path))(command)


@app.command()
@training_options
@setting_options(*TRANSLATION_SETTINGS)
@click.option("--task", type=click.Choice(["classification", "translation"]), help="classification unless said.")
@click.option("--resume", is_flag=True, help="Go on with the stopped run in --out; it has its own settings.")
@click.option(
    "--strategy",
    help="scratch, linear-probe, partial, bitfit, bottleneck, lora, full or peft:METHOD, with options if need be: "
    "'lora(rank=8)'; else lora.",
)
@click.option("--seed", type=int, help="Of initial weights, order of rows and dropout.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run folder to write.")
def train(
    recipe: Path | None, task: str | None, resume: bool, strategy: str | None, seed: int | None, out: Path,
    assignments: tuple[str, ...], overwrite: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Train one classifier, or one translator, into one run folder.

    RECIPE is a YAML file of settings. Without --data it takes film reviews that are built in, of a translation short
    pairs of sentences.
    """
    from transferkit import api, console
    from transferkit.settings import run_config, task_of, translation_config

    settings = by_path(options)
    if resume:
        _refuse_with_resume(settings | {"recipe": recipe, "--task": task, "--strategy": strategy, "--seed": seed,
                                        "--set": assignments or None, "--overwrite": overwrite or None})  # fmt: skip
        with console.progress() as listener:
            result = api.resume(out, listener=listener)
    else:
        config: Any
        if task_of(recipe, task) == "translation":
            config = translation_config(recipe, settings | {"strategy": strategy, "seed": seed}, assignments)
        else:
            seeds = None if seed is None else [seed]
            settings |= {"strategies": None if strategy is None else [strategy], "seeds": seeds}
            config = run_config(recipe, settings, assignments)
        with console.progress() as listener:
            result = api.train(config, out, overwrite=overwrite, listener=listener)
    _show_run(result, out, as_json)


def pretraining_options(command: Command) -> Command:
    """Those that `pretrain` shares with `train`, and those of the encoder."""
    shared = [setting for setting in TRAINING_SETTINGS if setting[0] not in OF_BACKBONES]
    return _training_options(setting_options(*ENCODER_SETTINGS)(command), shared)


@app.command()
@pretraining_options
@click.option("--seed", type=int, help="Of initial weights, order of rows and dropout.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run folder to write.")
def pretrain(
    recipe: Path | None, seed: int | None, out: Path, assignments: tuple[str, ...], overwrite: bool, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Train a new text encoder from word vectors, into a run folder that --backbone takes.

    RECIPE is a YAML file of settings. Without --data it takes film reviews that are built in.
    """
    from transferkit import api, console
    from transferkit.settings import pretrain_config

    config = pretrain_config(recipe, by_path(options) | {"seed": seed}, assignments)
    with console.progress() as listener:
        result = api.pretrain(config, out, overwrite=overwrite, listener=listener)
    _show_run(result, out, as_json)


@app.command()
@training_options
@click.option("--strategies", help="Separated by commas: scratch,linear-probe,'lora(rank=8)',peft:dora; else six.")
@click.option("--seeds", help="Separated by commas: 0,1,2; else 0.")
@click.option("--out", type=click.Path(path_type=Path), default="runs/comparison", show_default=True,
              help="The folder to write.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True,
              help="Runs to make at once, each in a process and memory of its own.")  # fmt: skip
def compare(
    recipe: Path | None, strategies: str | None, seeds: str | None, out: Path, jobs: int,
    assignments: tuple[str, ...], overwrite: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Compare strategies x seeds on the same data, and say what to use.

    Called again it goes on where it was stopped: finished runs are kept. RECIPE is a YAML file of settings. Without
    --data it takes film reviews that are built in.
    """
    from transferkit import api, console
    from transferkit.settings import compare_config, split_list

    settings = by_path(options) | {
        "strategies": None if strategies is None else split_list(strategies),
        "seeds": None if seeds is None else [_whole_number(text, "--seeds") for text in seeds.split(",")],
    }
    config = compare_config(recipe, settings, assignments)
    with console.progress() as listener:
        comparison = api.compare(config, out, overwrite=overwrite, jobs=jobs, listener=listener)
    if as_json:
        click.echo(comparison.model_dump_json(by_alias=True, indent=2))
    else:
        console.print_comparison(comparison)
        click.echo(f"Report: {out / 'report.html'}")


@app.command()
@click.argument("run", type=click.Path(path_type=Path))
@setting_options(*DATA_SETTINGS)
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def evaluate(run: Path, as_json: bool, **options: Any) -> None:
    """Score a run on new labelled data, which --data names.

    RUN is the folder of a run, or of a comparison, which stands for the run that it recommends.
    """
    from transferkit import api, console
    from transferkit.config import DataConfig
    from transferkit.parsing import build

    settings = {path.removeprefix("data."): value for path, value in by_path(options).items() if value is not None}
    if "source" not in settings:
        raise ConfigError("--data is missing: name the labelled rows to score the run on.")
    with console.progress() as listener:
        scores = api.evaluate(run, build(DataConfig, settings, "settings"), listener=listener)
    if as_json:
        click.echo(scores.model_dump_json(indent=2))
    else:
        console.print_scores(scores)


@app.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, metavar="[TEXT|-]...")
@click.option("--pair", nargs=2, metavar="TEXT TEXT", help="A pair, for a run that was trained on pairs.")
@click.option("--file", "source", type=click.Path(path_type=Path), help="Rows to predict: CSV, TSV, JSONL, Parquet.")
@click.option("--column", "columns", multiple=True, help="The text column of --file; twice for a pair.")
@click.option("--encoding", help="Of --file; UTF-8 unless said.")
@click.option("--quoting", type=click.Choice(["auto", "csv", "none"]), default="auto", help="Of --file.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where the rows of --file go, as CSV; else standard output."
)
@click.option("--overwrite", is_flag=True, help="Replace --out.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    help="auto: bf16 where the processor has it; fp32: the logits of the end of training.",
)
@click.option(
    "--attention",
    "pictures",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Translation, with --explain: draw where each layer and head looks.",
)
@click.option("--beam", type=click.IntRange(1), help="Translation: hypotheses of the search; 1 is greedy.")
@click.option("--best", type=click.IntRange(1), help="Translation: so many translations of each text, with scores.")
@click.option("--length-penalty", type=float, help="Translation: of the search; higher favours longer translations.")
@click.option("--temperature", type=float, help="Translation: draw words; below 1 likely ones are likelier.")
@click.option("--top-k", type=int, help="Translation: draw from the so many likeliest words.")
@click.option("--top-p", type=float, help="Translation: draw from the likeliest words of this probability together.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Translation: of the words drawn, to draw them again.")
@click.option("--max-length", type=click.IntRange(1, 10_000), help="Translation: the most tokens, its end among them.")
@click.option("--json", "as_json", is_flag=True, help="JSON: one object, a list, or a line for each row of --file.")
@click.option("--explain", is_flag=True, help="Show each stage: text, tokens, logits or attention, answer.")
def predict(
    run: Path, texts: tuple[str, ...], pair: tuple[str, str] | None, source: Path | None, columns: tuple[str, ...],
    encoding: str | None, quoting: Literal["auto", "csv", "none"], out: Path | None, overwrite: bool,
    precision: Literal["auto", "fp32", "bf16"], as_json: bool, explain: bool, pictures: Path | None,
    **decoding: Any,
) -> None:  # fmt: skip
    """Label or translate texts; `-` reads them from standard input, one a line (a pair: two with a tab between).

    RUN is the folder of a run, or of a comparison, which stands for the run that it recommends.
    """
    from transferkit import run_folder
    from transferkit.inference import answers

    given = [name for name, value in (("TEXT", texts), ("--pair", pair), ("--file", source)) if value]
    if len(given) != 1:
        raise ConfigError(f"Give one of TEXT, --pair and --file{': not ' + ' and '.join(given) if given else ''}.")
    file_options = {"--column": columns, "--encoding": encoding, "--quoting": quoting != "auto", "--out": out}
    for name, value in file_options.items():
        if value and source is None:
            raise ConfigError(f"{name} has no effect without --file.")
    if overwrite and out is None:
        raise ConfigError("--overwrite has no effect without --out.")
    if explain and precision != "auto":
        raise ConfigError("--explain always computes in fp32; --precision has no effect with it.")
    if explain and source is not None:
        raise ConfigError("--explain shows single texts; it has no effect with --file.")
    chosen = {name: value for name, value in decoding.items() if value is not None}
    from_file: dict[str, Any] = {
        "precision": precision, "columns": columns, "encoding": encoding, "quoting": quoting, "out": out,
        "overwrite": overwrite, "as_json": as_json,
    }  # fmt: skip
    from_texts: dict[str, Any] = {
        "unit": "line" if texts == ("-",) else "row", "precision": precision, "as_json": as_json, "explained": explain,
    }  # fmt: skip
    run = run_folder.resolve(run)
    is_translation = run_folder.is_translation(run)
    if pictures is not None and not (explain and is_translation):
        raise ConfigError("--attention has an effect with --explain and a translation run alone; leave it out.")
    if is_translation:
        from transferkit.inference import translation_answers as translations

        choice = translations.Choice(**chosen)
        if pair:
            raise ConfigError("--pair has no effect on a translation; give single texts.")
        if source is not None:
            translations.translate_file(run, source, choice, **from_file)
        else:
            lines = answers.read_texts(texts, sys.stdin)
            translations.translate_texts(run, lines, choice, pictures=pictures, **from_texts)
        return
    if chosen:
        raise ConfigError(f"--{next(iter(chosen)).replace('_', '-')} has no effect on a run of classification.")
    if source is not None:
        answers.predict_file(run, source, **from_file)
    else:
        rows: Any = [pair] if pair else answers.read_texts(texts, sys.stdin)
        answers.predict_texts(run, rows, **from_texts)


@app.command()
@click.argument("folder", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Draw the report of a run or a comparison anew from its files."""
    from transferkit import api

    click.echo(api.draw_report(folder))


@app.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "form",
    type=click.Choice(["transformers", "peft", "openvino-int8", "ctranslate2"]),
    required=True,
    help="transformers: merged, for AutoModelForSequenceClassification; peft: LoRA for PeftModel; "
    "openvino-int8: a run folder that predicts in 8-bit integers, measured on the test rows; "
    "ctranslate2: a translator, compared on test rows.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write.")
def export(run: Path, form: str, out: Path) -> None:
    """Write a run in the format of another library.

    RUN is the folder of a run, or of a comparison, which stands for the run that it recommends.
    """
    from transferkit.inference.export import FORMATS, export_to_ctranslate2
    from transferkit.inference.predictor import load_whole

    said = export_to_ctranslate2(run, out) if form == "ctranslate2" else FORMATS[form](load_whole(run), out)
    if said:
        click.echo(said)
    click.echo(out)


def main() -> None:
    """Run the command line; a user's mistake ends it with one sentence and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a letter is no reason to fail; a file takes all of them, and keeps them.
            encoding = None if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")
    try:
        app(standalone_mode=False)
    except TransferKitError as error:
        _stop(str(error), 2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _stop("stopped; what was finished is kept", 130)
    except Exception as error:
        said = _of_the_machine(error, command=sys.argv[1])
        if said is None:
            raise
        _stop(said, 2)


# Arrow and safetensors raise errors of their own, with the words of the system in them.
_NO_ROOM = {
    os.strerror(errno.ENOSPC): "no room is left on the disk; free some",
    os.strerror(errno.EFBIG): "a file would be larger than the disk or `ulimit -f` allows; allow more",
}


def _of_the_machine(error: Exception, command: str) -> str | None:
    """What to say of no room, no right, or a file in the place of a folder; None of what is no such thing."""
    for words, said in _NO_ROOM.items():
        if words in str(error):
            resumes = command in ("train", "pretrain")
            again = "begin anew, or go on with train --resume where a training had begun" if resumes else "try again"
            return f"{said}, then {again}."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or 'cannot be used').lower()}; name another place."
    return None


def _stop(message: str, code: int) -> None:
    click.echo(f"transferkit: {message}", err=True)
    sys.exit(code)


def _show_run(result: RunResult, out: Path, as_json: bool) -> None:
    """Print what a run reached; one that was stopped ends the command as stopped."""
    from transferkit import console

    if as_json:
        click.echo(result.model_dump_json(by_alias=True, indent=2))
    else:
        console.print_run(result)
        click.echo(f"Run: {out}   report: {out / 'report.html'}")
    if result.status == "interrupted":
        raise KeyboardInterrupt


def _refuse_with_resume(settings: Mapping[str, Any]) -> None:
    """A run that goes on has its own settings."""
    given = [name for name, value in settings.items() if value is not None]
    if given:
        raise ConfigError(f"{given[0]} has no effect with --resume: the run goes on with its own settings.")


def _whole_number(text: str, flag: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{flag}: {text!r} is not a whole number; write them as 0,1,2.") from None
