"""Translations as they are printed and written: for texts, for files, step by step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferkit.errors import DataError
from transferkit.formatting import percent
from transferkit.generation.batches import Decoding
from transferkit.generation.decoding import Sampler
from transferkit.inference.answers import Asked, Quoting, check_out, write_rows
from transferkit.inference.translation import Translated, TranslationStages, load_translator

COLUMN = "translation"
# As many words of the source as are shown for each word of the target.
_LOOKED_AT = 3


@dataclass(frozen=True)
class Choice:
    """What the user says of decoding; None and False leave it to the run."""

    beams: int | None = None
    best: int = 1
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

    def decoding(self, usual: Decoding) -> Decoding:
        """Sampling where any of its settings is given, else a beam search.

        Raises:
            DataError: the settings do not go together.
        """
        if self.temperature is None and self.top_k is None and self.top_p is None:
            beams = self.beams or max(usual.beams, self.best)
            if self.best > beams:
                raise DataError(f"--best {self.best} is more than the {beams} hypotheses of the search; raise --beam.")
            return Decoding(beams, usual.length_penalty)
        if self.beams is not None or self.best > 1:
            raise DataError("--beam and --best search, and --temperature, --top-k and --top-p draw; choose one.")
        try:
            temperature, top_p = (1.0 if asked is None else asked for asked in (self.temperature, self.top_p))
            sampler = Sampler(temperature, self.top_k, top_p)
        except ValueError as error:
            raise DataError(str(error)) from None
        return Decoding(pick=sampler)


def translate_texts(
    run: Path, texts: Sequence[str], choice: Choice, *, precision: Asked, as_json: bool, explained: bool,
    pictures: Path | None = None,
) -> None:  # fmt: skip
    """Print the translations of each of `texts`; `pictures` is a folder for those of attention."""
    predictor = load_translator(run, precision="fp32" if explained else precision)
    decoding = choice.decoding(predictor.usual)
    if explained:
        stages = [predictor.explain(text, decoding) for text in texts]
        if pictures is not None:
            # What draws takes longer to import than a translation.
            from transferkit.inference.attention_files import draw_attention

            draw_attention([one.retraced for one in stages], pictures)
        answers = [_stages_as_json(one) for one in stages]
        shown = "\n\n".join(_stages_as_text(one) for one in stages)
    else:
        found = [own[: choice.best] for own in predictor(texts, decoding)]
        answers = [_as_json(text, own) for text, own in zip(texts, found, strict=True)]
        shown = "\n".join(_line(one, choice.best) for own in found for one in own)
    print(json.dumps(answers[0] if len(answers) == 1 else answers, ensure_ascii=False) if as_json else shown)


def translate_file(
    run: Path, source: Path, choice: Choice, *, precision: Asked, columns: Sequence[str], encoding: str | None,
    quoting: Quoting, out: Path | None, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write the rows of `source` with their translation, a batch at a time, in the order of the file.

    Raises:
        RunError: `out` is there already and is not to be overwritten.
        DataError: the file cannot be read, or a row has no text.
    """
    from transferkit.data.prediction_input import iter_texts
    from transferkit.data.text_lines import FileOptions

    check_out(out, overwrite)
    predictor = load_translator(run, precision=precision)
    decoding = choice.decoding(predictor.usual)
    batches = iter_texts(
        source, is_pair=False, named=columns, usual=predictor.record.data.languages[:1],
        options=FileOptions(encoding, quoting),
    )  # fmt: skip

    def rows() -> Iterator[dict[str, str]]:
        for batch in batches:
            found = predictor([text for _, (text,) in batch], decoding)
            for (row, _), (best, *_) in zip(batch, found, strict=True):
                yield row | {COLUMN: best.text}

    write_rows(out, rows(), as_json)


def _line(one: Translated, best: int) -> str:
    return one.text if best == 1 else f"{one.score:.3f}\t{one.text}"


def _as_json(text: str, own: Sequence[Translated]) -> dict[str, Any]:
    return {"source": text, "translations": [{"text": one.text, "score": one.score} for one in own]}


def _stages_as_json(stages: TranslationStages) -> dict[str, Any]:
    return {
        "source": stages.source,
        "tokens": stages.retraced.source,
        "input_ids": stages.source_ids,
        "target_tokens": stages.retraced.written,
        "probabilities": stages.retraced.probabilities,
        "score": stages.translated.score,
        "translation": stages.translated.text,
    }


def _stages_as_text(stages: TranslationStages) -> str:
    """The stages one below the other, numbered as data passes through them."""
    one = stages.retraced
    # The mean over the heads of the last layer: [target, source].
    looked = one.attentions.cross[-1][0].mean(0)
    width = max(len(token) for token in (*one.source, *one.written))
    steps = []
    for token, probability, weights in zip(one.written, one.probabilities, looked, strict=True):
        most = weights.topk(min(_LOOKED_AT, len(weights)))
        at = ", ".join(
            f"{one.source[place]} {percent(share, 0)}"
            for share, place in zip(most.values.tolist(), most.indices.tolist(), strict=True)
        )
        steps.append(f"   {token:<{width}}  {percent(probability):>8}  {at}")
    return "\n".join(
        [
            "1. source",
            f"   {stages.source}",
            f"2. tokens ({len(one.source)})",
            *(
                f"   {token:<{width}}  id {number:>6}"
                for token, number in zip(one.source, stages.source_ids, strict=True)
            ),
            "3. target, token by token: its probability, and where the last layer looks, mean over its heads",
            *steps,
            f"4. score: {stages.translated.score:.4f}",
            f"5. translation: {stages.translated.text}",
        ]
    )
