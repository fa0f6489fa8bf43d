"""Training a translator: target tokens a second of TransferKit beside Seq2SeqTrainer on a Marian of the same sizes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

import torch

import transferkit
from benchmarks import harness, translation
from benchmarks.harness import OURS, PEER, PEER_BF16, Answers, Attempt, Benchmark
from benchmarks.peer import ON_A_CPU, OUTSIDE, PRECISION, WARM_UP
from benchmarks.translation import Pairs
from benchmarks.twin import untrained_twin
from transferkit.config import TranslatorConfig
from transferkit.environment import quiet_libraries
from transferkit.tokenization.parallel import Tokenizers
from transferkit.tokenization.trained import TrainedTokenizer
from transferkit.translation_pipeline import ADAM

VARIANT = "help-en-it"
TARGET = 2.5
# Marian has its norms after each sublayer, so ours has them there too, and smaller steps, which these bear.
MODEL = TranslatorConfig(pre_norm=False)
LEARNING_RATE = 8e-4
# Both validate on nothing that takes time: TransferKit has to have some rows, the peer has none.
VALIDATION_ROWS, TEST_ROWS = 8, 8
DIFFERENCES = [
    "The peer takes batches of a fixed number of rows of like lengths, which have as many tokens on average as "
    "TransferKit's batches of a fixed number of tokens.",
    PRECISION.format(OUTSIDE),
    f"TransferKit validates on {VALIDATION_ROWS} rows after each epoch and saves its weights; the peer does neither.",
    WARM_UP,
    "Both have the same tokenizer, made beforehand.",
    harness.PEAKS_ALONE.format("one epoch"),
]


def ours(splits: dict[str, Pairs], tokenizers: Path, epochs: int, batch_tokens: int, seed: int) -> Attempt:
    """Seconds of training with its validation, as the run itself reports them."""
    quiet_libraries()

    def work() -> tuple[float | None, Answers | None]:
        with TemporaryDirectory() as scratch:
            folder = Path(scratch)
            config = translation.configuration(
                splits, folder, tokenizers, MODEL,
                learning_rate=LEARNING_RATE, epochs=epochs, batch_tokens=batch_tokens,
            )  # fmt: skip
            result = transferkit.train(config.model_copy(update={"seed": seed}), folder / "run")
        return result.train_seconds, None

    return harness.measured(work)


def peer(splits: dict[str, Pairs], tokenizers: Path, epochs: int, batch_tokens: int, bf16: bool, seed: int) -> Attempt:
    """Seconds of `trainer.train()`."""
    quiet_libraries()

    def work() -> tuple[float | None, Answers | None]:
        torch.manual_seed(seed)
        with TemporaryDirectory() as scratch:
            train, tokenizer = splits["train"], Tokenizers.load(tokenizers).source
            rows = rows_of_a_batch(ended(tokenizer, train.sources), ended(tokenizer, train.targets), batch_tokens)
            trainer = make_trainer(train, tokenizer, epochs, rows, bf16, seed, scratch)
            begin = time.perf_counter()
            trainer.train()
            return time.perf_counter() - begin, None

    return harness.measured(work)


def sides(
    splits: dict[str, Pairs], tokenizers: Path, epochs: int, batch_tokens: int, peers: list[str]
) -> dict[str, Callable[[int], Attempt]]:
    """What takes turns; the number of a pair is its seed."""
    common = (splits, tokenizers, epochs, batch_tokens)
    return {OURS: partial(ours, *common), **{name: partial(peer, *common, name == PEER_BF16) for name in peers}}


def make_trainer(
    train: Pairs, tokenizer: TrainedTokenizer, epochs: float, rows: int, bf16: bool, seed: int, folder: str
) -> Any:
    """A Seq2SeqTrainer of so many epochs, parts of one included, in batches of `rows`, with a new Marian."""
    from datasets import Dataset
    from transformers import (
        DataCollatorForSeq2Seq,
        PreTrainedTokenizerFast,
        PrinterCallback,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
    )

    sources, labels = ended(tokenizer, train.sources), ended(tokenizer, train.targets)
    model = untrained_twin(tokenizer, MODEL, 2 * translation.MAX_TOKENS)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend, unk_token="[UNK]", pad_token="[PAD]", bos_token="[SOS]", eos_token="[EOS]"
    )
    settings = Seq2SeqTrainingArguments(
        output_dir=folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=rows,
        train_sampling_strategy="group_by_length",
        learning_rate=LEARNING_RATE,
        warmup_steps=round(translation.TRAINING.warmup_ratio * epochs * len(labels) / rows),
        lr_scheduler_type="linear",
        adam_beta1=ADAM.betas[0],
        adam_beta2=ADAM.betas[1],
        adam_epsilon=ADAM.eps,
        label_smoothing_factor=translation.TRAINING.label_smoothing,
        bf16=bf16,
        **ON_A_CPU,
        seed=seed,
    )
    trainer = Seq2SeqTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_dict({"input_ids": sources, "labels": labels}),
        data_collator=DataCollatorForSeq2Seq(wrapped, model=model),
    )
    # It prints on standard output, where the JSON goes.
    trainer.remove_callback(PrinterCallback)
    return trainer


def ended(tokenizer: TrainedTokenizer, texts: list[str]) -> list[list[int]]:
    """Ids of each text and the end."""
    return [[*ids, tokenizer.end_id] for ids in tokenizer.encode(texts)]


def rows_of_a_batch(sources: list[list[int]], targets: list[list[int]], tokens: int) -> int:
    """So many that batches have on average so many tokens of whichever side is longer, as TransferKit's have."""
    longest = mean(max(len(source), len(target)) for source, target in zip(sources, targets, strict=True))
    return max(1, round(tokens / longest))


