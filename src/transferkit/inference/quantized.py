"""The form of a run in 8-bit integers that `transferkit export --to openvino-int8` writes, loaded to answer."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transferkit.errors import RunError, first_line
from transferkit.inference.lean_tokenizer import LeanTokenizer
from transferkit.run_record import RunRecord

MODEL_FILE = "openvino_model.xml"
# The order in which the model takes its inputs.
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def is_quantized(folder: Path) -> bool:
    """Whether the run folder holds a model in 8-bit integers."""
    return (folder / "model" / MODEL_FILE).is_file()


def openvino(*packages: str) -> Any:
    """The package openvino, after `packages` have been found too; none of them calls home.

    Raises:
        RunError: one is not installed.
    """
    # They count their users over the network, unless the package that does so is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        for package in packages:
            import_module(package)
        return import_module("openvino")
    except ImportError as error:
        raise RunError(f"int8 needs the package {error.name}: pip install 'transferkit[int8]'.") from None


class QuantizedClassifier:
    """Text to logits by OpenVINO."""

    def __init__(self, run: Path, record: RunRecord) -> None:
        """Load the model in the run folder `run`.

        Raises:
            RunError: OpenVINO is not installed, or cannot read the model.
        """
        file = run / "model" / MODEL_FILE
        # Products are in int8; what is between them in fp32, since bf16 there costs accuracy and wins no time.
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        core = openvino().Core()
        try:
            self._model = core.compile_model(core.read_model(file), "CPU", hints)
        except RuntimeError as error:
            raise RunError(f"{file} cannot be loaded by OpenVINO: {first_line(error)}.") from None
        self.tokenizer = LeanTokenizer(run, record.tokenizer)

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits [rows, classes] of a batch as `data.batching` collates it."""
        inputs = [batch[name].numpy().astype(np.int64, copy=False) for name in INPUTS if name in batch]
        # One for each call: a request that answers is refused to another thread, or gives it the first one's answer.
        request = self._model.create_infer_request()
        return torch.from_numpy(request.infer(inputs)[0])
