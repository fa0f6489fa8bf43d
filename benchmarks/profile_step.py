"""Where a training of TransferKit spends its time, operator by operator."""

from __future__ import annotations

import argparse
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks import data, harness
from benchmarks.recipe import STRATEGIES, of_strategy, train_ours
from benchmarks.results_table import table
from transferkit.environment import quiet_libraries


def rows_of(events: list[Any], top: int) -> list[list[str]]:
    """The operators with the most time of their own; events are what `key_averages` gives."""
    total = sum(event.self_cpu_time_total for event in events) or 1
    ordered = sorted(events, key=lambda event: -event.self_cpu_time_total)[:top]
    return [
        [
            f"`{event.key}`",
            f"{event.count:,}",
            f"{event.self_cpu_time_total / 1000:,.1f}",
            f"{100 * event.self_cpu_time_total / total:.1f} %",
            f"{event.self_cpu_time_total / event.count:,.0f}",
        ]
        for event in ordered
    ]


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    options = parse(arguments)
    quiet_libraries()
    recipe = of_strategy(options.strategy, epochs=1)
    # Once before: libraries load and kernels are chosen.
    train_ours(recipe, data.mrpc(16, validation=8, test=8), seed=0)
    splits = data.mrpc(options.steps * recipe.batch_size, validation=8, test=8)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        result, _ = train_ours(recipe, splits, seed=0)
    print(
        f"{recipe.spec.label}, {result.precision}: {recipe.steps(len(splits.train))} steps of {recipe.batch_size} "
        f"rows of {splits.name}, and loading, validation, saving and testing on 8 rows around them.\n"
    )
    headings = ("Operator", "Calls", "Own time, ms", "Share", "A call, µs")
    print(table(headings, rows_of(list(profiler.key_averages()), options.top)))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--strategy", choices=STRATEGIES, default="lora", help="what trains")
    parser.add_argument("--steps", type=harness.positive, default=4, help="of training, in batches of 32")
    parser.add_argument("--top", type=harness.positive, default=15, help="operators to show")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    harness.run(main)
