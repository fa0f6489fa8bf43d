"""Translating sentences: greedily beside the textbook's loop, by beam search beside transformers' generate.

The weights are those of a run, which is trained here for a few epochs where none is given: a random model never stops,
and lengths decide what decoding costs. The result says how long the translations are beside the true ones. All sides
have the same weights. TransferKit decodes in the precision that `transferkit predict` takes on this processor, the peer
in fp32; where that precision is bf16, each is there in the other one too. Outputs are compared with the peer's token by
token, and what bf16 and int8 change shows as BLEU too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

import torch

import transferkit
from benchmarks import harness, translation
from benchmarks.harness import OURS, PEER, PEER_BF16, Attempt, Benchmark
from benchmarks.translation import Pairs
from benchmarks.twin import twin_of
from transferkit.config import Precision
from transferkit.environment import quiet_libraries
from transferkit.evaluation.translation import corpus_metrics
from transferkit.generation.batches import Decoding, SourceBatch, decode_all, in_length_order, longest_target
from transferkit.generation.ctranslate2 import Quantization, export_ctranslate2, library, translated
from transferkit.generation.decoding import Bounds
from transferkit.generation.workers import at_once
from transferkit.inference.translation import TranslationPredictor, load_translator
from transferkit.models.lean_translator import LeanTranslator
from transferkit.models.translator import Translator
from transferkit.tokenization.parallel import Tokenizers
from transferkit.tokenization.trained import TrainedTokenizer
from transferkit.training.precision import threads

TARGETS = {"greedy": 30.0, "beam": 2.0}
OURS_FP32, CTRANSLATE2, CTRANSLATE2_INT8 = "transferkit_fp32", "ctranslate2", "ctranslate2_int8"
BEAMS = {"greedy": 1, "beam": 4}
# Tokens of the sources of a batch, beams counted, of which each side takes what it is fastest with.
BUDGETS = (2048, 4096, 8192, 16384)

# A difference of a peer that has one bound for all targets of a batch.
LONGEST_OF_ITS_BATCH = (
    "One that runs away is written by {} to the bound of the longest source of its batch, and cut to its own then."
)

Ids = list[list[int]]
Outputs = list[tuple[int, ...]]
# Sources and the budget to outputs.
Search = Callable[[Ids, int], Outputs]


@dataclass(frozen=True)
class Setting:
    """What all sides share."""

    model: Translator
    tokenizers: Tokenizers
    beams: int

    @property
    def bounds(self) -> Bounds:
        """Of the targets."""
        target = self.tokenizers.target
        return Bounds(target.start_id, target.end_id, translation.MAX_TOKENS)

    @property
    def padding(self) -> int:
        """The id that fills shorter sources."""
        return self.tokenizers.source.padding_id

    def sources(self, texts: list[str]) -> Ids:
        """What is translated, no longer than in training."""
        source = self.tokenizers.source
        return [[*ids[: translation.MAX_TOKENS - 1], source.end_id] for ids in source.encode(texts)]


def longest(source_length: int) -> int:
    """The most tokens of a target."""
    return longest_target(source_length, translation.MAX_TOKENS)


def cut(tokens: Iterable[int], source: list[int]) -> tuple[int, ...]:
    """What was written to the bound of the longest source of a batch, up to that of its own source."""
    return tuple(tokens)[: longest(len(source))]


@torch.no_grad()
def textbook(setting: Setting, sources: Ids, _budget: int) -> Outputs:
    """Greedy decoding as textbooks have it: sentence by sentence, the whole prefix decoded again for every token."""
    model = setting.model.eval()
    outputs = []
    for ids in sources:
        bounds, most = setting.bounds, longest(len(ids))
        encoded = model.encode(torch.tensor([ids]))
        target = torch.tensor([[bounds.start]])
        while target.shape[1] <= most:
            states = model.decode(target, encoded)
            token = model.project(states[:, -1]).argmax(-1)
            target = torch.cat([target, token.unsqueeze(1)], 1)
            if token.item() == bounds.end:
                break
        outputs.append(tuple(token for token in target[0, 1:].tolist() if token != bounds.end))
    return outputs


def ours(setting: Setting, decoder: LeanTranslator, sources: Ids, budget: int) -> Outputs:
    """TransferKit's search."""
    decoding = Decoding(setting.beams, max_tokens=budget)
    found = decode_all(decoder, sources, setting.padding, setting.bounds, decoding)
    return [best.tokens for best, *_ in found]


