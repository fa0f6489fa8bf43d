"""A run, loaded: text in, label and probabilities out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch

from transferkit import run_folder
from transferkit.adaptation.adapters import remember_head
from transferkit.adaptation.capsule import attach
from transferkit.config import BackboneConfig, Precision, TokenizationConfig
from transferkit.data.batching import FeatureTable, ListColumn
from transferkit.data.blanks import is_blank
from transferkit.environment import file_hash, quiet_libraries, release_memory
from transferkit.errors import DataError, RunError
from transferkit.evaluation.metrics import log_probabilities
from transferkit.inference.lean import LeanClassifier
from transferkit.inference.quantized import QuantizedClassifier, is_quantized
from transferkit.inference.text_check import check_text
from transferkit.models.backbones import TextClassifier, load_classifier
from transferkit.models.hub import BUILTIN, BackboneFiles
from transferkit.models.lean_encoder import NotLeanError
from transferkit.run_record import RunRecord
from transferkit.tokenization.pretrained import TextTokenizer
from transferkit.training.forward import answer_all, predict_logits
from transferkit.training.precision import Compute, answering_precision
from transferkit.training.tracking import Listener

# One text, or the two of a pair.
Text = str | tuple[str, str]
# The forms of a model that answer and do not train.
Form = LeanClassifier | QuantizedClassifier
# Of one pass, whose states take as many bytes in both; 4,096 in fp32 are no faster and take up to a fifth more memory.
MAX_BATCH_TOKENS: dict[Precision, int] = {"bf16": 4096, "fp32": 2048}
# What a tokenizer gives for a text takes tens of kilobytes, with all that truncation cuts off, and its ids one.
_TOKENIZED_ROWS = 1000


@dataclass(frozen=True)
class Prediction:
    """The label, and the probability of every class in the order of the run's labels."""

    label: str
    probabilities: dict[str, float]

    @classmethod
    def all_of(cls, logits: np.ndarray, labels: Sequence[str]) -> list[Prediction]:
        """From logits [rows, classes], one for each row."""
        probabilities = np.exp(log_probabilities(logits))
        return [
            cls(labels[best], dict(zip(labels, row, strict=True)))
            for best, row in zip(probabilities.argmax(axis=1).tolist(), probabilities.tolist(), strict=True)
        ]


