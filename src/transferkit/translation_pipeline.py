"""The path of one translation run, in order: data, tokenizers, model, training, run folder, evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from transferkit import run_folder
from transferkit.adaptation.base import AdaptationReport
from transferkit.config import TranslationConfig
from transferkit.data import inspection
from transferkit.data.batching import IGNORE_INDEX, TokenBudgetSampler
from transferkit.data.parallel import ParallelData, prepare_parallel
from transferkit.data.parallel_batching import ParallelTable
from transferkit.data.rows import counted
from transferkit.environment import PeakMemory, describe, quiet_libraries, release_memory, whole_file
from transferkit.errors import ConfigError
from transferkit.evaluation.results import ParallelFacts, RunResult
from transferkit.evaluation.translation import corpus_metrics, score, side_by_side
from transferkit.formatting import percent
from transferkit.generation.batches import Decoding, decode_all
from transferkit.generation.decoding import Bounds, Hypothesis
from transferkit.generation.retrace import Retraced, retrace, save_retraced
from transferkit.models.lean_translator import LeanTranslator
from transferkit.models.translator import KINDS, Translator, build_translator
from transferkit.pipeline import trained
from transferkit.run_record import ComputeRecord, TranslationRecord
from transferkit.tasks.cross_entropy import cross_entropy
from transferkit.tasks.translation import Translation
from transferkit.tokenization.parallel import Tokenized, Tokenizers, tokenize
from transferkit.training.loop import Plan, Validation, fit
from transferkit.training.optimizer import Adam
from transferkit.training.precision import Compute, autocast, choose, threads
from transferkit.training.tensorboard import tracked
from transferkit.training.tracking import Listener

# As the paper trains (Vaswani et al. 2017, section 5.3).
ADAM = Adam(betas=(0.9, 0.98), eps=1e-9)
LABEL = "translator"
# The exponential of more is too large for a number.
MOST_NATS = 700
# Of a source whose attention is drawn: a picture has the square of it, for every head.
MOST_TOKENS = 40


@dataclass(frozen=True)
class TranslationJob:
    """What a translation run reads, and how it computes."""

    texts: dict[str, datasets.Dataset]
    tokenizers: Tokenizers
    tables: dict[str, ParallelTable]
    facts: ParallelFacts
    compute: Compute


def prepare_translation(
    config: TranslationConfig, listener: Listener, tokenizers: Tokenizers | None = None
) -> TranslationJob:
    """Read and split the rows, build or load the tokenizers unless they are given, and choose how to compute.

    Raises:
        DataError: the rows, or the tokenizers, cannot be read or learnt from.
        ConfigError: a setting does not fit them.
    """
    quiet_libraries()
    listener.said(f"Reading {config.data.source}.")
    data = prepare_parallel(config.data)
    tokenizers = tokenizers or Tokenizers.build(data, config.tokenizer)
    if config.model.tied and not tokenizers.is_joint:
        raise ConfigError(f"{config.tokenizer.folder} holds a tokenizer for each language; set model.tied=false.")
    most, is_strict = config.tokenizer.max_length, config.data.on_too_long == "error"
    found = {split: tokenize(data, split, tokenizers, most, is_strict) for split in data.splits}
    # Rows that are too long are in neither.
    texts = {split: rows.select(found[split].kept) for split, rows in data.splits.items()}
    tables = {split: one.table for split, one in found.items()}
    facts = _facts(data, texts, found, tokenizers, config)
    for note in facts.notes:
        listener.said(note)
    with torch.random.fork_rng(devices=[]):
        compute, reason = _choose_compute(config, _build(config, tokenizers), tables["train"])
    listener.said(reason)
    release_memory()
    return TranslationJob(texts, tokenizers, tables, facts, compute)


def _facts(
    data: ParallelData, texts: Mapping[str, datasets.Dataset], found: Mapping[str, Tokenized], tokenizers: Tokenizers,
    config: TranslationConfig,
) -> ParallelFacts:  # fmt: skip
    train = found["train"]
    batches = TokenBudgetSampler(train.table.side_lengths, config.training.batch_tokens, seed=0)
    facts = ParallelFacts(
        source=data.source,
        languages=data.languages,
        rows={split: len(rows) for split, rows in texts.items()},
        hashes={split: inspection.content_hash(rows) for split, rows in texts.items()},
        empty=data.empty,
        leaked=data.leaked,
        too_long={split: one.too_long for split, one in found.items()},
        max_length=config.tokenizer.max_length,
        vocabularies=tokenizers.sizes,
        source_tokens=inspection.statistics(train.lengths[0]),
        target_tokens=inspection.statistics(train.lengths[1]),
        unknown=train.unknown / sum(int(side.sum()) for side in train.lengths),
        padding=train.table.padding_share(batches),
    )
    return facts.model_copy(update={"notes": (*data.notes, *_said(facts, tokenizers))})


def _said(facts: ParallelFacts, tokenizers: Tokenizers) -> list[str]:
    """What a reader of the log wants to know of the rows."""
    lost = [
        f"{counted(number)} of {split} with more than {facts.max_length} tokens left out."
        for split, number in facts.too_long.items()
        if number
    ]
    words = f"{facts.vocabularies[0]:,}" if tokenizers.is_joint else " and ".join(f"{n:,}" for n in facts.vocabularies)
    return [
        *lost,
        f"Vocabulary: {words} entries{', joint' if tokenizers.is_joint else ''}; {percent(facts.unknown, 2)} of the "
        "tokens are unknown to it.",
        f"Sources have {facts.source_tokens['mean']:.0f} tokens on average, targets {facts.target_tokens['mean']:.0f}; "
        f"padding is {percent(facts.padding)} of the tokens in training batches.",
    ]


def _choose_compute(config: TranslationConfig, model: Translator, train: ParallelTable) -> tuple[Compute, str]:
    """Measured with a batch of rows of the median length."""
    middle = np.argsort(train.lengths, kind="stable")[len(train) // 2]
    rows = max(1, config.training.batch_tokens // int(train.lengths[middle]))
    batch = train.__getitems__([int(middle)] * rows)
    batch.pop("labels")
    words = model.source_embedding.num_embeddings, model.target_embedding.num_embeddings
    return choose(config.training, batch, f"translator {config.model} of {words} words", model)


def _build(config: TranslationConfig, tokenizers: Tokenizers) -> Translator:
    """The translator that `config` describes, with random weights."""
    return build_translator(*tokenizers.sizes, **config.model.model_dump())


def rows_to_translate(config: TranslationConfig, job: TranslationJob) -> int:
    """How many rows a run puts through its model, for the estimate of the time left."""
    rows = job.facts.rows
    return config.training.epochs * (rows["train"] + 2 * rows["validation"]) + rows["test"]


def run_translation(config: TranslationConfig, job: TranslationJob, folder: Path, listener: Listener) -> RunResult:
    """Train, save and score one translator in `folder`, or go on with what a stopped training left there.

    Returns:
        the contents of its `results.json`, with the status `interrupted` when Ctrl-C ended the training.
    """
    listener.started(f"{LABEL} (seed {config.seed})", rows_to_translate(config, job))
    with (
        torch.random.fork_rng(devices=[]),
        PeakMemory() as memory,
        tracked(listener, folder, config.training.tensorboard) as tracker,
    ):
        torch.manual_seed(config.seed)
        model = _build(config, job.tokenizers)
        report = AdaptationReport.of(model, "scratch")
        listener.said(f"{report.total_parameters:,} parameters train from random weights.")
        if not (folder / run_folder.RUN_FILE).is_file():
            _write_record(folder, config, job, report)
        start = time.perf_counter()
        outcome = fit(
            model, Translation(config.training.label_smoothing), job.tables["train"], _plan(config, job.compute),
            validate=_Validator(config, job, listener), folder=folder, listener=tracker,
        )  # fmt: skip
        train_seconds = outcome.earlier_seconds + time.perf_counter() - start
        _save_model(folder, model)
        result = trained("scratch", config.seed, folder, report, outcome, train_seconds, job.compute)
        if not outcome.interrupted:
            try:
                result = _with_scores(result, model, config, job, folder, listener)
            except KeyboardInterrupt:
                result = result.model_copy(update={"status": "interrupted"})
    result = result.model_copy(update={"peak_memory_bytes": memory.bytes})
    run_folder.write_result(folder, result)
    return result


def _plan(config: TranslationConfig, compute: Compute) -> Plan:
    training = config.training
    return Plan(
        epochs=training.epochs,
        learning_rate=training.learning_rate,
        warmup_ratio=training.warmup_ratio,
        batch_size=1,
        batch_tokens=training.batch_tokens,
        accumulation=training.accumulation,
        max_batch_tokens=training.batch_tokens,
        weight_decay=training.weight_decay,
        schedule=training.schedule,
        clip_norm=training.clip_norm,
        best_metric=training.best_metric,
        keep="best",
        early_stopping=training.early_stopping,
        compute=compute,
        frozen_dropout=False,
        seed=config.seed,
        adam=ADAM,
        checkpoint_minutes=training.checkpoint_minutes,
    )


@dataclass(frozen=True)
class _Validator:
    """What an epoch is worth: loss in nats a token, perplexity, and the scores of greedy translations."""

    config: TranslationConfig
    job: TranslationJob
    listener: Listener

    def __call__(self, model: nn.Module) -> Validation:
        """Score the validation rows."""
        assert isinstance(model, Translator)
        job, texts = self.job, self.job.texts["validation"]
        loss = mean_loss(model, job.tables["validation"], self.config.training.batch_tokens, job.compute, self.listener)
        lean = LeanTranslator(model, job.compute.precision)
        targets, translations = _translate(lean, job, "validation", Decoding(), self.listener)
        scores = {
            "loss": loss,
            "perplexity": math.exp(loss) if loss < MOST_NATS else math.inf,
            **corpus_metrics(translations, texts["target"]),
        }
        examples = side_by_side(texts["source"], texts["target"], translations, self.config.examples)
        return Validation(scores, examples, self._attentions(model, targets))

    def _attentions(self, model: Translator, targets: Sequence[Hypothesis]) -> dict[str, npt.NDArray[np.float32]]:
        """Of a row, where someone is to see them."""
        if not self.config.training.tensorboard:
            return {}
        seen = _looked_into(model, self.job, "validation", targets)
        return {
            f"{kind}/layer {number}": layer[0].float().numpy()
            for kind in KINDS
            for number, layer in enumerate(getattr(seen.attentions, kind), start=1)
        }


@torch.inference_mode()
def mean_loss(model: Translator, table: ParallelTable, max_tokens: int, compute: Compute, listener: Listener) -> float:
    """Nats a token over all rows of a table, the true tokens before each given."""
    total, tokens = 0.0, 0
    for rows, batch in table.in_length_order(max_tokens):
        labels = batch.pop("labels")
        with autocast(compute):
            logits = model(**batch)
        total += float(cross_entropy(logits.flatten(0, 1), labels.flatten()))
        tokens += int((labels != IGNORE_INDEX).sum())
        listener.advanced(len(rows))
    return total / tokens


def _translate(
    model: LeanTranslator, job: TranslationJob, split: str, decoding: Decoding, listener: Listener
) -> tuple[list[Hypothesis], list[str]]:
    """The best target of each row of a split, and its text."""
    sources = job.tables[split].sources
    found = decode_all(
        model, [sources[row].tolist() for row in range(len(sources.lengths))], job.tokenizers.source.padding_id,
        Bounds.of(job.tokenizers.target, job.facts.max_length), decoding, listener.advanced,
    )  # fmt: skip
    best = [hypotheses[0] for hypotheses in found]
    return best, job.tokenizers.target.decode([one.tokens for one in best])


def _looked_into(model: Translator, job: TranslationJob, split: str, targets: Sequence[Hypothesis]) -> Retraced:
    """The first row of a split whose picture is not too large, or the shortest, with the target that it was given."""
    sources = job.tables[split].sources
    row = int(np.argmax(sources.lengths <= max(MOST_TOKENS, sources.lengths.min())))
    target = targets[row]
    return retrace(model, job.tokenizers, sources[row].tolist(), target.tokens, target.ended)


def _with_scores(
    result: RunResult, model: Translator, config: TranslationConfig, job: TranslationJob, folder: Path,
    listener: Listener,
) -> RunResult:  # fmt: skip
    """Translate the test rows in fp32, as `predict --precision fp32` does."""
    release_memory()
    start = time.perf_counter()
    decoding = Decoding(config.decoding.beams, config.decoding.length_penalty)
    with threads(job.compute.threads):
        targets, translations = _translate(LeanTranslator(model, "fp32"), job, "test", decoding, listener)
    texts = job.texts["test"]
    scores = score(translations, texts["target"], texts["source"], config.examples)
    if config.examples:
        save_retraced(folder / run_folder.ATTENTION_FILE, _looked_into(model, job, "test", targets))
    return result.model_copy(
        update={
            "evaluate_seconds": time.perf_counter() - start,
            "metrics": scores.metrics,
            "intervals": scores.intervals,
            "translation": scores,
        }
    )


def _write_record(folder: Path, config: TranslationConfig, job: TranslationJob, report: AdaptationReport) -> None:
    job.tokenizers.save(folder / "tokenizer")
    record = TranslationRecord(
        created=run_folder.now(),
        label=LABEL,
        config=config,
        task="translation",
        tokenizer_hash=job.tokenizers.hash(),
        compute=ComputeRecord(**asdict(job.compute)),
        trainable_names=report.trainable_names,
        total_bytes=report.total_bytes,
        data=job.facts,
        environment=describe(),
    )
    run_folder.write_record(folder, record)


def _save_model(folder: Path, model: Translator) -> None:
    from safetensors.torch import save_file

    (folder / "model").mkdir(exist_ok=True)
    # What is tied is written once.
    tensors = {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}
    with whole_file(folder / "model" / run_folder.TRANSLATOR_FILE) as partial:
        save_file(tensors, partial)
