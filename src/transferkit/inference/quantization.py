"""A run in 8-bit integers: calibrated on its training rows, measured beside itself on its test rows, written."""

from __future__ import annotations

import contextlib
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from transferkit import run_folder
from transferkit.adaptation.adapters import merge
from transferkit.data import workspace
from transferkit.data.batching import FeatureTable
from transferkit.data.inspection import content_hash
from transferkit.data.preparation import prepare
from transferkit.errors import AdaptationError, DataError, RunError
from transferkit.evaluation.metrics import score
from transferkit.evaluation.results import Document, Interval, write_json
from transferkit.evaluation.statistics import mcnemar_p, mean_interval
from transferkit.formatting import p_equation, percent, points, points_interval, size
from transferkit.inference.lean_tokenizer import LeanTokenizer
from transferkit.inference.predictor import MAX_BATCH_TOKENS, Predictor
from transferkit.inference.quantized import INPUTS, MODEL_FILE, QuantizedClassifier, openvino
from transferkit.models.lean_encoder import NotLeanError
from transferkit.training.forward import answer_all
from transferkit.training.tracking import Listener

if TYPE_CHECKING:
    import datasets

QUALITY_FILE = "quantization.json"
# The range of every activation is taken from this many rows, the number that NNCF itself proposes.
CALIBRATION_ROWS = 300


class Quality(Document):
    """`model/quantization.json`: what 8 bits cost, on the test rows of the run."""

    schema_: Literal["transferkit/quantization/1"] = Field(default="transferkit/quantization/1", alias="schema")
    rows: int
    calibration_rows: int
    exact: dict[str, float] = Field(description="metrics of the run in fp32")
    quantized: dict[str, float] = Field(description="the same metrics in int8")
    difference: float = Field(description="accuracy in int8 less accuracy in fp32")
    interval: Interval = Field(description="bootstrap 95 % interval of the difference, rows resampled in pairs")
    mcnemar_p: float
    exact_bytes: int
    quantized_bytes: int

    def __str__(self) -> str:
        return (
            f"int8 answers {percent(self.quantized['accuracy'])} of {self.rows:,} test rows correctly, fp32 "
            f"{percent(self.exact['accuracy'])}: a difference of {points(self.difference)} points (95 % interval "
            f"{points_interval(self.interval)}, McNemar {p_equation(self.mcnemar_p)}), in {size(self.quantized_bytes)} "
            f"instead of {size(self.exact_bytes)}."
        )


def export_quantized(predictor: Predictor, folder: Path) -> Quality:
    """Write a run folder that answers in int8 by OpenVINO, and what that costs on the rows the run was tested on.

    Products of matrices are quantized, weights by channel and activations by tensor, with ranges seen on training rows
    and outliers moved from activations to weights (Xiao et al. 2023, SmoothQuant, section 4). Adapters that can be
    merged are, in `predictor` too.

    Raises:
        RunError: OpenVINO or NNCF is not installed, `folder` is not empty, or the model cannot be written there.
        DataError: the rows of the run are no longer where it found them, or are others now.
        AdaptationError: the run's tokenizer or model cannot be had without transformers.
    """
    openvino("nncf")
    try:
        LeanTokenizer(predictor.folder, predictor.record.tokenizer)
    except NotLeanError as error:
        raise AdaptationError(f"The run in {predictor.folder} cannot be exported to int8: it has {error}.") from None
    with run_folder.whole_folder(folder) as partial:
        train, test = _rows(predictor)
        _write_run(predictor, partial)
        _write_model(predictor, partial / "model" / MODEL_FILE, train)
        quality = _measure(predictor, partial, test, min(CALIBRATION_ROWS, len(train)))
        write_json(partial / "model" / QUALITY_FILE, quality)
    return quality


def _rows(predictor: Predictor) -> tuple[FeatureTable, FeatureTable]:
    """Training and test rows, which have to be those of the run."""
    data = prepare(predictor.record.config.data)
    for split in ("train", "test"):
        if content_hash(data.splits[split]) != predictor.record.data.hashes[split]:
            raise DataError(
                f"The {split} rows in {data.source} are no longer those of the run; train again, or bring them back."
            )
    return _table(predictor, data.splits["train"]), _table(predictor, data.splits["test"])


