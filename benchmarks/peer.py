"""The peer: the same training written with transformers' Trainer and PEFT, as their documentation shows it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from torch import Tensor, nn

from benchmarks.data import Rows, Splits
from benchmarks.harness import Answers
from benchmarks.recipe import BACKBONE, MAX_LENGTH, Recipe
from transferkit.adaptation.strategies import make_strategy
from transferkit.models.hub import locate

# A difference of trainings, by when the machine is measured.
PRECISION = (
    "The peer trains in fp32 (peer_bf16: bf16=True); TransferKit chooses its precision by measuring the machine, {}."
)
OUTSIDE = "once and outside of these times"
WARM_UP = (
    "Over w steps of warm-up, TransferKit's learning rate in step s, counted from 0, is (s + 1) / (w + 1) of the full "
    "one, and the Trainer's s / w: its first step has none."
)
DIFFERENCES = [
    "The peer pads each batch of randomly chosen rows to its longest; TransferKit puts rows of like length together.",
    "The peer validates and tests in batches of 8, the Trainer's default; TransferKit by a budget of tokens.",
    "TransferKit computes the layers below the first one that trains once and keeps what they give; the peer computes "
    "them in every epoch.",
    "The peer keeps dropout on in frozen layers, as PEFT and Trainer do; TransferKit switches it off there.",
    "TransferKit saves the best epoch's weights and returns to them; the peer saves nothing and keeps the last.",
    WARM_UP,
]

# Settings of any Trainer that is timed: it saves, shows and reports nothing.
ON_A_CPU: dict[str, Any] = {
    "save_strategy": "no",
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "disable_tqdm": True,
    "report_to": "none",
}


class MeanPooledClassifier(nn.Module):
    """An encoder with dropout and one linear layer on the mean of the real tokens: the head that TransferKit has."""

    def __init__(self, encoder: nn.Module, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, classes)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """ids, mask and types [rows, length], labels [rows] -> logits [rows, classes], and the loss with labels."""
        hidden = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        logits = self.classifier(self.dropout((hidden * weights).sum(1) / weights.sum(1)))
        answer = {"logits": logits}
        return answer if labels is None else {"loss": nn.functional.cross_entropy(logits, labels), **answer}


class PlainBottleneck(nn.Module):
    """A frozen linear layer followed by Linear-ReLU-Linear with a residual (Houlsby et al. 2019, section 2.1)."""

    def __init__(self, base: nn.Linear, size: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.out_features, size)
        self.up = nn.Linear(size, base.out_features)
        nn.init.normal_(self.up.weight, std=1e-3)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        y: Tensor = self.base(x)
        adapted: Tensor = y + self.up(torch.relu(self.down(y)))
        return adapted


@dataclass(frozen=True)
class Outcome:
    """Seconds of `trainer.train()`, and predicted classes of the test rows, [1, rows]."""

    seconds: float
    answers: Answers


def train_peer(recipe: Recipe, splits: Splits, seed: int, bf16: bool = False) -> Outcome:
    """Tokenize, load the model, train it with validation after every epoch, predict the test rows."""
    from transformers import AutoTokenizer, DataCollatorWithPadding, PrinterCallback, Trainer

    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(locate(BACKBONE).folder)
    train, validation, test = (
        _tokenized(rows, splits, tokenizer) for rows in (splits.train, splits.validation, splits.test)
    )
    torch.manual_seed(seed)
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            model=build(recipe, len(splits.names)),
            args=_training_arguments(recipe, len(train), seed, bf16, folder),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=_accuracy,
        )
        # It prints on standard output, where the JSON goes.
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        logits = trainer.predict(test).predictions
    return Outcome(seconds, np.asarray(logits).argmax(axis=1)[np.newaxis])


def build(recipe: Recipe, classes: int) -> MeanPooledClassifier:
    """The pretrained model with what trains under the strategy of `recipe`."""
    from transformers import AutoConfig, AutoModel

    folder = locate(BACKBONE).folder
    config = AutoConfig.from_pretrained(folder)
    if recipe.strategy == "scratch":
        encoder = AutoModel.from_config(config, add_pooling_layer=False)
    else:
        encoder = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
    if recipe.strategy not in ("scratch", "full"):
        encoder.requires_grad_(False)
    if recipe.strategy == "lora":
        encoder = _with_lora(encoder, recipe.options)
    elif recipe.strategy == "partial":
        encoder.encoder.layer[-recipe.options["layers"] :].requires_grad_(True)
    elif recipe.strategy == "bitfit":
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(name.endswith("bias"))
    elif recipe.strategy == "bottleneck":
        size = getattr(make_strategy(recipe.spec), "size")  # noqa: B009 - an option of this strategy alone
        for layer in encoder.encoder.layer:
            layer.intermediate.dense = PlainBottleneck(layer.intermediate.dense, size)
            layer.output.dense = PlainBottleneck(layer.output.dense, size)
    return MeanPooledClassifier(encoder, config.hidden_size, classes, recipe.head_dropout)


def _with_lora(encoder: nn.Module, options: dict[str, Any]) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    # The bare encoder gives features; the head around it is ours on both sides.
    settings = LoraConfig(
        task_type=TaskType.FEATURE_EXTRACTION,
        r=options["rank"],
        lora_alpha=options["alpha"],
        target_modules=options["targets"],
        lora_dropout=0.0,
    )
    return get_peft_model(encoder, settings)


def _training_arguments(recipe: Recipe, rows: int, seed: int, bf16: bool, folder: str) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        lr_scheduler_type="linear",
        warmup_steps=recipe.warmup_steps(rows),
        per_device_train_batch_size=recipe.batch_size,
        eval_strategy="epoch",
        bf16=bf16,
        **ON_A_CPU,
        label_names=["labels"],
        seed=seed,
    )


def _tokenized(rows: Rows, splits: Splits, tokenizer: Any) -> Any:
    """Ids of all rows by `map`, unpadded; what is made in memory is not cached between runs."""
    columns = {name: list(column) for name, column in zip(splits.columns, zip(*rows.texts, strict=True), strict=True)}
    data = Dataset.from_dict(columns | {"labels": [splits.names.index(label) for label in rows.labels]})

    def encode(batch: dict[str, list[str]]) -> Any:
        return tokenizer(*(batch[name] for name in splits.columns), truncation=True, max_length=MAX_LENGTH)

    return data.map(encode, batched=True, remove_columns=splits.columns)


def _accuracy(predictions: Any) -> dict[str, float]:
    return {"accuracy": float((predictions.predictions.argmax(axis=1) == predictions.label_ids).mean())}
