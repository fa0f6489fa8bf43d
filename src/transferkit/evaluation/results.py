"""What was found, as typed and immutable values: the contents of `results.json`, `comparison.json` and others.

A report, a table and a verdict are functions of these values and of nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from transferkit.environment import write_file
from transferkit.errors import RunError, first_line

Interval = tuple[float, float]
Point = tuple[float, float, float]
Status = Literal["finished", "failed", "interrupted"]
AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


class Record(BaseModel):
    """A frozen record; unknown keys are refused, so that a newer file is not misread."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Document(Record):
    """A record that is a file; it begins with the name of its `schema`."""

    model_config = ConfigDict(populate_by_name=True)


class ClassScores(Record):
    """The scores of one class against all others."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int = Field(description="test rows of this class")
    predicted: int = Field(description="test rows predicted as this class")


class ReliabilityBin(Record):
    """The test rows whose confidence lies in (lower, upper]: what they promise and what they keep."""

    lower: float
    upper: float
    rows: int
    confidence: float = Field(description="mean probability of the answer")
    accuracy: float = Field(description="share of right answers")


class Scores(Record):
    """All that one set of predictions says against the true labels."""

    rows: int
    metrics: dict[str, float] = Field(
        description="accuracy, precision_macro, recall_macro, f1_macro, precision_weighted, recall_weighted, "
        "f1_weighted, mcc, log_loss (nats), ece; with two classes also precision, recall and f1 of positive_label"
    )
    intervals: dict[str, Interval] = Field(
        description="bootstrap 95 % interval by metric; none where all resamples are alike"
    )
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...] = Field(description="rows: true class, columns: predicted class")
    reliability: tuple[ReliabilityBin, ...] = Field(
        default=(), description="bins of equal width of the answer's probability, from low to high, none empty"
    )
    positive_label: str | None = Field(description="the class that two-class f1 speaks of: the last label")
    baseline: dict[str, float] = Field(description="the same metrics of always answering the majority class")
    collapsed: bool
    collapse_reason: str | None = None


class TranslationExample(Record):
    """A sentence, what it should become, and what it became."""

    source: str
    target: str
    predicted: str


class ClassificationExample(Record):
    """A text, its label, and the label that it is given."""

    text: tuple[str, ...] = Field(description="one text, or two of a pair, the beginning of each")
    label: str
    predicted: str
    probability: float = Field(description="of the predicted label")


Example = TranslationExample | ClassificationExample


class TranslationScores(Record):
    """All that one set of translations says against the references."""

    rows: int
    metrics: dict[str, float] = Field(description="bleu and chrf, from 0 to 100")
    intervals: dict[str, Interval] = Field(description="bootstrap 95 % interval by metric")
    signatures: dict[str, str] = Field(description="sacrebleu's settings and version by metric")
    examples: tuple[TranslationExample, ...] = ()


class RunResult(Document):
    """One run: `results.json` in its folder, and one entry of `comparison.json`."""

    schema_: Literal["transferkit/result/1"] = Field(default="transferkit/result/1", alias="schema")
    strategy: str
    seed: int
    run: str = Field(description="the run folder, relative to the file that holds this entry")
    status: Status
    error: str | None = Field(default=None, description="why the run failed")
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    train_seconds: float | None = None
    evaluate_seconds: float | None = None
    peak_memory_bytes: int | None = None
    stored_bytes: int | None = Field(default=None, description="what must be kept to predict, without the base")
    epochs: int | None = Field(default=None, description="epochs completed")
    best_epoch: int | None = Field(default=None, description="the epoch whose weights were kept; null for a mean")
    precision: str | None = Field(default=None, description="fp32 or bf16 in training; evaluation is in fp32")
    metrics: dict[str, float] = Field(default_factory=dict)
    intervals: dict[str, Interval] = Field(default_factory=dict)
    collapsed: bool | None = None
    collapse_reason: str | None = None
    scores: Scores | None = Field(default=None, description="everything else about the test predictions")
    translation: TranslationScores | None = Field(default=None, description="the same of a translation run")


class Pair(Record):
    """Paired evidence about two strategies on the same test rows; `difference` is accuracy of a minus b."""

    a: str
    b: str
    difference: float
    interval: Interval = Field(description="paired bootstrap 95 % interval over rows, and over seeds if several")
    mcnemar_p: float = Field(description="exact McNemar; over several seeds twice the mean, at most 1")
    holm_p: float = Field(description="mcnemar_p after Holm's correction over all pairs")


class StrategySummary(Record):
    """A strategy over its finished seeds."""

    strategy: str
    seeds: tuple[int, ...]
    accuracy_mean: float
    accuracy_sd: float | None = Field(description="standard deviation between seeds; null with one seed")
    accuracy_interval: Interval = Field(description="95 %: bootstrap over test rows, and seeds if several")
    f1_macro_mean: float
    trainable_parameters: int
    stored_bytes: int
    train_seconds_mean: float
    collapsed: bool
    pareto: tuple[str, ...] = Field(
        description="the costs (trainable_parameters, train_seconds, stored_bytes) at which none is better, of those "
        "not collapsed"
    )


class Verdict(Record):
    """What to use, why, and what it costs to choose so."""

    use: str | None = Field(
        description="a strategy, or null when none beats the majority baseline or the runs cannot show it"
    )
    reason: str
    ties: tuple[str, ...] = Field(description="strategies that cannot be told apart from the best one")


class DataFacts(Record):
    """What was learnt from and tested on."""

    source: str
    columns: dict[str, Any] = Field(description="text (or pair) and label as found or named")
    labels: tuple[str, ...]
    rows: dict[str, int] = Field(description="rows by split")
    class_counts: dict[str, tuple[int, ...]] = Field(description="by split, in the order of labels")
    hashes: dict[str, str] = Field(description="SHA-256 of texts and labels by split")
    dropped_empty: int
    leaked: int = Field(description="rows taken out of training because they stand in another split too")
    duplicates: int = Field(description="training rows whose text stands in training more than once")
    tokens: dict[str, float] = Field(description="training rows: mean, median, p95, max length in tokens, uncut")
    length_histogram: tuple[tuple[int, int], ...] = Field(description="(lower edge in tokens, training rows)")
    max_length: int
    truncated_rows: float = Field(description="share of training rows that were cut")
    truncated_tokens: float = Field(description="share of training tokens that were cut")
    notes: tuple[str, ...] = Field(default=(), description="choices made for the user, one sentence each")


class ParallelFacts(Record):
    """What a translator was trained and tested on."""

    source: str
    languages: tuple[str, str]
    rows: dict[str, int] = Field(description="rows by split")
    hashes: dict[str, str] = Field(description="SHA-256 of sources and targets by split")
    empty: int = Field(description="rows without source or target, left out")
    leaked: int = Field(description="rows left out because their source or target stands in a later split too")
    too_long: dict[str, int] = Field(description="rows of more tokens than allowed, left out, by split")
    max_length: int
    vocabularies: tuple[int, int] = Field(description="entries of the source and the target vocabulary")
    source_tokens: dict[str, float] = Field(description="training rows: mean, median, p95, max length in tokens")
    target_tokens: dict[str, float] = Field(description="the same of the targets")
    unknown: float = Field(description="share of the training tokens that the vocabularies lack")
    padding: float = Field(description="share of padding in training batches")
    notes: tuple[str, ...] = Field(default=(), description="choices made for the user, one sentence each")


class Comparison(Document):
    """`comparison.json`."""

    schema_: Literal["transferkit/comparison/1"] = Field(default="transferkit/comparison/1", alias="schema")
    task: str
    created: str = Field(description="UTC, ISO 8601")
    config: dict[str, Any]
    environment: dict[str, Any] = Field(description="versions and hardware")
    data: DataFacts
    baseline: dict[str, float]
    results: tuple[RunResult, ...]
    summaries: tuple[StrategySummary, ...] = Field(description="best accuracy first")
    pairs: tuple[Pair, ...]
    verdict: Verdict


class EpochRecord(Record):
    """One line of `metrics.jsonl`."""

    epoch: int
    step: int
    learning_rate: float = Field(description="of the last step of the epoch")
    train_loss: float
    validation_loss: float = Field(description="of the validation rows, as the metrics are")
    metrics: dict[str, float] = Field(
        description="classification: accuracy, f1_macro, mcc; translation: perplexity, bleu, chrf"
    )
    seconds: float
    best: bool
    examples: tuple[Example, ...] = Field(
        default=(), description="validation rows to look at; of a classifier where `--tensorboard` asks for them"
    )


class Mistake(Record):
    """A test row that at least one strategy answers wrongly and with confidence."""

    row: int
    text: tuple[str, ...] = Field(description="one text, or two of a pair")
    label: str
    answers: dict[str, tuple[str, float]] = Field(description="by strategy: predicted label and its probability")


class LoRAModule(Record):
    """One weight W that LoRA adapted, and its update: the scaling times B A."""

    name: str
    rank: int = Field(description="columns of B and rows of A")
    scaling: float = Field(description="alpha / rank, or alpha / sqrt(rank) when rank-stabilised")
    shape: tuple[int, int] = Field(description="of W: outputs, inputs")
    singular_values: tuple[float, ...] = Field(description="of the update, from large to small")
    effective_rank: float = Field(description="exp of the entropy of singular_values over their sum; 0 of no update")
    update_norm: float = Field(description="Frobenius norm of the update")
    weight_norm: float = Field(description="Frobenius norm of W")
    relative_norm: float | None = Field(description="update_norm / weight_norm; null where W is zero")


class LoRAPlane(Record):
    """Outputs for the same random unit inputs, on three axes: two of the update, and one of the rest of W."""

    module: str = Field(description="the one of the largest relative_norm whose update has two directions")
    share: float = Field(description="of the update's squared norm that its two axes hold; 1 with rank 2")
    update: tuple[Point, ...] = Field(description="the update's output for each input")
    weight: tuple[Point, ...] = Field(description="the output of W for the same inputs")


class LoRAUpdates(Document):
    """`lora.json`: what a LoRA run learnt."""

    schema_: Literal["transferkit/lora/1"] = Field(default="transferkit/lora/1", alias="schema")
    modules: tuple[LoRAModule, ...] = Field(description="in the model's order")
    plane: LoRAPlane | None = Field(description="null where no update has two directions")


def write_json(path: Path, record: BaseModel | dict[str, Any] | list[Any]) -> None:
    """Write a record as JSON, whole or not at all."""
    if isinstance(record, BaseModel):
        text = record.model_dump_json(by_alias=True, indent=2)
    else:
        text = json.dumps(record, indent=2, ensure_ascii=False)
    write_file(path, text + "\n")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Inside the context a file of a run is read; what is wrong with it is told in a sentence.

    Raises:
        RunError: the file is missing, or is not what the block takes it for.
    """
    from safetensors import SafetensorError

    if not path.is_file():
        raise RunError(f"There is no {path.name} in {path.parent}: is it the folder of a finished run?")
    try:
        yield
    except (ValueError, KeyError, SafetensorError) as error:
        reason = first_line(error)
        raise RunError(f"{path} is damaged or of another version ({reason}); run again with --overwrite.") from None


def read_json(path: Path, kind: type[AnyRecord]) -> AnyRecord:
    """Read a record back.

    Raises:
        RunError: the file is missing or is not such a record.
    """
    with reading(path):
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
