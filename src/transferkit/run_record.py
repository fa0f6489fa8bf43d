"""`run.json`: everything about a run but its scores."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from transferkit.config import PretrainConfig, RunConfig, TranslationConfig
from transferkit.evaluation.results import DataFacts, Document, ParallelFacts, Record


class BackboneRecord(Record):
    """Which base a run adapted; a capsule fits no other."""

    name: str
    folder: str
    revision: str | None
    fingerprint: str
    # Of the one file of its weights; None where they are in several.
    weights_sha256: str | None = None
    pooling: Literal["mean", "first", "model"]


class TokenizerRecord(Record):
    """How a run tokenizes."""

    hash: str
    # Of the one file that it is saved in; None where there are several.
    file_sha256: str | None = None
    max_length: int
    truncation_side: Literal["left", "right"]
    pad_token_id: int | None = None
    uses_token_types: bool = False


class WeightsRecord(Record):
    """Parameters of one kind, such as the queries of all layers: where they come from and whether they train."""

    name: str = Field(description="the name, with * for the numbers of layers")
    tensors: int
    parameters: int = Field(description="numbers in all of them; 0 of what was left out")
    origin: Literal["loaded", "replaced", "new", "added", "left out"]
    trains: bool


class ComputeRecord(Record):
    """How a run computed."""

    precision: Literal["fp32", "bf16"]
    attention: Literal["fused", "plain"] | None = Field(
        description="null of a model that does not let its attention be chosen"
    )
    threads: int


class AnyRun(Document):
    """What `run.json` says of a run of any task."""

    schema_: Literal["transferkit/run/1"] = Field(default="transferkit/run/1", alias="schema")
    created: str
    label: str
    compute: ComputeRecord
    trainable_names: tuple[str, ...]
    total_bytes: int
    environment: dict[str, Any]


class RunRecord(AnyRun):
    """`run.json` of a classifier: everything about a run but its scores."""

    config: PretrainConfig | RunConfig
    task: Literal["classification"]
    labels: tuple[str, ...]
    is_pair: bool
    keeps_whole_model: bool
    backbone: BackboneRecord
    tokenizer: TokenizerRecord
    weights: tuple[WeightsRecord, ...] = ()
    data: DataFacts


class TranslationRecord(AnyRun):
    """`run.json` of a translator."""

    config: TranslationConfig
    task: Literal["translation"]
    tokenizer_hash: str
    data: ParallelFacts