class Predictor:
    """A trained model with its tokenizer and its labels. Call it with a text, a pair, or a list of either.

    It answers from an inference form of the model where there is one, and else from `model` itself.
    """

    def __init__(self, folder: Path, record: RunRecord, precision: Precision) -> None:
        """Use `load`."""
        # Much is read on first use, and the working directory may be another one then.
        self.folder = folder.absolute()
        self.record = record
        self.precision: Precision = precision
        self._forms: dict[Precision, Form | None] = {}

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer as transformers loads it."""
        settings = TokenizationConfig(
            max_length=self.record.tokenizer.max_length, truncation_side=self.record.tokenizer.truncation_side
        )
        quiet_libraries()
        return TextTokenizer.load(self.folder / "tokenizer", settings, allowed_length=None)

    @cached_property
    def files(self) -> BackboneFiles:
        """The network's: those of the run where it keeps the whole model, and else those of its base.

        Raises:
            BackboneError: the base is not to be had.
        """
        if self.record.keeps_whole_model:
            return BackboneFiles(self.record.backbone.name, self.folder / "model")
        base = _base_files(self.record)
        return replace(base, folder=base.folder.absolute())

    @cached_property
    def model(self) -> TextClassifier:
        """The model as it was trained, in fp32 and eval mode, its adapters in place.

        Raises:
            RunError: the folder holds its form in 8-bit integers and no weights.
        """
        if self.is_quantized:
            raise RunError(f"{self.folder} holds a model in int8 alone; name the run that it was exported from.")
        quiet_libraries()
        # The caller's random numbers are left as they were; the head before training is drawn as it was then.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.record.config.seed)
            return _load_model(self).eval()

    @property
    def is_quantized(self) -> bool:
        """Whether it answers in 8-bit integers, whatever precision is asked for."""
        return is_quantized(self.folder)

    def _form(self, precision: Precision) -> Form | None:
        """The inference form in `precision`, made when it is first asked for; None where there is none."""
        if precision not in self._forms:
            self._forms[precision] = self._make_form(precision)
            release_memory()
        return self._forms[precision]

    def _make_form(self, precision: Precision) -> Form | None:
        if self.is_quantized:
            return QuantizedClassifier(self.folder, self.record)
        try:
            return LeanClassifier(self.folder, self.record, self.files.folder, precision)
        except NotLeanError:
            return None

    @property
    def is_lean(self) -> bool:
        """Whether it answers from an inference form of the model."""
        return self._form(self.precision) is not None

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of the logits."""
        return self.record.labels

    @overload
    def __call__(self, texts: Text) -> Prediction: ...

    @overload
    def __call__(self, texts: list[Text] | list[str] | list[tuple[str, str]]) -> list[Prediction]: ...

    def __call__(self, texts: Text | list[Text] | list[str] | list[tuple[str, str]]) -> Prediction | list[Prediction]:
        """Predict one text (or pair, as a tuple of two) or a list of them.

        Raises:
            DataError: a pair where the run was trained on single texts, or the other way round, an empty text, or
                something that is not text; of a list, the message has the number of the row, counted from 1.
        """
        if isinstance(texts, (str, tuple)):
            return self._predict([self.as_row(texts)])[0]
        return self._predict(self._as_rows(texts))

    def logits(self, rows: Sequence[str | tuple[str, ...]]) -> np.ndarray:
        """Logits, float32 [rows, classes], in the order of `rows`: those that training ended with, computed in fp32.

        Raises:
            DataError: as a call does, and a single text in the place of a list.
        """
        if isinstance(rows, str):
            raise DataError("Logits are those of a list of rows, and a single text came; put it in a list.")
        return self._answer(self._as_rows(rows), "fp32")

    def _predict(self, rows: Sequence[tuple[str, ...]]) -> list[Prediction]:
        return Prediction.all_of(self._answer(rows, self.precision), self.labels)

    def _answer(self, rows: Sequence[tuple[str, ...]], precision: Precision) -> np.ndarray:
        if not rows:
            return np.empty((0, len(self.labels)), dtype=np.float32)
        parts = [
            self._tokenized(rows[start : start + _TOKENIZED_ROWS], precision)
            for start in range(0, len(rows), _TOKENIZED_ROWS)
        ]
        return self.logits_of(_joined(parts), Listener(), precision)

    def _tokenized(self, rows: Sequence[tuple[str, ...]], precision: Precision) -> FeatureTable:
        form = self._form(precision)
        if form is not None:
            return form.tokenizer.encode(rows)
        return FeatureTable.from_arrow(self.tokenizer.encode_table(rows), self.tokenizer.pad_token_id)

    def logits_of(self, table: FeatureTable, listener: Listener, precision: Precision = "fp32") -> np.ndarray:
        """Logits, float32 [rows, classes], of rows that are tokenized already."""
        form, max_tokens = self._form(precision), MAX_BATCH_TOKENS[precision]
        if form is not None:
            return answer_all(form, table, max_tokens, listener)
        return predict_logits(self.model, table, max_tokens, listener, Compute(precision))

    def _as_rows(self, texts: Iterable[str | tuple[str, ...]]) -> list[tuple[str, ...]]:
        return [self.as_row(text, f"row {number}") for number, text in enumerate(texts, start=1)]

    def as_row(self, text: str | tuple[str, ...], place: str = "the row") -> tuple[str, ...]:
        """The texts of one row, checked against what the run was trained on; `place` is what a message calls it.

        Raises:
            DataError: it is not text, is empty, or has one text where there are to be two, or two for one.
        """
        # Pairs come as lists and as the rows of an array too.
        row = tuple(text) if isinstance(text, tuple | list | np.ndarray) else (text,)
        for part in row:
            check_text(part, place)
        wanted = 2 if self.record.is_pair else 1
        if len(row) != wanted:
            kinds = {1: "single texts", 2: "pairs of texts"}
            raise DataError(
                f"The run was trained on {kinds[wanted]}, and {place} has {len(row)}; give {wanted} for each row."
            )
        if any(is_blank(part) for part in row):
            raise DataError(f"{place.capitalize()} holds an empty text; there is nothing to predict from.")
        return row


