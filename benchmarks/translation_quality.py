"""What a budget of training time buys: BLEU of TransferKit's translator beside that of a Marian under Seq2SeqTrainer.

TransferKit trains for some epochs with its own settings. The peer, timed on a small part of the data beforehand, is
then given as many epochs, parts of one included, as fit in the same seconds, so that its learning rate falls to nothing
at the end too. Both translate the same test sentences greedily.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import transferkit
from benchmarks import harness, translation
from benchmarks.decoding import LONGEST_OF_ITS_BATCH, generated
from benchmarks.harness import OURS, PEER
from benchmarks.translation import Pairs
from benchmarks.translation_training import LEARNING_RATE, VARIANT, ended, make_trainer, prepared
from transferkit.environment import describe, quiet_libraries
from transferkit.evaluation.results import TranslationScores
from transferkit.evaluation.translation import score
from transferkit.generation.decoding import Bounds
from transferkit.tokenization.trained import TrainedTokenizer

# Rows that the peer is timed on.
TRIAL_ROWS = 1500
# Of a batch of the peer: those that it learns most with. Its loss was 5.4 after a third of an epoch, 5.8 with half of
# the learning rate, and 6.3 to 6.8 in batches of 73 rows, which are no faster.
PEER_ROWS = 16
# Tokens of the sources of a batch of translations.
BUDGET = 4096
SEED = 0
DIFFERENCES = [
    f"The peer takes batches of {PEER_ROWS} rows of like lengths, with which it learnt most of those that were tried; "
    f"TransferKit those of its defaults, of {translation.TRAINING.batch_tokens:,} tokens.",
    "The peer trains in fp32; TransferKit chooses its precision by measuring the machine.",
    "TransferKit has its norms before each sublayer and the learning rate of its defaults, "
    f"{translation.TRAINING.learning_rate:g}; Marian has them after it, and {LEARNING_RATE:g}.",
    "TransferKit's matrices begin Xavier-uniform, and Marian's smaller.",
    "TransferKit translates validation rows after each epoch, saves its weights, and keeps those of the epoch with the "
    f"best {translation.TRAINING.best_metric}, all within the seconds; the peer does none of it and keeps its last.",
    "Both have the same tokenizer, made beforehand.",
    "A translation ends at twice its source and ten tokens more. " + LONGEST_OF_ITS_BATCH.format("the peer"),
]


def ours(splits: dict[str, Pairs], tokenizers: Path, epochs: int, run: Path | None = None) -> dict[str, Any]:
    """Train as the library does by itself, validation and checkpoints included; the run is kept where one is named."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = translation.configuration(splits, folder, tokenizers, translation.MODEL, epochs=epochs)
        greedy = config.model_copy(update={"decoding": config.decoding.model_copy(update={"beams": 1})})
        result = transferkit.train(greedy, run or folder / "run")
    assert result.translation is not None, "a translation that was not stopped has scores"
    return _side(result.train_seconds, epochs, result.total_parameters, result.translation)


def peer(splits: dict[str, Pairs], tokenizer: TrainedTokenizer, seconds: float) -> dict[str, Any]:
    """Train a Marian in fp32 for about so many seconds."""
    trial = splits["train"].take(range(min(TRIAL_ROWS, len(splits["train"]))))
    # Once on a few rows: libraries load and kernels are chosen.
    _trained(trial.take(range(min(64, len(trial)))), tokenizer, 1.0)
    taken, _ = _trained(trial, tokenizer, 1.0)
    epochs = epochs_within(seconds, taken, len(trial), len(splits["train"]))
    harness.say(f"the peer gets {epochs:.2f} epochs")
    taken, model = _trained(splits["train"], tokenizer, epochs)
    test = splits["test"]
    bounds = Bounds(tokenizer.start_id, tokenizer.end_id, translation.MAX_TOKENS)
    outputs = generated(model.eval(), bounds, tokenizer.padding_id, 1, ended(tokenizer, test.sources), BUDGET)
    # Its table of positions is a frozen parameter; ours is a buffer.
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return _side(taken, epochs, parameters, score(tokenizer.decode(outputs), test.targets, test.sources, 0))


def epochs_within(seconds: float, trial_seconds: float, trial_rows: int, rows: int) -> float:
    """How many epochs over `rows` take so many seconds, where one over `trial_rows` takes `trial_seconds`."""
    return seconds / trial_seconds * trial_rows / rows


def _trained(train: Pairs, tokenizer: TrainedTokenizer, epochs: float) -> tuple[float, Any]:
    """Seconds of the training, and the model."""
    torch.manual_seed(SEED)
    with TemporaryDirectory() as scratch:
        trainer = make_trainer(train, tokenizer, epochs, PEER_ROWS, False, SEED, scratch)
        begin = time.perf_counter()
        trainer.train()
        return time.perf_counter() - begin, trainer.model


def _side(seconds: float, epochs: float, parameters: int, scores: TranslationScores) -> dict[str, Any]:
    return {
        "train_seconds": seconds,
        "epochs": epochs,
        "parameters": parameters,
        "test_rows": scores.rows,
        "scores": scores.metrics,
        "intervals": scores.intervals,
        "signatures": scores.signatures,
    }


def main(arguments: list[str] | None = None) -> None:
    """Train both and write their scores."""
    options = parse(arguments)
    quiet_libraries()
    with TemporaryDirectory() as scratch:
        splits, tokenizer = prepared(translation.pairs(options.test), options.rows, Path(scratch))
        found = {OURS: ours(splits, Path(scratch), options.epochs, options.run)}
        harness.say(f"{OURS}: {found[OURS]['scores']}")
        found[PEER] = peer(splits, tokenizer, found[OURS]["train_seconds"])
    work = {"data": translation.DATA, "rows": len(splits["train"]), "epochs": options.epochs}
    result = {
        "schema": harness.SCHEMA, "name": "translation_quality", "variant": f"{VARIANT}{options.unusual}", "work": work,
        "differences": DIFFERENCES, "budget": found,
        "environment": describe(), "threads": torch.get_num_threads(), "date": harness.today(),
    }  # fmt: skip
    harness.write(result, options.out)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__, pairs=None)
    parser.add_argument("--rows", type=harness.positive, help="of training; all unless said")
    parser.add_argument("--test", type=harness.positive, default=1000, help="rows to translate")
    parser.add_argument(
        "--epochs", type=harness.positive, default=5, help="of TransferKit, whose seconds are the budget"
    )
    parser.add_argument("--run", type=Path, help="where TransferKit's is kept, for benchmarks.decoding")
    return harness.parsed(parser, arguments, "rows", "test", "epochs")


if __name__ == "__main__":
    harness.run(main)
