"""Predictions as they are printed and written: for texts, for files, step by step."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from transferkit.environment import whole_file
from transferkit.errors import DataError, RunError
from transferkit.formatting import one_line, percent
from transferkit.inference.predictor import Prediction, Predictor, Text, load, load_exact
from transferkit.inference.stages import Stages, explain

if TYPE_CHECKING:
    from transferkit.data.prediction_input import InputRow

Quoting = Literal["auto", "csv", "none"]
Asked = Literal["auto", "fp32", "bf16"]
# What messages call a text: an argument is a row, as is a pair; standard input is read by lines.
Unit = Literal["row", "line"]
# Bytes that could not be decoded, as the system hands them on.
_UNDECODED = re.compile("[\\udc80-\\udcff]")
LABEL_COLUMN = "predicted_label"


def read_texts(texts: Sequence[str], standard_input: TextIO | None) -> list[str]:
    """The texts as given; a single `-` stands for the lines of standard input, which LF ends and no other character.

    It is read as UTF-8, whatever the locale says, with or without a byte-order mark; None is one that is closed.
    """
    if list(texts) != ["-"]:
        return list(texts)
    if isinstance(standard_input, io.TextIOWrapper):
        # A byte that is no text comes through, so that its line can be named.
        standard_input.reconfigure(encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    lines = [line.rstrip("\r\n") for line in standard_input or ()]
    if not lines:
        raise DataError("Standard input is empty; write one text a line.")
    return lines


def check_decoded(rows: Iterable[Text], unit: Unit) -> None:
    """Whether all of `rows` is text.

    Raises:
        DataError: there is a byte in it that is not.
    """
    for number, row in enumerate(rows, start=1):
        undecoded = _UNDECODED.search("".join(row))
        if undecoded is not None:
            byte = f"0x{ord(undecoded[0]) - 0xDC00:02X}"
            raise DataError(
                f"{unit.capitalize()} {number} holds the byte {byte}, which is not UTF-8; convert the text to UTF-8."
            )


def predict_texts(
    run: Path, rows: Sequence[Text], *, unit: Unit, precision: Asked, as_json: bool, explained: bool
) -> None:
    """Print the answer for each of `rows`; where the run is of pairs, a tab parts the two of a line.

    Raises:
        DataError: a row is not UTF-8, has an empty text, or has one text where there are to be two, or two for one.
    """
    check_decoded(rows, unit)
    predictor = load_exact(run) if explained else load(run, precision=precision)
    rows = [_checked(predictor, row, f"{unit} {number}") for number, row in enumerate(rows, start=1)]
    if explained:
        stages = [explain(predictor, row) for row in rows]
        answers = [_stages_as_json(one) for one in stages]
        text = "\n\n".join(_stages_as_text(one) for one in stages)
    else:
        predictions = predictor(rows)
        answers = [_as_json(row, one) for row, one in zip(rows, predictions, strict=True)]
        text = "\n".join(_as_line(row, one) for row, one in zip(rows, predictions, strict=True))
    print(json.dumps(answers[0] if len(answers) == 1 else answers, ensure_ascii=False) if as_json else text)


def predict_file(
    run: Path, source: Path, *, precision: Asked, columns: Sequence[str], encoding: str | None, quoting: Quoting,
    out: Path | None, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write the rows of `source` with their predictions, a batch at a time, in the order of the file.

    Raises:
        RunError: `out` is there already and is not to be overwritten.
        DataError: the file cannot be read, has a column of a name that is added, or a row has no text.
    """
    # What reads tables takes longer to import than the answer to a single text.
    from transferkit.data.prediction_input import iter_texts
    from transferkit.data.text_lines import FileOptions

    check_out(out, overwrite)
    predictor = load(run, precision=precision)
    trained_on = predictor.record.data.columns
    added = _added_columns(predictor.labels, as_json)
    batches = iter_texts(
        source,
        is_pair=predictor.record.is_pair,
        named=columns,
        usual=trained_on.get("pair") or [trained_on["text"]],
        added=added,
        options=FileOptions(encoding, quoting),
        said=note,
    )
    rows = (
        row | dict(zip(added, _added_values(prediction, as_json), strict=True))
        for row, prediction in _answered(predictor, batches)
    )
    write_rows(out, rows, as_json)


def note(message: str) -> None:
    """Say something beside the answers, which are on standard output."""
    print(message, file=sys.stderr)