def _joined(parts: Sequence[FeatureTable]) -> FeatureTable:
    """The rows of tables without labels, one after the other."""
    types = [part.token_type_ids for part in parts if part.token_type_ids is not None]
    return replace(
        parts[0],
        input_ids=ListColumn.joined([part.input_ids for part in parts]),
        token_type_ids=ListColumn.joined(types) if types else None,
    )


def load(run: str | Path, *, precision: Literal["auto", "fp32", "bf16"] = "auto") -> Predictor:
    """Load a run for prediction; of a comparison, the run that it recommends.

    Args:
        run: the folder.
        precision: of the labels and probabilities that a call gives. `auto` is bf16 on a processor that multiplies in
            it, which is faster and moves probabilities by about a percent at most. `logits` are fp32 in any case.

    Raises:
        ConfigError: there is no such precision.
        RunError: there is no run with a model, its tokenizer is missing or another one now, or it is an
            export in int8 and `precision` is not `auto`.
        BackboneError: the run keeps a capsule only, and its base is not to be had.
        AdaptationError: the base is not the one the capsule was made on.
    """
    folder, record = _find(run)
    if is_quantized(folder):
        if precision != "auto":
            raise RunError(f"{folder} answers in int8; precision {precision} has no effect on it.")
        precision = "fp32"
    predictor = Predictor(folder, record, answering_precision(precision))
    # What is wrong with a run is said when it is loaded.
    return predictor if predictor.is_lean else _with_model(predictor)


def load_exact(run: str | Path) -> Predictor:
    """Load a run to answer with the numbers that training ended with; an export in int8, with its own."""
    folder = run_folder.resolve(run)
    return load(folder, precision="auto" if is_quantized(folder) else "fp32")


def load_whole(run: str | Path) -> Predictor:
    """Load a run with its model as it was trained, for an export, which needs no inference form.

    Raises:
        as `load`; also where the run is an export in int8.
    """
    return _with_model(Predictor(*_find(run), "fp32"))


def _find(run: str | Path) -> tuple[Path, RunRecord]:
    folder = run_folder.resolve(run)
    record = run_folder.read_record(folder)
    if not (folder / "model").is_dir():
        raise RunError(f"The run in {folder} has no model; {run_folder.remedy(folder)}.")
    tokenizer = folder / run_folder.TOKENIZER_FILE
    wanted = record.tokenizer.file_sha256
    if wanted is not None and (not tokenizer.is_file() or file_hash(tokenizer) != wanted):
        problem = "is not what the run was trained with" if tokenizer.is_file() else "is missing"
        raise RunError(f"{tokenizer} {problem}; bring it back, or train again.")
    return folder, record


def _with_model(predictor: Predictor) -> Predictor:
    _ = predictor.tokenizer, predictor.model
    return predictor


def _load_model(predictor: Predictor) -> TextClassifier:
    record, files, tokenizer = predictor.record, predictor.files, predictor.tokenizer
    backbone = BackboneConfig(
        name=record.backbone.name,
        head_pooling=record.backbone.pooling,
        head_dropout=record.config.backbone.head_dropout,
    )
    model = load_classifier(files, backbone, record.labels, tokenizer.pad_token_id)
    if record.keeps_whole_model:
        if any(origin != "loaded" for origin in model.origins.values()):
            raise RunError(f"The model in {files.folder} is not whole: its head is missing; train again.")
        # As its strategy did: where everything trained, there is no head to put back, and `disabled` has no base.
        remember_head(model, ())
    else:
        capsule = predictor.folder / "model" / run_folder.CAPSULE_FILE
        attach(model, capsule, model.fingerprint(), tokenizer.hash())
    return model


def _base_files(record: RunRecord) -> BackboneFiles:
    """The base: one in a folder where that was at training, whatever it was called by, and any other by its name."""
    name, revision, folder = record.backbone.name, record.backbone.revision, Path(record.backbone.folder)
    is_by_path = revision is None and name not in BUILTIN
    if is_by_path and folder.is_dir():
        return BackboneFiles(name, folder)
    return run_folder.find_backbone(name, revision)
