"""How training computes: number format, attention kernel, threads; measured on this machine or set by hand."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import torch
from torch import Tensor, nn

from transferkit.config import LoopConfig, Precision, TrainingConfig
from transferkit.environment import cache_folder, processor, write_cached
from transferkit.errors import ConfigError
from transferkit.models.dropout import CheapDropout
from transferkit.models.norm import AutocastNorm
from transferkit.models.plain_attention import Attention, attention, is_choosable

Batch = dict[str, Tensor]
AnyLoop = TypeVar("AnyLoop", bound=LoopConfig)

# bf16 keeps 8 bits of mantissa: it has to be clearly faster to be worth them.
WORTHWHILE_RATIO = 1.3
# The longest the measuring may take, and the work of one timed step, such that the candidates fit into it. Twice the
# work takes 50 MB more, which is then the most that a linear probe takes at all.
BUDGET_SECONDS = 3.0
STEP_FLOP = 20e9
# The first round pays for what is set up once: figures of it alone are not kept.
LEAST_ROUNDS = 2
# Of fewer tokens a step says little of a long one.
LEAST_TOKENS = 16
_FILE = "measured.json"
# Modules that other classes compute faster, with the same parameters.
_TWINS: dict[type[nn.Module], type[nn.Module]] = {nn.Dropout: CheapDropout, nn.LayerNorm: AutocastNorm}


@dataclass(frozen=True)
class Compute:
    """The choices that change how fast training is, and not what it computes beyond rounding."""

    precision: Precision = "fp32"
    # None: in the one way that the model has.
    attention: Attention | None = None
    threads: int = 1

    def __str__(self) -> str:
        kernel = f"{self.attention} attention, " if self.attention is not None else ""
        return f"{self.precision}, {kernel}{self.threads} thread{'s' * (self.threads != 1)}"


def choose(config: LoopConfig, batch: Batch, signature: str, model: nn.Module) -> tuple[Compute, str]:
    """The way to compute, and one sentence that says why.

    What `config` leaves open is chosen by timing forward and backward passes of `model`. The figures are kept for this
    machine and `signature`, so that a second run computes as the first did.

    Args:
        config: its `precision`, `attention` and `threads`; None or `auto` leaves a choice open.
        batch: tensors by name as training will give them to the model, without labels.
        signature: names the model; figures of another one say little.
        model: with everything trainable; its weights stay as they are.

    Raises:
        ConfigError: a kind of attention is asked for, and `model` does not let it be chosen.
    """
    candidates = _candidates(config, _kernels(config, model))
    if len(candidates) == 1:
        return candidates[0], f"Computing in {candidates[0]}, {_why_single(config)}."
    file = cache_folder() / _FILE
    tokens = [ids for name, ids in batch.items() if ids.dtype == torch.int64 and name != "token_type_ids"]
    key = _key(candidates, len(tokens[0]), max(ids.shape[1] for ids in tokens), signature)
    measured = _read(file).get(key)
    source = "measured before"
    if measured is None:
        source = "measured now"
        times = measure(model, batch, candidates)
        least = {str(candidate): min(seconds) for candidate, seconds in times.items()}
        measured = {"tokens": sum(ids.numel() for ids in tokens), "seconds": least}
        if all(len(times.get(candidate, ())) >= LEAST_ROUNDS for candidate in candidates):
            # A machine so busy that there was no time for it is measured again next time.
            write_cached(file, json.dumps(_read(file) | {key: measured}, indent=1))
    seconds = measured["seconds"]
    chosen = best({candidate: seconds[str(candidate)] for candidate in candidates if str(candidate) in seconds})
    figures = "; ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
    return chosen, f"Computing in {chosen} ({source}, a step of {measured['tokens']:,} tokens: {figures})."


def fixed(training: AnyLoop, facts: Mapping[str, Any]) -> AnyLoop:
    """`training` with how to compute set by hand to `facts`, those of a `Compute` or of its record."""
    known = type(training).model_fields
    chosen = {name: value for name, value in facts.items() if name in known and value is not None}
    return training.model_copy(update=chosen)


def best(seconds: Mapping[Compute, float]) -> Compute:
    """The fastest; with all threads, and then in fp32, where none with fewer threads, or in bf16, is clearly faster."""

    def fastest(some: Iterable[Compute]) -> Compute:
        return min(some, key=lambda candidate: seconds[candidate])

    most = max(candidate.threads for candidate in seconds)
    settled = {}
    for precision in {candidate.precision for candidate in seconds}:
        own = [candidate for candidate in seconds if candidate.precision == precision]
        # On a machine that others use, threads wait for each other at one moment and not at the next.
        usual = [candidate for candidate in own if candidate.threads == most] or own
        settled[precision] = _unless_clearly_faster(seconds, fastest(usual), fastest(own))
    chosen = fastest(settled.values())
    return _unless_clearly_faster(seconds, settled.get("fp32", chosen), chosen)


def _unless_clearly_faster(seconds: Mapping[Compute, float], usual: Compute, fastest: Compute) -> Compute:
    return fastest if seconds[usual] >= WORTHWHILE_RATIO * seconds[fastest] else usual


def measure(model: nn.Module, batch: Batch, candidates: list[Compute]) -> dict[Compute, list[float]]:
    """Seconds of every forward and backward pass, in as many rounds as the budget has time for.

    Candidates take turns, so that a machine that is disturbed for a moment does not wrong one of them; the first round
    also pays for what is set up once. A candidate that there was no time for is left out.
    """
    # Without dropout, with which the fused kernel is another one: adapters train on layers that have it off.
    model.eval()
    start = time.perf_counter()
    seconds: dict[Compute, list[float]] = {}
    # The random numbers of the run are its own.
    with torch.random.fork_rng(devices=[]), _without_words(model):
        while True:
            for candidate in candidates:
                expected = max((min(passes) for passes in seconds.values()), default=0.0)
                if time.perf_counter() + expected > start + BUDGET_SECONDS:
                    return seconds or {candidate: [_step(model, batch, candidate)]}
                seconds.setdefault(candidate, []).append(_step(model, batch, candidate))


@contextmanager
def _without_words(model: nn.Module) -> Iterator[None]:
    """Inside the context embeddings get no gradient: it is as large as they are, and training makes none of all words.

    Those stay that are the weights of a product too.
    """
    products = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    words = [table for table in tables if table.requires_grad and id(table) not in products]
    for table in words:
        table.requires_grad_(False)
    try:
        yield
    finally:
        for table in words:
            table.requires_grad_(True)


def _step(model: nn.Module, batch: Batch, compute: Compute) -> float:
    start = time.perf_counter()
    with threads(compute.threads), training_kernels(model, compute), autocast(compute):
        model(**batch).sum().backward()
    seconds = time.perf_counter() - start
    model.zero_grad()
    return seconds


def probe_shape(weights: int, length: int, batch_size: int) -> tuple[int, int]:
    """Rows to time a step with and their tokens: a step costs 6 FLOP a token and weight of a linear layer.

    Rows have `length` tokens, but of a model so large that one of them takes too long, fewer.
    """
    tokens = int(STEP_FLOP / (6 * max(1, weights)))
    return max(1, min(batch_size, tokens // length)), min(length, max(LEAST_TOKENS, tokens))


def has_native_bf16() -> bool:
    """Whether the processor multiplies in bf16 itself; elsewhere libraries emulate it."""
    abilities = torch.cpu.get_capabilities()
    return any(abilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def answering_precision(asked: str) -> Precision:
    """What a trained model answers in: `auto` is bf16 where the processor has it.

    Raises:
        ConfigError: there is no such precision.
    """
    if asked == "auto":
        return "bf16" if has_native_bf16() else "fp32"
    if asked not in get_args(Precision):
        raise ConfigError(f"There is no precision {asked!r}; choose auto, {' or '.join(get_args(Precision))}.")
    return cast(Precision, asked)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Inside the context torch computes with `number` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def autocast(compute: Compute, device: str = "cpu") -> Iterator[None]:
    """The context to run a forward pass in."""
    with torch.autocast(device, dtype=torch.bfloat16, enabled=compute.precision == "bf16"):
        yield


@contextmanager
def training_kernels(model: nn.Module, compute: Compute) -> Iterator[None]:
    """Inside the context `model` trains with the fast parts: they give what the usual ones give, up to rounding."""
    with _twins(model), attention(_network(model), compute.attention), _frozen(model, compute):
        yield


@contextmanager
def _twins(model: nn.Module) -> Iterator[None]:
    """Let modules that have a faster twin be it; afterwards they are what they were."""
    slow = [(module, type(module)) for module in model.modules() if type(module) in _TWINS]
    try:
        for module, kind in slow:
            module.__class__ = _TWINS[kind]
        yield
    finally:
        for module, kind in slow:
            module.__class__ = kind


@contextmanager
def _frozen(model: nn.Module, compute: Compute) -> Iterator[None]:
    """Keep frozen weights of linear layers in bf16 where autocast would cast them in every step, to the same values."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)] * (compute.precision == "bf16")
    frozen = {id(p): p for layer in layers for p in layer.parameters(recurse=False) if not p.requires_grad}
    exact = [(parameter, parameter.data) for parameter in frozen.values()]
    try:
        for parameter, data in exact:
            parameter.data = data.to(torch.bfloat16)
        yield
    finally:
        for parameter, data in exact:
            parameter.data = data


