"""From a CSV file to predictions: compare strategies, read the verdict, use the winner.

Run it with: python examples/own_data.py reviews.csv runs/own-data
"""

from __future__ import annotations

import argparse

import transferkit

SETTINGS = {
    # The bare form of --strategies: a name, or a name with the options that differ from its defaults.
    "strategies": ["linear-probe", {"lora": {"rank": 8}}, "full"],
    "seeds": [0],
    "training": {"epochs": 2},
}


def main(data: str, out: str) -> None:
    config = transferkit.CompareConfig.model_validate(SETTINGS | {"data": {"source": data}})
    comparison = transferkit.compare(config, out)

    for summary in comparison.summaries:
        low, high = summary.accuracy_interval
        print(f"{summary.strategy:14} {summary.accuracy_mean:6.1%}  ({low:.1%} to {high:.1%})")
    print(comparison.verdict.reason)

    # The whole folder stands for the recommended run; a run folder can be named as well.
    run = out if comparison.verdict.use else f"{out}/{comparison.results[0].run}"
    classify = transferkit.load(run)
    for prediction in classify(["A warm and funny film.", "Two hours that I will not get back."]):
        print(prediction.label, prediction.probabilities)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="From a file to predictions: compare strategies, read the verdict, use the winner."
    )
    parser.add_argument("data", help="a file of texts with labels, such as reviews.csv")
    parser.add_argument("out", help="the folder to write")
    try:
        main(**vars(parser.parse_args()))
    except transferkit.TransferKitError as error:
        parser.exit(2, f"{error}\n")
