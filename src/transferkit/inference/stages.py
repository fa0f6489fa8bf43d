"""A prediction step by step: text, tokens, logits, softmax, label."""

from __future__ import annotations

from dataclasses import dataclass

from transferkit.inference.predictor import Prediction, Predictor, Text


@dataclass(frozen=True)
class Stages:
    """What each stage hands to the next, for one row."""

    text: tuple[str, ...]
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    types: tuple[int, ...] | None
    logits: dict[str, float]
    prediction: Prediction


def explain(predictor: Predictor, text: Text) -> Stages:
    """Take one text, or a pair, through the stages of `predictor`."""
    row = predictor.as_row(text)
    encoded, _ = predictor.tokenizer.encode([row])
    ids = encoded["input_ids"][0]
    logits = predictor.logits([row])
    [prediction] = Prediction.all_of(logits, predictor.labels)
    return Stages(
        text=row,
        tokens=tuple(predictor.tokenizer.backend.convert_ids_to_tokens(ids)),
        ids=tuple(ids),
        types=tuple(encoded["token_type_ids"][0]) if "token_type_ids" in encoded else None,
        logits={name: float(value) for name, value in zip(predictor.labels, logits[0], strict=True)},
        prediction=prediction,
    )
