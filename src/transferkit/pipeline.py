"""The path of one run, in order: data, tokens, backbone, adaptation, training, run folder, evaluation."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from transferkit import run_folder
from transferkit.adaptation.base import AdaptationReport, Strategy
from transferkit.adaptation.capsule import CapsuleInfo, save_capsule
from transferkit.adaptation.prefix import Prefix, find_prefix
from transferkit.adaptation.strategies import make_strategy, resolved
from transferkit.adaptation.weights import as_table, weights_of
from transferkit.config import RunConfig, TrainingConfig
from transferkit.environment import PeakMemory, describe, file_hash, release_memory
from transferkit.errors import ConfigError
from transferkit.evaluation.lora_updates import lora_updates
from transferkit.evaluation.metrics import score
from transferkit.evaluation.results import RunResult, write_json
from transferkit.job import Job
from transferkit.models.backbones import HEAD_FILE, TextClassifier, load_classifier
from transferkit.run_record import BackboneRecord, ComputeRecord, RunRecord, TokenizerRecord, WeightsRecord
from transferkit.training.averaging import LEAST_EPOCHS
from transferkit.training.forward import predict_logits
from transferkit.training.loop import Outcome, Plan, fit
from transferkit.training.precision import Compute, threads
from transferkit.training.samples import Samples
from transferkit.training.tensorboard import tracked
from transferkit.training.tracking import Listener
from transferkit.training.used_rows import used_rows
from transferkit.training.validation import validate_on

# Why there is no prefix cache with it.
FROZEN_DROPOUT = "dropout in frozen layers changes what they answer"


def rows_to_process(config: RunConfig, job: Job) -> int:
    """How many rows a run puts through its model, for the estimate of the time left."""
    rows = job.facts.rows
    return (
        _plan(config, make_strategy(config.strategy), job).epochs * (rows["train"] + rows["validation"]) + rows["test"]
    )


def run_one(
    config: RunConfig, job: Job, folder: Path, label: str, listener: Listener, with_table: bool = True
) -> RunResult:
    """Train, save and score one strategy with one seed in the empty `folder`.

    Where the backbone is a run, the log says of each kind of weights where it comes from and whether it trains;
    `with_table` is false where it has said so of this strategy.

    Returns:
        the contents of its `results.json`, with the status `interrupted` when Ctrl-C ended the training.
    """
    listener.started(f"{label} (seed {config.seed})", rows_to_process(config, job))
    strategy = make_strategy(config.strategy)
    # The caller's own random numbers are left as they were.
    with (
        torch.random.fork_rng(devices=[]),
        PeakMemory() as memory,
        tracked(listener, folder, config.training.tensorboard) as tracker,
    ):
        torch.manual_seed(config.seed)
        model = load_classifier(job.files, config.backbone, job.data.labels, job.tokenizer.pad_token_id)
        report = strategy.apply(model)
        listener.said(str(report))
        if with_table and job.files.is_ours:
            listener.said(as_table(weights_of(model)))
        prefix = _prefix(config.training, model, job, label)
        if not (folder / run_folder.RUN_FILE).is_file():
            _write_record(folder, config, job, label, strategy, model, report)
        start = time.perf_counter()
        train, validation = (job.rows(split, prefix, job.compute) for split in ("train", "validation"))
        plan = _plan(config, strategy, job)
        samples = Samples.of(job.data, job.tables["validation"], plan.compute) if config.training.tensorboard else None
        validate = validate_on(validation, plan.max_batch_tokens, listener, plan.compute, prefix, samples)
        with used_rows(model, [train, validation]):
            outcome = fit(
                model, job.task, train, plan, validate=validate, folder=folder, listener=tracker, forward=prefix
            )
        train_seconds = outcome.earlier_seconds + time.perf_counter() - start
        _save_model(folder, model, strategy, config, job)
        if not outcome.interrupted and (updates := lora_updates(model)):
            write_json(folder / run_folder.LORA_FILE, updates)
        result = trained(label, config.seed, folder, report, outcome, train_seconds, job.compute)
        if not outcome.interrupted:
            try:
                result = _with_scores(result, model, prefix, job, folder, listener)
            except KeyboardInterrupt:
                result = result.model_copy(update={"status": "interrupted"})
    result = result.model_copy(update={"peak_memory_bytes": memory.bytes})
    if result.collapsed:
        listener.said(f"{label} collapsed. {result.collapse_reason}")
    run_folder.write_result(folder, result)
    return result


def trained(
    label: str, seed: int, folder: Path, report: AdaptationReport, outcome: Outcome, seconds: float, compute: Compute
) -> RunResult:
    """What is to be said of a run whose model is trained and saved, and not scored yet."""
    return RunResult(
        strategy=label,
        seed=seed,
        run=".",
        status="interrupted" if outcome.interrupted else "finished",
        trainable_parameters=report.trainable_parameters,
        total_parameters=report.total_parameters,
        train_seconds=seconds,
        stored_bytes=run_folder.stored_bytes(folder),
        epochs=len(outcome.epochs),
        best_epoch=None if outcome.averaged else outcome.best_epoch,
        precision=compute.precision,
    )


def _prefix(training: TrainingConfig, model: TextClassifier, job: Job, label: str) -> Prefix | None:
    """The layers to compute once instead of in every step; None where there are none, or they are not wanted.

    Raises:
        ConfigError: a prefix cache is asked for by name, and would have no effect.
    """
    if training.prefix_cache == "off":
        return None
    row = job.tables["train"].__getitems__([0])
    row.pop("labels")
    prefix = None if training.frozen_dropout else find_prefix(model, row)
    if prefix is None and training.prefix_cache != "auto" and not job.is_shared:
        why = (
            FROZEN_DROPOUT
            if training.frozen_dropout
            else f"{label} trains from the first layer on, or the backbone drops out below it or calls no row of layers"
        )
        raise ConfigError(f"--prefix-cache {training.prefix_cache} has no effect: {why}; use auto or off.")
    return prefix


def _plan(config: RunConfig, strategy: Strategy, job: Job) -> Plan:
    """Resolve the defaults: what the strategy's options say, else what `training` says, else the strategy's own."""
    training = config.training

    def resolved(name: str) -> float:
        asked: float | None = getattr(training, name)
        own: float = getattr(strategy, name)
        return own if name in config.strategy.options or asked is None else asked

    epochs = int(resolved("epochs"))
    if training.keep == "average" and epochs < LEAST_EPOCHS:
        raise ConfigError(
            f"training.keep=average takes the mean over the epochs from the second on, and there are {epochs}; "
            f"train for {LEAST_EPOCHS} or more, or keep the best."
        )
    return Plan(
        epochs=epochs,
        learning_rate=resolved("learning_rate"),
        warmup_ratio=resolved("warmup_ratio"),
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        max_batch_tokens=training.max_batch_tokens,
        weight_decay=training.weight_decay,
        schedule=training.schedule,
        clip_norm=training.clip_norm,
        best_metric=training.best_metric,
        keep=training.keep,
        early_stopping=training.early_stopping,
        compute=job.compute,
        frozen_dropout=training.frozen_dropout,
        seed=config.seed,
        # A comparison goes on with the run after those that are finished.
        checkpoint_minutes=None if job.is_shared else training.checkpoint_minutes,
    )


def _write_record(
    folder: Path, config: RunConfig, job: Job, label: str, strategy: Strategy, model: TextClassifier,
    report: AdaptationReport,
) -> None:  # fmt: skip
    job.tokenizer.save(folder / "tokenizer")
    tokenizer_file = folder / run_folder.TOKENIZER_FILE
    write_json(folder / run_folder.LABELS_FILE, list(job.data.labels))
    record = RunRecord(
        created=run_folder.now(),
        label=label,
        config=config,
        task="classification",
        labels=job.data.labels,
        is_pair="pair" in job.data.columns,
        keeps_whole_model=strategy.keeps_whole_model,
        backbone=BackboneRecord(
            name=job.files.name,
            folder=str(job.files.folder.resolve()),
            revision=job.files.revision,
            fingerprint=job.fingerprint,
            weights_sha256=job.weights_sha256,
            pooling=model.pooling,
        ),
        tokenizer=TokenizerRecord(
            hash=job.tokenizer_hash,
            file_sha256=file_hash(tokenizer_file) if tokenizer_file.is_file() else None,
            max_length=job.tokenizer.max_length,
            truncation_side=config.tokenization.truncation_side,
            pad_token_id=job.tokenizer.pad_token_id,
            uses_token_types=job.tokenizer.uses_token_types(1 + ("pair" in job.data.columns)),
        ),
        compute=ComputeRecord(**asdict(job.compute)),
        trainable_names=report.trainable_names,
        weights=tuple(WeightsRecord(**asdict(row)) for row in weights_of(model)),
        total_bytes=report.total_bytes,
        data=job.facts,
        environment=describe(),
    )
    run_folder.write_record(folder, record)


def _save_model(folder: Path, model: TextClassifier, strategy: Strategy, config: RunConfig, job: Job) -> None:
    """Write `model/`."""
    target = folder / "model"
    target.mkdir(exist_ok=True)
    if strategy.keeps_whole_model:
        save_whole(target, model)
    else:
        info = CapsuleInfo(
            strategy=resolved(config.strategy),
            task=job.task.name,
            labels=job.data.labels,
            backbone=job.files.name,
            base_fingerprint=job.fingerprint,
            tokenizer_hash=job.tokenizer_hash,
            pooling=model.pooling,
        )
        save_capsule(target / run_folder.CAPSULE_FILE, model, info)


def save_whole(target: Path, model: TextClassifier) -> None:
    """Write the network as transformers does, and a pooled head beside it."""
    from safetensors.torch import save_file

    model.network.save_pretrained(target)
    if model.head is not None:
        save_file(model.head.state_dict(), target / HEAD_FILE)


def _with_scores(
    result: RunResult, model: TextClassifier, prefix: Prefix | None, job: Job, folder: Path, listener: Listener
) -> RunResult:
    release_memory()
    # Reported scores are exact; a run that shares them with no other has no use for kept states.
    exact = replace(job.compute, precision="fp32")
    start = time.perf_counter()
    table = job.rows("test", prefix, exact) if job.is_shared else job.tables["test"]
    with threads(exact.threads):
        logits = predict_logits(model, table, job.max_batch_tokens, listener, exact, prefix)
    seconds = time.perf_counter() - start
    assert table.labels is not None, "test rows have labels"
    run_folder.write_predictions(folder, table.labels, logits)
    scores = score(table.labels, logits, job.data.labels)
    return result.model_copy(
        update={
            "evaluate_seconds": seconds,
            "metrics": scores.metrics,
            "intervals": scores.intervals,
            "collapsed": scores.collapsed,
            "collapse_reason": scores.collapse_reason,
            "scores": scores,
        }
    )
