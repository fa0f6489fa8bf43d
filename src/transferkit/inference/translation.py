"""A translation run, loaded: text in, translations out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import torch

from transferkit import run_folder
from transferkit.config import Precision
from transferkit.data.blanks import is_blank
from transferkit.errors import DataError, RunError
from transferkit.generation.batches import Decoding, decode_all
from transferkit.generation.decoding import Bounds, Hypothesis
from transferkit.generation.retrace import Retraced, retrace
from transferkit.inference.text_check import check_text
from transferkit.models.lean_translator import LeanTranslator
from transferkit.models.translator import Translator, build_translator
from transferkit.run_record import TranslationRecord
from transferkit.tokenization.parallel import Tokenizers
from transferkit.training.precision import answering_precision


@dataclass(frozen=True)
class Translated:
    """A translation, its parts as they stand in the vocabulary, and its score.

    The score is the log-probability of the translation in nats; of a beam search, divided by length^length_penalty. A
    translation that has not ended was cut off where it could be no longer.
    """

    text: str
    tokens: tuple[str, ...]
    score: float
    ended: bool


@dataclass(frozen=True)
class TranslationStages:
    """One translation by hand: what the model read, what it wrote with which probability, and where it looked."""

    source: str
    source_ids: tuple[int, ...]
    retraced: Retraced
    translated: Translated


class TranslationPredictor:
    """A trained translator with its tokenizers. Call it with a text, or with several."""

    def __init__(self, folder: Path, record: TranslationRecord, precision: Precision) -> None:
        """Use `load_translator`."""
        self.folder = folder.absolute()
        self.record = record
        self.precision: Precision = precision
        self.tokenizers = Tokenizers.of_run(folder, record.tokenizer_hash)
        self.model = _load_model(folder, record, self.tokenizers)
        self._lean = LeanTranslator(self.model, precision)

    # A text is an iterable of texts, too: the first signature that fits holds.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, texts: str, decoding: Decoding | None = None, advanced: Callable[[int], None] = lambda _: None
    ) -> list[Translated]: ...

    @overload
    def __call__(
        self, texts: Iterable[str], decoding: Decoding | None = None, advanced: Callable[[int], None] = lambda _: None
    ) -> list[list[Translated]]: ...

    def __call__(
        self,
        texts: str | Iterable[str],
        decoding: Decoding | None = None,
        advanced: Callable[[int], None] = lambda _: None,
    ) -> list[Translated] | list[list[Translated]]:
        """The translations of one text, best first, or of each of several; of a blank text, the empty one.

        Args:
            texts: sources. Longer ones than the run was trained on are translated too, and worse.
            decoding: how; as in the run's settings unless said.
            advanced: hears how many more texts are done.

        Raises:
            DataError: one is not text; the message has its row, counted from 1.
        """
        sources = [texts] if isinstance(texts, str) else list(texts)
        for number, source in enumerate(sources, start=1):
            check_text(source, f"row {number}")
        found = [self._translated(own) for own in self._hypotheses(sources, decoding or self.usual, advanced)]
        return found[0] if isinstance(texts, str) else found

    def _hypotheses(
        self, texts: Sequence[str], decoding: Decoding, advanced: Callable[[int], None] = lambda _: None
    ) -> list[list[Hypothesis]]:
        source = self.tokenizers.source
        ids = [
            [] if is_blank(text) else [*row, source.end_id]
            for text, row in zip(texts, source.encode(texts), strict=True)
        ]
        bounds = Bounds.of(self.tokenizers.target, self.record.config.tokenizer.max_length)
        return decode_all(self._lean, ids, source.padding_id, bounds, decoding, advanced)

    def _translated(self, found: Sequence[Hypothesis]) -> list[Translated]:
        target = self.tokenizers.target
        return [
            Translated(text, target.names(one.tokens), one.score, one.ended)
            for one, text in zip(found, target.decode([one.tokens for one in found]), strict=True)
        ]

    @property
    def usual(self) -> Decoding:
        """As the run's settings say."""
        return Decoding(self.record.config.decoding.beams, self.record.config.decoding.length_penalty)

    def explain(self, text: str, decoding: Decoding | None = None) -> TranslationStages:
        """Translate one text and look at every step of it.

        Raises:
            DataError: the text is blank.
        """
        source = self.tokenizers.source
        if is_blank(text):
            raise DataError("There is nothing to explain about an empty text; give one with words.")
        best = self._hypotheses([text], decoding or self.usual)[0][0]
        ids = [*source.encode([text])[0], source.end_id]
        retraced = retrace(self.model, self.tokenizers, ids, best.tokens, best.ended)
        return TranslationStages(text, tuple(ids), retraced, self._translated([best])[0])


def load_translator(run: str | Path, *, precision: Literal["auto", "fp32", "bf16"] = "auto") -> TranslationPredictor:
    """Load a translation run.

    Args:
        run: its folder.
        precision: `auto` is bf16 where the processor has it; fp32 gives the translations that were scored.

    Raises:
        RunError: there is no such run, or it is not whole.
        ConfigError: there is no such precision.
    """
    folder = run_folder.resolve(run)
    record = run_folder.read_translation(folder)
    return TranslationPredictor(folder, record, answering_precision(precision))


def _load_model(folder: Path, record: TranslationRecord, tokenizers: Tokenizers) -> Translator:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "model" / run_folder.TRANSLATOR_FILE
    if not path.is_file():
        raise RunError(f"The run in {folder} has no model; {run_folder.remedy(folder)}.")
    # Shapes without numbers: none is drawn only to be replaced.
    with torch.device("meta"):
        model = build_translator(*tokenizers.sizes, **record.config.model.model_dump())
    try:
        model.take(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"{path} does not hold the weights of this run ({reason}); {run_folder.remedy(folder)}."
        ) from None
    return model.eval()
