"""Train LoRA here, load it with PEFT and with transformers, and see equal logits.

Run it with: python examples/export_lora.py reviews.csv runs/export
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import transferkit
from transferkit.inference.export import export_to_peft, export_transformers
from transferkit.models.hub import locate

TEXT = "A warm and funny film."


def main(data: str, out: str) -> None:
    config = transferkit.RunConfig.model_validate(
        {
            "data": {"source": data},
            # The family's own head: transformers has no class for mean pooling with a linear layer.
            "backbone": {"name": "minilm", "head_pooling": "model"},
            "strategy": {"lora": {"rank": 4, "targets": ["query", "value"]}},
            "training": {"epochs": 1},
        }
    )
    folder = Path(out)
    transferkit.train(config, folder / "run")
    classify = transferkit.load(folder / "run")
    ours = torch.from_numpy(classify.logits([(TEXT,)]))

    export_to_peft(classify, folder / "peft")
    base = AutoModelForSequenceClassification.from_pretrained(
        locate("minilm").folder, num_labels=len(classify.labels), ignore_mismatched_sizes=True
    )
    compare("PEFT", PeftModel.from_pretrained(base, folder / "peft"), folder / "peft", ours)

    # Merges the adapters into the weights of `classify`, so it comes last.
    export_transformers(classify, folder / "transformers")
    merged = AutoModelForSequenceClassification.from_pretrained(folder / "transformers")
    compare("transformers", merged, folder / "transformers", ours)


@torch.no_grad()
def compare(name: str, model: torch.nn.Module, folder: Path, ours: torch.Tensor) -> None:
    tokens = AutoTokenizer.from_pretrained(folder)(TEXT, return_tensors="pt")
    theirs = model.eval()(**tokens).logits
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
    print(f"{name}: logits {theirs.tolist()[0]}, ours {ours.tolist()[0]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Train LoRA here, load it with PEFT and with transformers, and see equal logits."
    )
    parser.add_argument("data", help="a file of texts with labels, such as reviews.csv")
    parser.add_argument("out", help="the folder to write")
    try:
        main(**vars(parser.parse_args()))
    except transferkit.TransferKitError as error:
        parser.exit(2, f"{error}\n")