def main(arguments: list[str] | None = None) -> None:
    """Measure."""
    options = parse(arguments)
    quiet_libraries()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        splits, tokenizer = prepared(translation.pairs(TEST_ROWS, VALIDATION_ROWS), options.rows, folder)
        harness.say("once on a few rows, untimed: libraries load and kernels are chosen")
        few = splits | {"train": splits["train"].take(range(min(64, len(splits["train"]))))}
        for side in sides(few, folder, 1, options.batch_tokens, options.peers).values():
            side(0)
        attempts = harness.alternate(
            options.pairs, sides(splits, folder, options.epochs, options.batch_tokens, options.peers)
        )
        result = summarised(splits["train"], tokenizer, options, attempts)
        # What a training needs at most it needs in its first epoch.
        harness.with_peaks_alone(result, sides(splits, folder, 1, options.batch_tokens, options.peers))
    harness.write(result, options.out)


def summarised(
    train: Pairs, tokenizer: TrainedTokenizer, options: argparse.Namespace, attempts: dict[str, list[Attempt]]
) -> dict[str, Any]:
    """The contents of the JSON file, peaks of memory apart."""
    tokens = options.epochs * sum(map(len, ended(tokenizer, train.targets)))
    work = {
        "data": translation.DATA,
        "rows": len(train),
        "target_tokens": tokens,
        "epochs": options.epochs,
        "batch_tokens": options.batch_tokens,
        "pairs": options.pairs,
    }
    variant, rows = f"{VARIANT}{options.unusual}", len(train) * options.epochs
    result = harness.summarise(
        Benchmark("translation_training", variant, work, DIFFERENCES, rows, {PEER: TARGET}, new_seeds=True), attempts
    )
    for name, done in attempts.items():
        result[name]["target_tokens_per_second"] = tokens / median(attempt.seconds for attempt in done)
    return result


def prepared(splits: dict[str, Pairs], rows: int | None, folder: Path) -> tuple[dict[str, Pairs], TrainedTokenizer]:
    """The splits without the pairs that are too long, and the tokenizer of all training rows, kept in `folder`."""
    train = splits["train"]
    tokenizer = TrainedTokenizer.train([*train.sources, *train.targets], "bpe")
    Tokenizers(tokenizer, tokenizer).save(folder)
    short = {split: _short(some, tokenizer) for split, some in splits.items()}
    return short | {"train": short["train"].take(range(len(short["train"]))[:rows])}, tokenizer


def _short(some: Pairs, tokenizer: TrainedTokenizer) -> Pairs:
    sides = zip(ended(tokenizer, some.sources), ended(tokenizer, some.targets), strict=True)
    return some.take([row for row, (a, b) in enumerate(sides) if max(len(a), len(b)) < translation.MAX_TOKENS])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--rows", type=harness.positive, default=1500, help="of training")
    parser.add_argument("--epochs", type=harness.positive, default=1, help="that both train")
    parser.add_argument(
        "--batch-tokens",
        type=harness.positive,
        default=translation.TRAINING.batch_tokens,
        help="of a batch, on both sides; TransferKit's default unless said",
    )
    harness.peers_option(parser)
    return harness.parsed(parser, arguments, "rows", "epochs", "batch_tokens")


if __name__ == "__main__":
    harness.run(main)
