"""A run in the formats of other libraries, each a folder that is written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transferkit import run_folder
from transferkit.adaptation.adapters import merge
from transferkit.adaptation.peft_format import export_peft
from transferkit.errors import AdaptationError, TransferKitError
from transferkit.inference.predictor import Predictor
from transferkit.models.backbones import HEAD_FILE, has_own_classifier

# Test rows that an export is compared on.
COMPARED = 200


def export_transformers(predictor: Predictor, folder: Path) -> None:
    """Write a folder that `AutoModelForSequenceClassification` and `AutoTokenizer` load, with equal logits.

    Adapters are merged into the weights, in `predictor` too.

    Raises:
        AdaptationError: the head is not the family's own, or the adapters cannot be merged.
    """
    architecture = predictor.model.network.config
    if not has_own_classifier(architecture):
        raise AdaptationError(
            f"The family {architecture.model_type} of this run has no AutoModelForSequenceClassification, which this "
            "export is for; predict with the run itself."
        )
    if predictor.model.pooling != "model":
        raise AdaptationError(
            f"The head of this run is on {predictor.model.pooling} pooling, which AutoModelForSequenceClassification "
            "does not have; train with --head-pooling model to export."
        )
    with run_folder.whole_folder(folder) as partial:
        merge(predictor.model)
        predictor.model.network.save_pretrained(partial)
        predictor.tokenizer.save(partial)


def export_to_peft(predictor: Predictor, folder: Path) -> None:
    """Write a folder that `PeftModel.from_pretrained` loads onto the base; a pooled head goes beside it.

    Raises:
        AdaptationError: the run was not adapted by `lora`.
    """
    from safetensors.torch import save_file

    network, head = predictor.model.network, predictor.model.head
    with run_folder.whole_folder(folder) as partial:
        export_peft(network, partial, _base_name(predictor))
        if head is not None:
            save_file(head.state_dict(), partial / HEAD_FILE)
        predictor.tokenizer.save(partial)


def _base_name(predictor: Predictor) -> str:
    """What other libraries load the base of a capsule by: its id on the hub, or the folder of its model."""
    if predictor.record.keeps_whole_model or predictor.record.backbone.revision is not None:
        return predictor.record.backbone.name
    return str(predictor.files.folder.resolve())


def export_to_int8(predictor: Predictor, folder: Path) -> str:
    """Write a run folder that answers in 8-bit integers, and say what they cost; see `quantization`."""
    # What reads the rows takes seconds to import.
    from transferkit.inference.quantization import export_quantized

    return str(export_quantized(predictor, folder))


def export_to_ctranslate2(run: Path, folder: Path) -> str:
    """Write a translation run as a folder that `ctranslate2.Translator` loads, and compare both on the test rows.

    Raises:
        RunError: CTranslate2 is not installed, or `folder` holds something else.
        AdaptationError: it has no such model.
    """
    # What reads the rows takes seconds to import.
    from transferkit.data.parallel import prepare_parallel
    from transferkit.generation.ctranslate2 import compare_ctranslate2, export_ctranslate2
    from transferkit.inference.translation import load_translator

    predictor = load_translator(run, precision="fp32")
    source, target = predictor.tokenizers.source, predictor.tokenizers.target
    config = predictor.record.config
    most = config.tokenizer.max_length
    with run_folder.whole_folder(folder) as partial:
        export_ctranslate2(predictor.model, source.vocabulary(), target.vocabulary(), partial, max_length=most)
        predictor.tokenizers.save(partial / "tokenizer")
        try:
            texts = prepare_parallel(config.data).splits["test"][:COMPARED]["source"]
        except TransferKitError as error:
            return f"It was not compared with the run, since the test rows cannot be read: {error}"
        return str(compare_ctranslate2(predictor.model, source, target, texts, partial, most))


# Each writes a folder, and may return a sentence about it.
FORMATS: dict[str, Callable[[Predictor, Path], str | None]] = {
    "transformers": export_transformers,
    "peft": export_to_peft,
    "openvino-int8": export_to_int8,
}
