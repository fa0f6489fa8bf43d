"""The options of the command line that set a field of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
# Flag, path of the field, help, and what click needs to know.
Setting = tuple[str, str, str, dict[str, Any]]

DATA_SETTINGS: list[Setting] = [
    ("--data", "data.source", "CSV, TSV, JSONL, Parquet, folder, hub id, or built-in name.", {}),
    ("--text", "data.text", "The text column.", {}),
    ("--pair", "data.pair", "The two text columns; of a translation: from, into.", {"nargs": 2, "metavar": "A B"}),
    ("--label", "data.label", "The label column.", {}),
    ("--label-names", "data.label_names", "Names for the sorted labels: World,Sports,...", {"metavar": "NAMES"}),
    ("--encoding", "data.encoding", "Of text files; UTF-8 unless said.", {}),
    ("--quoting", "data.quoting", "auto: CSV quotes, TSV does not.", {"type": click.Choice(["auto", "csv", "none"])}),
]  # fmt: skip
TRAINING_SETTINGS: list[Setting] = [
    ("--validation-data", "data.validation", "Rows to choose the best epoch on; else drawn from --data.", {}),
    ("--test-data", "data.test", "Rows to score on; else drawn from --data.", {}),
    ("--train-size", "data.train_size", "Draw so many training rows, labelled ones stratified.", {"type": int}),
    ("--validation-size", "data.validation_size", "Draw so many validation rows, labelled ones stratified.",
     {"type": int}),
    ("--test-size", "data.test_size", "Draw so many test rows, labelled ones stratified.", {"type": int}),
    ("--backbone", "backbone.name",
     "Built-in name, folder, hub id, or a run that holds a whole model; else minilm.", {}),
    ("--head-pooling", "backbone.head_pooling", "auto: as the backbone declares, else its own head (model).",
     {"type": click.Choice(["auto", "mean", "first", "model"])}),
    ("--max-length", "tokenization.max_length",
     "Most tokens of a row; else 256 or what the backbone allows, of a translation 128.", {"type": int}),
    ("--truncation-side", "tokenization.truncation_side", "The side on which long texts are cut.",
     {"type": click.Choice(["left", "right"])}),
    ("--epochs", "training.epochs",
     "Passes over the training rows; else the strategy's own, of a translation 10, of pretrain 5.", {"type": int}),
    ("--precision", "training.precision", "auto measures this machine.",
     {"type": click.Choice(["auto", "fp32", "bf16"])}),
    ("--tensorboard", "training.tensorboard", "Write curves and samples for TensorBoard into the run folder.",
     {"is_flag": True, "default": None}),
    ("--prefix-cache", "training.prefix_cache", "Where outputs of frozen layers are kept; auto: where they fit.",
     {"type": click.Choice(["auto", "off", "memory", "disk"])}),
]  # fmt: skip
TRANSLATION_SETTINGS: list[Setting] = [
    ("--target-data", "data.target_file", "Translation: the file whose lines belong to those of --data.", {}),
    ("--on-too-long", "data.on_too_long", "Translation: what becomes of rows over --max-length.",
     {"type": click.Choice(["drop", "error"])}),
]  # fmt: skip
ENCODER_SETTINGS: list[Setting] = [
    ("--vectors", "encoder.vectors", "A file of GloVe vectors (.txt, .txt.gz), or minilm: its token embeddings.", {}),
    ("--architecture", "encoder.architecture", "Encoder layers, or the mean of the vectors and one hidden layer.",
     {"type": click.Choice(["text-encoder", "averaging"])}),
    ("--freeze-vectors", "encoder.freeze_vectors", "Leave the vectors as they are, here and in every adaptation.",
     {"is_flag": True, "default": None}),
    ("--layers", "encoder.layers", "Encoder layers.", {"type": int}),
    ("--heads", "encoder.heads", "Attention heads of each.", {"type": int}),
    ("--feed-forward", "encoder.feed_forward", "Width of the feed-forward layers.", {"type": int}),
]  # fmt: skip
# What a new encoder has no choice in.
OF_BACKBONES = {"--backbone", "--prefix-cache"}
LISTS = {"data.label_names"}


def setting_options(*settings: Setting) -> Callable[[Command], Command]:
    """Add an option for each setting; the command gets them as `settings`, by dotted path."""

    def decorate(command: Command) -> Command:
        for flag, path, text, details in reversed(settings):
            command = click.option(flag, path.replace(".", "__"), help=text, **details)(command)
        return command

    return decorate


def by_path(options: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `setting_options` by dotted path; lists split at their commas."""
    settings = {name.replace("__", "."): value for name, value in options.items()}
    return {
        path: [part.strip() for part in value.split(",")] if path in LISTS and value is not None else value
        for path, value in settings.items()
    }