def _network(model: nn.Module) -> nn.Module:
    """What of `model` is of transformers, if anything is."""
    network: nn.Module = getattr(model, "network", model)
    return network


def _kernels(config: LoopConfig, model: nn.Module) -> list[Attention | None]:
    """The kinds of attention that `config` leaves open; None alone where the model has one way of its own."""
    asked = config.attention if isinstance(config, TrainingConfig) else "auto"
    if is_choosable(_network(model)):
        return ["plain", "fused"] if asked == "auto" else [asked]
    if asked != "auto":
        raise ConfigError(
            f"training.attention={asked} has no effect on this backbone, which does not let its attention be chosen; "
            "leave it out."
        )
    return [None]


def _candidates(config: LoopConfig, kernels: list[Attention | None]) -> list[Compute]:
    available = torch.get_num_threads()
    # fp32 first: where there is no time for all, nothing would say that bf16 is worth its digits.
    precisions: list[Precision] = ["fp32", "bf16"] if has_native_bf16() else ["fp32"]
    if config.precision != "auto":
        precisions = [config.precision]
    found = [Compute(p, kernel, config.threads or available) for p in precisions for kernel in kernels]
    if config.threads is None and available > 1:
        # Where two threads share a core, half of them can be faster.
        found.append(replace(found[-len(kernels)], threads=available // 2))
    return found


def _why_single(config: LoopConfig) -> str:
    return "as asked for" if config.precision != "auto" else "as this processor has no bf16 of its own"


def _key(candidates: list[Compute], rows: int, length: int, signature: str) -> str:
    # Rows and lengths are told apart by powers of two: closer ones compute alike.
    facts = [
        processor(), platform.machine(), torch.__version__, signature, rows.bit_length(), length.bit_length(),
        [asdict(candidate) for candidate in candidates],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _read(file: Path) -> dict[str, Any]:
    """What was measured before; nothing where there is no such file, or it holds something else."""
    try:
        measured = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return measured if isinstance(measured, dict) else {}
