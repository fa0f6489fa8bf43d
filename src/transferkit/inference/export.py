"""A run in the formats of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transferkit import run_folder
from transferkit.adaptation.adapters import merge
from transferkit.adaptation.peft_format import export_peft
from transferkit.errors import AdaptationError
from transferkit.inference.predictor import Predictor
from transferkit.models.backbones import HEAD_FILE


def export_transformers(predictor: Predictor, folder: Path) -> None:
    """Write a folder that `AutoModelForSequenceClassification` and `AutoTokenizer` load, with equal logits.

    Adapters are merged into the weights, in `predictor` too.

    Raises:
        AdaptationError: the head is not the family's own, or the adapters cannot be merged.
    """
    if predictor.model.pooling != "model":
        raise AdaptationError(
            f"The head of this run is on {predictor.model.pooling} pooling, which AutoModelForSequenceClassification "
            "does not have; train with --head-pooling model to export."
        )
    run_folder.check_free(folder, overwrite=False)
    merge(predictor.model)
    predictor.model.network.save_pretrained(folder)
    predictor.tokenizer.save(folder)


def export_to_peft(predictor: Predictor, folder: Path) -> None:
    """Write a folder that `PeftModel.from_pretrained` loads onto the base; a pooled head goes beside it.

    Raises:
        AdaptationError: the run was not adapted by `lora`.
    """
    from safetensors.torch import save_file

    run_folder.check_free(folder, overwrite=False)
    network, head = predictor.model.network, predictor.model.head
    export_peft(network, folder, predictor.record.backbone.name)
    if head is not None:
        save_file(head.state_dict(), folder / HEAD_FILE)
    predictor.tokenizer.save(folder)


def export_to_int8(predictor: Predictor, folder: Path) -> str:
    """Write a run folder that answers in 8-bit integers, and say what they cost; see `quantization`."""
    # What reads the rows takes seconds to import.
    from transferkit.inference.quantization import export_quantized

    return str(export_quantized(predictor, folder))


# Each writes a folder, and may return a sentence about it.
FORMATS: dict[str, Callable[[Predictor, Path], str | None]] = {
    "transformers": export_transformers,
    "peft": export_to_peft,
    "openvino-int8": export_to_int8,
}