def _answered(predictor: Predictor, batches: Iterator[list[InputRow]]) -> Iterator[tuple[dict[str, Any], Prediction]]:
    """Each row of the file with its prediction."""
    for batch in batches:
        texts: list[Text] = [row[0] if len(row) == 1 else (row[0], row[1]) for _, row in batch]
        for (row, _), prediction in zip(batch, predictor(texts), strict=True):
            yield row, prediction


def _added_columns(labels: Sequence[str], as_json: bool) -> list[str]:
    """For the label, and for the probabilities: one object of all in JSON, a column for each class in CSV."""
    return [LABEL_COLUMN, *(["probabilities"] if as_json else (f"probability_{label}" for label in labels))]


def _added_values(prediction: Prediction, as_json: bool) -> list[Any]:
    """What stands in the added columns of one row."""
    probabilities = prediction.probabilities
    return [prediction.label, *([probabilities] if as_json else (f"{p:.6f}" for p in probabilities.values()))]


def _checked(predictor: Predictor, row: Text, place: str) -> Text:
    """The row as the run reads it, with the two texts of a line apart; what is wrong is said of its `place`."""
    if predictor.record.is_pair and isinstance(row, str):
        first, tab, second = row.partition("\t")
        if not tab:
            raise DataError(
                f"The run was trained on pairs of texts, and {place} is a single one; put a tab between the two, or "
                "give them with --pair."
            )
        row = (first, second)
    predictor.as_row(row, place)
    return row


def check_out(out: Path | None, overwrite: bool) -> None:
    """Whether rows may be written to `out`.

    Raises:
        RunError: it is a folder or a device, or is there already and is not to be overwritten.
    """
    if out is not None and out.is_dir():
        raise RunError(f"{out} is a folder; name a file with --out.")
    if out is not None and out.exists() and not out.is_file():
        raise RunError(f"{out} is no file; name one with --out, or leave it out to write to standard output.")
    if out is not None and out.exists() and not overwrite:
        raise RunError(f"{out} exists; choose another --out, or replace it with --overwrite.")


def write_rows(out: Path | None, rows: Iterable[Mapping[str, Any]], as_json: bool) -> None:
    """Write rows as they come, all of the same columns: CSV with a heading, or an object a line."""
    with _output(out) as file:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            if as_json:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                continue
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow({name: _cell(value) for name, value in row.items()})


def _cell(value: Any) -> Any:
    """What stands in CSV for a value: lists and objects as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


@contextmanager
def _output(out: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is whole or not there."""
    if out is None:
        yield sys.stdout
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    # A link stays, and the file that it names is written.
    with whole_file(out.resolve()) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        yield file


def _as_json(row: Text, prediction: Prediction) -> dict[str, Any]:
    return {"text": row, "label": prediction.label, "probabilities": prediction.probabilities}


def _as_line(row: Text, prediction: Prediction) -> str:
    """The label, the percentage of every class, the text, without a line break in any."""
    percentages = "  ".join(f"{label} {percent(p)}" for label, p in prediction.probabilities.items())
    return one_line(f"{prediction.label}\t{percentages}\t{row if isinstance(row, str) else ' | '.join(row)}")


def _stages_as_json(stages: Stages) -> dict[str, Any]:
    return {
        "text": stages.text if len(stages.text) > 1 else stages.text[0],
        "tokens": stages.tokens,
        "input_ids": stages.ids,
        "token_type_ids": stages.types,
        "logits": stages.logits,
        "probabilities": stages.prediction.probabilities,
        "label": stages.prediction.label,
    }


def _stages_as_text(stages: Stages) -> str:
    """The stages one below the other, numbered as data passes through them."""
    types = stages.types or ("",) * len(stages.ids)
    width = max(len(token) for token in stages.tokens)
    tokens = [
        f"   {token:<{width}}  id {number:>6}" + (f"  type {kind}" if kind != "" else "")
        for token, number, kind in zip(stages.tokens, stages.ids, types, strict=True)
    ]
    logits = [f"   {label}: {value:+.4f}" for label, value in stages.logits.items()]
    softmax = [f"   {label}: {percent(p, 2)}" for label, p in stages.prediction.probabilities.items()]
    return "\n".join(
        [
            "1. text",
            *(f"   {text}" for text in stages.text),
            f"2. tokens ({len(stages.tokens)})",
            *tokens,
            "3. logits: what the model answers, one number a class",
            *logits,
            "4. softmax: exp(logit) / sum of exp(logits)",
            *softmax,
            f"5. label: {stages.prediction.label}",
        ]
    )
