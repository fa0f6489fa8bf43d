"""Training with one strategy on paraphrase pairs: TransferKit beside Trainer, and PEFT where it has the strategy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

from benchmarks import data, flops, harness
from benchmarks.harness import OURS, PEER, PEER_BF16, Attempt, Benchmark
from benchmarks.peer import DIFFERENCES, OUTSIDE, PRECISION, train_peer
from benchmarks.recipe import BACKBONE, MAX_LENGTH, STRATEGIES, Recipe, of_strategy, train_ours
from transferkit.config import TokenizationConfig
from transferkit.data.batching import FeatureTable, LengthGroupedSampler
from transferkit.environment import quiet_libraries
from transferkit.models.hub import locate
from transferkit.tokenization.pretrained import TextTokenizer

# Of training, and as many to measure quality on.
ROWS = 400
LAST_LAYERS = 2
EPOCHS, OTHER_EPOCHS = {"linear-probe": 10, "partial": 5}, 3
TARGETS = {
    "lora": {PEER: 4.0, PEER_BF16: 2.0},
    "full": {PEER: 2.5},
    "bottleneck": {PEER: 3.5},
    "linear-probe": {PEER: 25.0},
    "partial": {PEER: 5.0},
}


def ours(recipe: Recipe, splits: data.Splits, seed: int) -> Attempt:
    """Seconds of training with its validation, as the run itself reports them."""
    quiet_libraries()

    def work() -> tuple[float | None, harness.Answers | None]:
        result, answers = train_ours(recipe, splits, seed)
        return result.train_seconds, answers

    with harness.no_states_kept():
        return harness.measured(work)


def peer(recipe: Recipe, splits: data.Splits, bf16: bool, seed: int) -> Attempt:
    """Seconds of `trainer.train()`."""
    quiet_libraries()

    def work() -> tuple[float | None, harness.Answers | None]:
        outcome = train_peer(recipe, splits, seed, bf16)
        return outcome.seconds, outcome.answers

    return harness.measured(work)


def sides(recipe: Recipe, splits: data.Splits, peers: list[str]) -> dict[str, Callable[[int], Attempt]]:
    """What takes turns; the number of a pair is its seed, so quality is the mean over seeds."""
    chosen = {name: partial(peer, recipe, splits, name == PEER_BF16) for name in peers}
    return {OURS: partial(ours, recipe, splits), **chosen}


def padding_share(recipe: Recipe, splits: data.Splits) -> float:
    """The share of padding among the tokens of TransferKit's training batches, as a run says it."""
    tokenizer = TextTokenizer.load(locate(BACKBONE).folder, TokenizationConfig(), MAX_LENGTH)
    table = FeatureTable.from_arrow(tokenizer.encode_table(splits.train.texts), tokenizer.pad_token_id)
    return table.padding_share(LengthGroupedSampler(table.lengths, recipe.batch_size, seed=0))


def main(arguments: list[str] | None = None) -> None:
    """Measure one strategy."""
    options = parse(arguments)
    recipe = of_strategy(options.strategy, options.epochs, options.last_layers)
    splits = data.mrpc(options.rows, test=options.test_rows)
    harness.say("once on a few rows, untimed: libraries load and kernels are chosen")
    for side in sides(replace(recipe, epochs=1), data.mrpc(16, validation=8, test=8), options.peers).values():
        side(0)
    peak_before = flops.peak_flops()
    attempts = harness.alternate(options.pairs, sides(recipe, splits, options.peers))
    work = {
        "data": splits.name,
        "backbone": BACKBONE,
        "strategy": recipe.spec.label,
        "rows": len(splits.train),
        "validation_rows": len(splits.validation),
        "test_rows": len(splits.test),
        "epochs": recipe.epochs,
        "batch": recipe.batch_size,
        "max_length": MAX_LENGTH,
        "learning_rate": recipe.learning_rate,
        "warmup_steps": recipe.warmup_steps(len(splits.train)),
        "weight_decay": recipe.weight_decay,
        "pairs": options.pairs,
    }
    benchmark = Benchmark(
        name="finetune",
        variant=f"{options.strategy}{options.unusual}",
        work=work,
        differences=[
            *DIFFERENCES,
            PRECISION.format(OUTSIDE),
            "TransferKit's train_seconds end before the model is saved; total_seconds hold everything on both sides.",
            harness.PEAKS_ALONE.format("one epoch"),
        ],
        rows=len(splits.train) * recipe.epochs,
        targets=TARGETS.get(options.strategy, {}),
        truth=splits.truth(),
        new_seeds=True,
    )
    result = harness.summarise(benchmark, attempts)
    seconds = median(attempt.seconds for attempt in attempts[OURS])
    result[OURS]["share_of_peak"] = flops.share_of_peak(recipe, splits, seconds, peak_before)
    result[OURS]["padding_share"] = padding_share(recipe, splits)
    # What a training needs at most it needs in its first epoch.
    harness.with_peaks_alone(result, sides(replace(recipe, epochs=1), splits, options.peers))
    harness.write(result, options.out)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--strategy", choices=STRATEGIES, default="lora", help="what trains")
    parser.add_argument(
        "--last-layers", type=harness.positive, help=f"that train under partial; {LAST_LAYERS} unless said"
    )
    parser.add_argument("--rows", type=harness.positive, default=ROWS, help="of training")
    parser.add_argument("--test-rows", type=harness.positive, default=ROWS, help="that quality is measured on")
    parser.add_argument(
        "--epochs", type=harness.positive, help=f"{OTHER_EPOCHS} unless said; linear-probe 10, partial 5"
    )
    harness.peers_option(parser)
    options = parser.parse_args(arguments)
    if options.last_layers is not None and options.strategy != "partial":
        parser.error(f"--last-layers has no effect on {options.strategy}; leave it out, or give --strategy partial.")
    parser.set_defaults(epochs=EPOCHS.get(options.strategy, OTHER_EPOCHS), last_layers=LAST_LAYERS)
    return harness.parsed(parser, arguments, "rows", "test_rows", "epochs", "last_layers")


if __name__ == "__main__":
    harness.run(main)
