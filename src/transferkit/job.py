"""What all runs on the same data and backbone share: rows, tokens, the backbone's files, and how to compute."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import torch

from transferkit import run_folder
from transferkit.adaptation.prefix import Prefix
from transferkit.config import BackboneConfig, PretrainConfig, SharedConfig, TrainingConfig
from transferkit.data import inspection, workspace
from transferkit.data.batching import FeatureTable, LengthGroupedSampler
from transferkit.data.preparation import TextData, prepare
from transferkit.environment import file_hash, quiet_libraries, release_memory
from transferkit.errors import ConfigError
from transferkit.evaluation.results import DataFacts
from transferkit.formatting import percent
from transferkit.models.backbones import TextClassifier, load_classifier, longest_input
from transferkit.models.hub import BackboneFiles
from transferkit.models.new_encoder import make_encoder
from transferkit.run_record import RunRecord
from transferkit.tasks.classification import Classification
from transferkit.tokenization.pretrained import TextTokenizer
from transferkit.training.precision import Compute, choose, probe_shape
from transferkit.training.prefix_cache import PrefixCache
from transferkit.training.tracking import Listener


@dataclass(frozen=True)
class Job:
    """What all runs on the same data and backbone share."""

    data: TextData
    files: BackboneFiles
    tokenizer: TextTokenizer
    tables: dict[str, FeatureTable]
    facts: DataFacts
    task: Classification
    compute: Compute
    fingerprint: str
    tokenizer_hash: str
    weights_sha256: str | None
    cache: PrefixCache
    max_batch_tokens: int
    # Whether several runs share the job, so that what one computes another may read.
    is_shared: bool

    def has_base_of(self, record: RunRecord) -> bool:
        """Whether the backbone and its tokenizer are those of an earlier run."""
        return (self.fingerprint, self.tokenizer_hash) == (record.backbone.fingerprint, record.tokenizer.hash)

    def rows(self, split: str, prefix: Prefix | None, compute: Compute) -> FeatureTable:
        """The rows of a split, with what the layers below the cut answer for them where there is a cut."""
        if prefix is None:
            return self.tables[split]
        identity = {
            "base": self.fingerprint,
            "config": json.dumps(self.files.json("config.json"), sort_keys=True),
            "pooling": prefix.model.pooling,
            "tokenizer": self.tokenizer_hash,
            "truncation": f"{self.tokenizer.max_length} {self.tokenizer.backend.truncation_side}",
            "rows": self.facts.hashes[split],
        }
        return self.cache.apply(prefix, self.tables[split], compute, self.max_batch_tokens, identity)


def prepare_job(config: SharedConfig, listener: Listener, is_shared: bool = False, revision: str | None = None) -> Job:
    """Read, split and tokenize the data, find the backbone and choose how to compute, once for all runs.

    Of a backbone on the hub the commit `revision` is taken, the newest if None.
    """
    quiet_libraries()
    files = _find_backbone(config, revision)
    tokenizer = TextTokenizer.load(files.tokenizer_folder, config.tokenization, longest_input(files))
    listener.said(f"Backbone {files.name}; reading {config.data.source}.")
    data = prepare(config.data)
    tables, facts = _tokenize(data, tokenizer, listener)
    for note in (*facts.notes, _padding(tables["train"], config.training.batch_size)):
        listener.said(note)
    with torch.random.fork_rng(devices=[]):
        model = load_classifier(files, config.backbone, data.labels, tokenizer.pad_token_id)
    if model.pooling == "model" and config.backbone.head_dropout != BackboneConfig().head_dropout:
        raise ConfigError(
            "backbone.head_dropout has no effect: the head is the backbone's own; leave it out, or choose another by "
            "--head-pooling."
        )
    fingerprint = model.fingerprint()
    compute = _choose_compute(config.training, model, fingerprint, tables["train"], listener)
    del model
    release_memory()
    cache = PrefixCache(config.training.prefix_cache, int(config.training.prefix_cache_gigabytes * 1e9), listener)
    weights = files.folder / "model.safetensors"
    return Job(
        data, files, tokenizer, tables, facts, _make_task(config.training, data, facts), compute, fingerprint,
        tokenizer.hash(), file_hash(weights) if weights.is_file() else None, cache, config.training.max_batch_tokens,
        is_shared,
    )  # fmt: skip


def _find_backbone(config: SharedConfig, revision: str | None) -> BackboneFiles:
    if isinstance(config, PretrainConfig):
        return make_encoder(config.encoder, config.seed, workspace.new_file().with_suffix(""))
    return run_folder.find_backbone(config.backbone.name, revision)


def _padding(table: FeatureTable, batch_size: int) -> str:
    batches = LengthGroupedSampler(table.lengths, batch_size, seed=0)
    return f"Padding is {percent(table.padding_share(batches))} of the tokens in training batches."


def _choose_compute(
    training: TrainingConfig, model: TextClassifier, fingerprint: str, table: FeatureTable, listener: Listener
) -> Compute:
    """Measured with rows of the median length, as many as there is time for, or with the end of one.

    The beginning would not do: encoder-decoders read their answer at the <eos>.
    """
    middle = np.argsort(table.lengths, kind="stable")[len(table) // 2]
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    weights = sum(layer.weight.numel() for layer in layers)
    rows, length = probe_shape(weights, int(table.lengths[middle]), training.batch_size)
    batch = table.__getitems__([int(middle)] * rows)
    batch.pop("labels")
    batch = {name: tensor[:, -length:] for name, tensor in batch.items()}
    compute, reason = choose(training, batch, fingerprint, model)
    listener.said(reason)
    return compute


def _tokenize(
    data: TextData, tokenizer: TextTokenizer, listener: Listener
) -> tuple[dict[str, FeatureTable], DataFacts]:
    listener.started("tokenizing", sum(len(rows) for rows in data.splits.values()))
    tables, lengths = {}, {}
    for split, rows in data.splits.items():
        tokenized, lengths[split] = tokenizer.tokenize(rows, workspace.new_file(), listener.advanced)
        tables[split] = FeatureTable.from_arrow(tokenized.data.table, tokenizer.pad_token_id)
    return tables, _facts(data, tokenizer, lengths["train"])


def _facts(data: TextData, tokenizer: TextTokenizer, lengths: np.ndarray) -> DataFacts:
    cut = inspection.Lengths.of(lengths, tokenizer.max_length)
    notes = [*data.notes, *tokenizer.notes]
    if "pair" in data.columns and tokenizer.joins_pairs():
        notes.append(
            "The tokenizer puts nothing between the two texts of a pair, so the backbone reads them as one; "
            "that of minilm parts them."
        )
    if cut.truncated_rows:
        notes.append(
            f"{percent(cut.truncated_rows)} of the training rows are longer than {tokenizer.max_length} tokens and "
            f"lose {percent(cut.truncated_tokens)} of all tokens; --max-length changes it."
        )
    return DataFacts(
        source=data.source,
        columns=data.columns,
        labels=data.labels,
        rows={split: len(rows) for split, rows in data.splits.items()},
        class_counts={s: inspection.class_counts(rows, len(data.labels)) for s, rows in data.splits.items()},
        hashes={split: inspection.content_hash(rows) for split, rows in data.splits.items()},
        dropped_empty=data.dropped_empty,
        leaked=data.leaked,
        duplicates=inspection.duplicate_rows(data.splits["train"]),
        tokens=cut.statistics,
        length_histogram=cut.histogram,
        max_length=tokenizer.max_length,
        truncated_rows=cut.truncated_rows,
        truncated_tokens=cut.truncated_tokens,
        notes=tuple(notes),
    )


def _make_task(training: TrainingConfig, data: TextData, facts: DataFacts) -> Classification:
    if training.class_weights == "balanced":
        counts = np.array(facts.class_counts["train"])
        return Classification.balanced(data.labels, counts, training.label_smoothing)
    return Classification(data.labels, label_smoothing=training.label_smoothing)