def _table(predictor: Predictor, rows: datasets.Dataset) -> FeatureTable:
    features, _ = predictor.tokenizer.tokenize(rows, workspace.new_file())
    return FeatureTable.from_arrow(features.data.table, predictor.tokenizer.pad_token_id)


def _write_run(predictor: Predictor, folder: Path) -> None:
    """What a run folder has besides its model."""
    (folder / "model").mkdir()
    shutil.copytree(predictor.folder / "tokenizer", folder / "tokenizer")
    for name in (run_folder.RUN_FILE, run_folder.LABELS_FILE):
        shutil.copy(predictor.folder / name, folder / name)


def _write_model(predictor: Predictor, file: Path, train: FeatureTable) -> None:
    """Trace, calibrate, quantize, save."""
    ov = openvino("nncf")
    import nncf

    with contextlib.suppress(AdaptationError):
        # Adapters that cannot be merged are traced where they are.
        merge(predictor.model)
    batch = train.__getitems__([0, len(train) - 1])
    names = [name for name in INPUTS if name in batch]
    traced = _Traced(predictor.model, names)
    # What comes from these libraries' own use of torch is nothing that a user can mend; their progress is no answer.
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr), torch.no_grad():
        warnings.simplefilter("ignore")
        model = ov.convert_model(traced, example_input=tuple(batch[name].long() for name in names))
        for port, name in zip(model.inputs, names, strict=True):
            port.get_tensor().set_names({name})
        number = min(CALIBRATION_ROWS, len(train))
        quantized = nncf.quantize(
            model,
            nncf.Dataset(list(_calibration(train, names, number))),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=number,
        )
    try:
        ov.save_model(quantized, file)
    except RuntimeError as error:
        # It does not say why, not even of a full disk.
        raise RunError(f"OpenVINO cannot write its model ({error}); see that there is room for it in --out.") from None


class _Traced(nn.Module):
    """The classifier with its inputs by position, all of them int64."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs int64 [rows, length] in the order of `names` -> logits [rows, classes]."""
        features = dict(zip(self.names, inputs, strict=True))
        features["attention_mask"] = features["attention_mask"].bool()
        logits: Tensor = self.model(**features)
        return logits


def _calibration(train: FeatureTable, names: list[str], number: int) -> Iterator[dict[str, Any]]:
    """Inputs of `number` rows, the same in every export of the run."""
    for row in np.random.default_rng(0).permutation(len(train))[:number]:
        batch = train.__getitems__([int(row)])
        yield {name: batch[name].numpy().astype(np.int64) for name in names}


def _measure(predictor: Predictor, exported: Path, test: FeatureTable, calibration_rows: int) -> Quality:
    """Both forms on the same test rows."""
    assert test.labels is not None, "test rows have labels"
    record, labels = predictor.record, test.labels
    exact = predictor.logits_of(test, Listener())
    quantized = answer_all(QuantizedClassifier(exported, record), test, MAX_BATCH_TOKENS["fp32"], Listener())
    right = {name: logits.argmax(1) == labels for name, logits in (("exact", exact), ("quantized", quantized))}
    return Quality(
        rows=len(test),
        calibration_rows=calibration_rows,
        exact=score(labels, exact, record.labels).metrics,
        quantized=score(labels, quantized, record.labels).metrics,
        difference=float(right["quantized"].mean() - right["exact"].mean()),
        interval=mean_interval((right["quantized"].astype(float) - right["exact"])[:, np.newaxis]),
        mcnemar_p=mcnemar_p(right["quantized"], right["exact"]),
        # Not below it, where a trainer leaves checkpoints.
        exact_bytes=sum(file.stat().st_size for file in predictor.files.folder.glob("*.safetensors")),
        quantized_bytes=run_folder.stored_bytes(exported),
    )