def generated(model: Any, bounds: Bounds, padding: int, beams: int, sources: Ids, budget: int) -> Outputs:
    """transformers' search, in batches of like lengths too."""
    outputs: Outputs = [()] * len(sources)
    special = (bounds.end, padding)
    for rows, ids, mask in in_length_order(sources, padding, budget // beams):
        found = model.generate(
            input_ids=ids, attention_mask=mask.long(), num_beams=beams, do_sample=False,
            max_new_tokens=longest(ids.shape[1]),
        )  # fmt: skip
        for row, tokens in zip(rows, found.tolist(), strict=True):
            outputs[row] = cut((token for token in tokens[1:] if token not in special), sources[row])
    return outputs


def by_ctranslate2(setting: Setting, translator: Any, sources: Ids, budget: int) -> Outputs:
    """CTranslate2's search, in batches of like lengths too, as many at once as TransferKit has."""
    outputs: Outputs = [()] * len(sources)
    source, target = setting.tokenizers.source, setting.tokenizers.target

    def work(batch: SourceBatch) -> list[list[str]]:
        rows, ids, _ = batch
        tokens = [source.names(sources[row][:-1]) for row in rows]
        return translated(translator, tokens, longest(ids.shape[1]), setting.beams)

    batches = list(in_length_order(sources, setting.padding, budget // setting.beams))
    for (rows, *_), found in zip(batches, at_once(work, batches, len(batches)), strict=True):
        for row, written in zip(rows, found, strict=True):
            outputs[row] = cut(target.ids(written), sources[row])
    return outputs


class Side:
    """One search on all sources; keeps what it gave last, and the budget that it is fastest with."""

    def __init__(self, search: Search, sources: Ids, has_budget: bool) -> None:
        self._search, self._sources = search, sources
        self.outputs: Outputs = []
        # Once before: kernels are chosen.
        search(sources[:8], BUDGETS[0])
        self.trials = {budget: self._trial(budget) for budget in BUDGETS} if has_budget else {}
        self.budget = min(self.trials, key=self.trials.__getitem__, default=BUDGETS[0])

    def __call__(self, _pair: int) -> Attempt:
        def work() -> None:
            self.outputs = self._search(self._sources, self.budget)

        return harness.measured_whole(work)

    def _trial(self, budget: int) -> float:
        """Seconds, of two times the better: one alone says as much of the machine as of the budget."""

        def once() -> float:
            begin = time.perf_counter()
            self._search(self._sources, budget)
            return time.perf_counter() - begin

        return min(once(), once())


def quality(outputs: Outputs, reference: Outputs, tokenizer: TrainedTokenizer, truth: list[str]) -> dict[str, Any]:
    """How many outputs equal those of the reference, how long they are, and their BLEU."""
    return {
        "equal_to_peer": mean(a == b for a, b in zip(outputs, reference, strict=True)),
        "mean_tokens": mean(map(len, outputs)),
        "bleu": corpus_metrics(tokenizer.decode(outputs), truth)["bleu"],
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure each way of decoding that is asked for."""
    options = parse(arguments)
    quiet_libraries()
    splits = translation.pairs(options.sentences)
    with TemporaryDirectory() as scratch:
        predictor = load_translator(options.run or _trained(splits, options.epochs, Path(scratch)))
        for search in options.search:
            folder = Path(scratch) / search
            harness.write(measure(search, predictor, splits["test"], options, folder), options.out)


def measure(
    search: str, predictor: TranslationPredictor, test: Pairs, options: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """The contents of the JSON file; exported models go to `folder`."""
    setting = Setting(predictor.model, predictor.tokenizers, BEAMS[search])
    target, sources = setting.tokenizers.target, setting.sources(test.sources)
    # The textbook takes one sentence at a time.
    unbatched = {PEER, PEER_BF16} if setting.beams == 1 else set()
    sides = {
        name: Side(build(), sources, name not in unbatched)
        for name, build in _searches(setting, predictor, folder).items()
    }
    attempts = harness.alternate(options.pairs, sides)
    work = {
        "data": translation.DATA,
        "rows": len(sources),
        "parameters": sum(parameter.numel() for parameter in setting.model.parameters()),
        "beams": setting.beams,
        "precision": predictor.precision,
        "true_mean_tokens": mean(map(len, target.encode(test.targets))),
        "budgets": {name: side.budget for name, side in sides.items()},
        "pairs": options.pairs,
    }
    variant, targets = f"{search}{options.unusual}", {PEER: TARGETS[search]}
    benchmark = Benchmark("decoding", variant, work, DIFFERENCES[search], len(sources), targets)
    result = harness.summarise(benchmark, attempts)
    for name, side in sides.items():
        result.setdefault(name, _times(attempts[name], attempts[PEER]))
        result[name] |= quality(side.outputs, sides[PEER].outputs, target, test.targets)
        result[name]["trial_seconds_by_budget"] = {str(budget): seconds for budget, seconds in side.trials.items()}
    alone = {
        name: partial(by_itself, search, name, predictor.folder, test.sources, side.budget, folder)
        for name, side in sides.items()
    }
    return harness.with_peaks_alone(result, alone)


def by_itself(search: str, name: str, run: Path, texts: list[str], budget: int, folder: Path, _pair: int) -> Attempt:
    """One side, loaded and asked for all translations in a process that has no other."""
    quiet_libraries()

    def work() -> None:
        predictor = load_translator(run)
        setting = Setting(predictor.model, predictor.tokenizers, BEAMS[search])
        _searches(setting, predictor, folder)[name]()(setting.sources(texts), budget)

    return harness.measured_whole(work)


_COMMON = [
    "Sides that take batches take such of like lengths, of the number of tokens that they are fastest with.",
    "TransferKit and CTranslate2 work on as many batches at once as there are threads, one with each; the peers on "
    "one, with all of them.",
    "Peaks of memory are of each side in a process of its own, from loading to the last translation; all load the run, "
    "from which they build their own form.",
    "TransferKit computes in the precision of `predict`, which `work` names, and the peer in fp32; where that is bf16, "
    "transferkit_fp32 computes in fp32, and peer_bf16 in bf16, weights and all.",
    "A target ends at twice its source and ten tokens more. " + LONGEST_OF_ITS_BATCH.format("generate and CTranslate2"),
]
DIFFERENCES = {
    "greedy": ["The peer is the textbook's loop: one sentence at a time, without a cache.", *_COMMON],
    "beam": [
        *_COMMON,
        "TransferKit lets a sentence go from the batch when it is done; generate keeps it to the end of the batch.",
    ],
}


def _trained(splits: dict[str, Pairs], epochs: int, folder: Path) -> Path:
    """A run of the library."""
    harness.say(f"no --run: training for {epochs} epochs")
    transferkit.train(translation.configuration(splits, folder, model=translation.MODEL, epochs=epochs), folder / "run")
    return folder / "run"


def _searches(setting: Setting, predictor: TranslationPredictor, folder: Path) -> dict[str, Callable[[], Search]]:
    """What builds each side; exported models go to `folder`."""

    def lean(precision: Precision) -> Search:
        return partial(ours, setting, LeanTranslator(setting.model, precision))

    def peer(dtype: torch.dtype) -> Search:
        if setting.beams == 1:
            # The other sides have the model as it is.
            model = setting.model if dtype == torch.float32 else deepcopy(setting.model).to(dtype)
            return partial(textbook, replace(setting, model=model))
        sizes = predictor.record.config.model
        twin = twin_of(setting.model, setting.tokenizers.target, sizes, 2 * translation.MAX_TOKENS)
        return partial(generated, twin.to(dtype), setting.bounds, setting.padding, setting.beams)

    def exported(name: str, quantization: Quantization | None) -> Search:
        vocabularies = setting.tokenizers.source.vocabulary(), setting.tokenizers.target.vocabulary()
        if not (folder / name).is_dir():
            export_ctranslate2(setting.model, *vocabularies, folder / name, quantization)
        # The library sets the number of threads of the whole process to those of one of its workers.
        with threads(torch.get_num_threads()):
            translator = library().Translator(
                str(folder / name), inter_threads=torch.get_num_threads(), intra_threads=1
            )
        return partial(by_ctranslate2, setting, translator)

    searches = {OURS: partial(lean, predictor.precision), PEER: partial(peer, torch.float32)}
    if predictor.precision == "bf16":
        searches[OURS_FP32] = partial(lean, "fp32")
        searches[PEER_BF16] = partial(peer, torch.bfloat16)
    searches[CTRANSLATE2] = partial(exported, CTRANSLATE2, None)
    searches[CTRANSLATE2_INT8] = partial(exported, CTRANSLATE2_INT8, "int8")
    return searches


def _times(attempts: list[Attempt], peers: list[Attempt]) -> dict[str, Any]:
    """Of a side that stands beside the two that are compared; ratios are the peer's seconds over its own."""
    return {
        "seconds": [attempt.seconds for attempt in attempts],
        "median": median(attempt.seconds for attempt in attempts),
        **{f"ratio_{name}": value for name, value in harness.ratios(attempts, peers).items()},
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--search", nargs="+", choices=list(BEAMS), default=list(BEAMS), help="a beam search has 4")
    parser.add_argument("--sentences", type=harness.positive, default=500, help="to translate")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--run", type=Path, help="of a translation")
    weights.add_argument("--epochs", type=harness.positive, default=5, help="of the training where no run is given")
    return harness.parsed(parser, arguments, "sentences", "epochs")


if __name__ == "__main__":
    harness.run(main)
