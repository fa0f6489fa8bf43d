"""Translations as they are printed and written: for texts, for files, step by step."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transferkit.errors import ConfigError, RunError
from transferkit.formatting import one_line, percent
from transferkit.generation.batches import Decoding
from transferkit.generation.decoding import Sampler
from transferkit.inference.answers import Asked, Quoting, Unit, check_decoded, check_out, note, write_rows
from transferkit.inference.translation import Translated, TranslationStages, load_translator

COLUMN = "translation"
# In JSON alone.
ENDED_COLUMN = "ended"
# As many tokens of the source as are shown for each token of the target.
_LOOKED_AT = 3


@dataclass(frozen=True)
class Choice:
    """What the user says of decoding; None leaves it to the run."""

    beam: int | None = None
    best: int = 1
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    length_penalty: float | None = None
    max_length: int | None = None

    def decoding(self, usual: Decoding) -> Decoding:
        """Sampling where any of its settings is given, else a beam search.

        Raises:
            ConfigError: the settings do not go together, one has no effect, or one is out of range.
        """
        draws = any(asked is not None for asked in (self.temperature, self.top_k, self.top_p))
        try:
            return self._drawn() if draws else self._searched(usual)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def refuse_best(self, option: str) -> None:
        """Say that `option` takes one translation of each text.

        Raises:
            ConfigError: several are asked for.
        """
        if self.best > 1:
            raise ConfigError(f"--best has no effect with {option}, which takes the best translation; leave it out.")

    def _searched(self, usual: Decoding) -> Decoding:
        if self.seed is not None:
            raise ConfigError("--seed has no effect where no word is drawn; add --temperature, --top-k or --top-p.")
        beams = self.beam or max(usual.beams, self.best)
        if self.best > beams:
            raise ConfigError(f"--best {self.best} is more than the {beams} hypotheses of the search; raise --beam.")
        if self.length_penalty is not None and beams == 1:
            raise ConfigError("--length-penalty has no effect on a search of one hypothesis; raise --beam.")
        penalty = usual.length_penalty if self.length_penalty is None else self.length_penalty
        return Decoding(beams, penalty, max_length=self.max_length)

    def _drawn(self) -> Decoding:
        if self.beam is not None or self.best > 1 or self.length_penalty is not None:
            raise ConfigError(
                "--beam, --best and --length-penalty search, and --temperature, --top-k and --top-p draw; choose one."
            )
        temperature, top_p = (1.0 if asked is None else asked for asked in (self.temperature, self.top_p))
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        return Decoding(pick=Sampler(temperature, self.top_k, top_p, generator), max_length=self.max_length)


def translate_texts(
    run: Path, texts: Sequence[str], choice: Choice, *, unit: Unit, precision: Asked, as_json: bool, explained: bool,
    pictures: Path | None = None,
) -> None:  # fmt: skip
    """Print the translations of each of `texts`; `pictures` is a folder for those of attention.

    Raises:
        ConfigError: `choice` cannot be met, or has no effect.
        DataError: a text is not UTF-8, or is empty and to be explained.
        RunError: there is no run that was trained to its end, or `pictures` holds something already.
    """
    check_decoded(texts, unit)
    if explained:
        choice.refuse_best("--explain")
    if pictures is not None:
        _check_pictures(pictures)
    predictor = load_translator(run, precision="fp32" if explained else precision)
    decoding = choice.decoding(predictor.usual)
    if explained:
        stages = [predictor.explain(text, decoding) for text in texts]
        if pictures is not None:
            # What draws takes longer to import than a translation.
            from transferkit.inference.attention_files import draw_attention

            draw_attention([one.retraced for one in stages], pictures)
        ended = Counter(one.translated.ended for one in stages)
        answers = [_stages_as_json(one) for one in stages]
        shown = "\n\n".join(_stages_as_text(one) for one in stages)
    else:
        found = [own[: choice.best] for own in predictor(texts, decoding)]
        ended = Counter(one.ended for own in found for one in own)
        answers = [_as_json(text, own) for text, own in zip(texts, found, strict=True)]
        shown = "\n".join(_line(one, choice.best) for own in found for one in own)
    print(json.dumps(answers[0] if len(answers) == 1 else answers, ensure_ascii=False) if as_json else shown)
    _warn_of_cut(ended)


def translate_file(
    run: Path, source: Path, choice: Choice, *, precision: Asked, columns: Sequence[str], encoding: str | None,
    quoting: Quoting, out: Path | None, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write the rows of `source` with their translation, a batch at a time, in the order of the file.

    The translation of a row without a text is empty.

    Raises:
        ConfigError: `choice` cannot be met, or has no effect.
        RunError: `out` is there already and is not to be overwritten.
        DataError: the file cannot be read, or has a column of a name that is added.
    """
    from transferkit.data.prediction_input import iter_texts
    from transferkit.data.text_lines import FileOptions

    choice.refuse_best("--file")
    check_out(out, overwrite)
    predictor = load_translator(run, precision=precision)
    decoding = choice.decoding(predictor.usual)
    added = (COLUMN, ENDED_COLUMN) if as_json else (COLUMN,)
    batches = iter_texts(
        source, is_pair=False, may_be_empty=True, named=columns, usual=predictor.record.data.languages[:1], added=added,
        options=FileOptions(encoding, quoting), said=note,
    )  # fmt: skip

    ended: Counter[bool] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        for batch in batches:
            found = predictor([text for _, (text,) in batch], decoding)
            for (row, _), (best, *_) in zip(batch, found, strict=True):
                ended[best.ended] += 1
                yield row | {COLUMN: best.text} | ({ENDED_COLUMN: best.ended} if as_json else {})

    write_rows(out, rows(), as_json)
    _warn_of_cut(ended)


def _check_pictures(folder: Path) -> None:
    """Whether pictures may be written into `folder`.

    Raises:
        RunError: it is a file, or holds something already.
    """
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise RunError(f"{folder} exists and is not empty; choose another folder for --attention.")


def _line(one: Translated, best: int) -> str:
    """A translation, with its score where there are several, without a line break."""
    return one_line(one.text if best == 1 else f"{one.score:.3f}\t{one.text}")


def _warn_of_cut(ended: Counter[bool]) -> None:
    """Say on standard error how many translations did not end, if any."""
    if ended[False]:
        print(
            f"transferkit: cut off before their end: {ended[False]:,} of {ended.total():,} translations; give them "
            "more tokens with --max-length.",
            file=sys.stderr,
        )


def _as_json(text: str, own: Sequence[Translated]) -> dict[str, Any]:
    translations = [{"text": one.text, "score": one.score, "ended": one.ended} for one in own]
    return {"source": text, "translations": translations}


def _stages_as_json(stages: TranslationStages) -> dict[str, Any]:
    return {
        "source": stages.source,
        "tokens": stages.retraced.source,
        "input_ids": stages.source_ids,
        "target_tokens": stages.retraced.written,
        "probabilities": stages.retraced.probabilities,
        "attention": _attention(stages).tolist(),
        "score": stages.translated.score,
        "ended": stages.translated.ended,
        "translation": stages.translated.text,
    }


def _attention(stages: TranslationStages) -> Tensor:
    """Where the last layer looks, mean over its heads: [target, source]."""
    return stages.retraced.attentions.cross[-1][0].mean(0)


def _stages_as_text(stages: TranslationStages) -> str:
    """The stages one below the other, numbered as data passes through them."""
    one, looked = stages.retraced, _attention(stages)
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
