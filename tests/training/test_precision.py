"""How training computes is what was asked for, or what the clock says; and it changes no result beyond rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests import tiny
from transferkit.adaptation.strategies import make_strategy
from transferkit.config import StrategySpec, TrainingConfig
from transferkit.errors import ConfigError
from transferkit.models.averaging import AveragingConfig, AveragingEncoder
from transferkit.models.text_encoder import TextEncoder, TextEncoderConfig
from transferkit.models.translator import build_translator
from transferkit.training import precision
from transferkit.training.precision import (
    Compute,
    answering_precision,
    autocast,
    best,
    choose,
    has_native_bf16,
    threads,
    training_kernels,
)

BATCH = {"input_ids": torch.ones((2, 6), dtype=torch.int64), "attention_mask": torch.ones((2, 6), dtype=torch.bool)}


def clock(seconds: dict[str, float], rounds: int = 2) -> Callable[..., dict[Compute, list[float]]]:
    """A measurement that gives figures by precision."""
    return lambda _model, _tokens, candidates: {one: [seconds[one.precision]] * rounds for one in candidates}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(backbone: Callable[[str], Path]) -> nn.Module:
    return tiny.load_model(backbone("bert"))


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_native_bf16", lambda: True)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(("exact", "expected"), [(0.4, "fp32"), (1.1, "fp32"), (2.9, "bf16")])
def test_bf16_has_to_be_clearly_faster(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, exact: float, expected: str
) -> None:
    monkeypatch.setattr(precision, "measure", clock({"bf16": 1.0, "fp32": exact}))
    chosen, reason = choose(TrainingConfig(), BATCH, "model", model)
    assert chosen.precision == expected
    assert f"fp32, plain attention, {chosen.threads} thread {1000 * exact:.0f} ms" in reason


def test_a_processor_without_bf16_does_not_get_it(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_native_bf16", lambda: False)
    monkeypatch.setattr(precision, "measure", clock({"bf16": 0.001, "fp32": 1.0}))
    assert choose(TrainingConfig(), BATCH, "model", model)[0].precision == "fp32"


def test_whether_bf16_is_native_is_what_the_processor_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for abilities, native in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda a=abilities: a)
        assert has_native_bf16() is native


@pytest.mark.parametrize(
    ("asked", "native", "expected"),
    [("auto", True, "bf16"), ("auto", False, "fp32"), ("fp32", True, "fp32"), ("bf16", False, "bf16")],
)
def test_a_model_answers_in_what_is_asked_for_or_in_what_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, asked: str, native: bool, expected: str
) -> None:
    monkeypatch.setattr(precision, "has_native_bf16", lambda: native)
    assert answering_precision(asked) == expected
    with pytest.raises(ConfigError, match=r"There is no precision 'fp16'; choose auto, fp32 or bf16\."):
        answering_precision("fp16")


@pytest.mark.parametrize("asked", ["bf16", "fp32"])
def test_what_is_asked_for_is_not_measured(model: nn.Module, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setattr(precision, "measure", lambda *_: pytest.fail("measured"))
    config = TrainingConfig.model_validate({"precision": asked, "attention": "plain", "threads": 1})
    chosen, reason = choose(config, BATCH, "model", model)
    assert chosen == Compute(asked, "plain", 1)
    assert reason == f"Computing in {asked}, plain attention, 1 thread, as asked for."


@pytest.mark.usefixtures("native")
def test_figures_are_kept_for_the_model_and_what_was_asked(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "measure", clock({"bf16": 1.0, "fp32": 3.0}))
    first, said = choose(TrainingConfig(), BATCH, "model", model)
    assert "measured now" in said
    monkeypatch.setattr(precision, "measure", clock({"bf16": 3.0, "fp32": 1.0}))
    second, said = choose(TrainingConfig(), BATCH, "model", model)
    assert "measured before" in said
    assert first == second
    assert choose(TrainingConfig(), BATCH, "another", model)[0].precision == "fp32"
    assert choose(TrainingConfig(attention="fused"), BATCH, "model", model)[0] == Compute(attention="fused", threads=1)


@pytest.mark.usefixtures("native")
def test_figures_of_another_processor_or_another_number_of_rows_are_not_taken(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "measure", clock({"bf16": 1.0, "fp32": 3.0}))
    assert "a step of 12 tokens" in choose(TrainingConfig(), BATCH, "model", model)[1]
    monkeypatch.setattr(precision, "measure", clock({"bf16": 3.0, "fp32": 1.0}))
    three = {name: torch.cat([tensor, tensor[:1]]) for name, tensor in BATCH.items()}
    assert "measured before, a step of 12 tokens" in choose(TrainingConfig(), three, "model", model)[1]
    one = {name: tensor[:1] for name, tensor in BATCH.items()}
    assert "measured now, a step of 6 tokens" in choose(TrainingConfig(), one, "model", model)[1]
    monkeypatch.setattr(precision, "processor", lambda: "another")
    assert choose(TrainingConfig(), BATCH, "model", model)[0].precision == "fp32"


@pytest.mark.usefixtures("native")
def test_figures_of_the_first_round_alone_are_not_kept(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    for rounds, source in ((1, "now"), (2, "now"), (1, "before")):
        monkeypatch.setattr(precision, "measure", clock({"bf16": 1.0, "fp32": 3.0}, rounds))
        assert f"measured {source}" in choose(TrainingConfig(), BATCH, "model", model)[1]


@pytest.mark.usefixtures("native")
def test_a_cache_that_cannot_be_read_or_written_is_done_without(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "measure", clock({"bf16": 1.0, "fp32": 3.0}))
    (tmp_path / "cache").mkdir()
    for content in (b"{ not JSON", b"[1, 2]", b"\xff\xfe"):
        (tmp_path / "cache" / "measured.json").write_bytes(content)
        assert choose(TrainingConfig(), BATCH, "model", model)[0].precision == "bf16"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path / "file"))
    assert choose(TrainingConfig(), BATCH, "model", model)[0].precision == "bf16"


@pytest.mark.usefixtures("native")
def test_both_kernels_and_half_of_the_threads_are_tried(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Compute] = []

    def timed(_model: nn.Module, _batch: object, candidates: list[Compute]) -> dict[Compute, list[float]]:
        tried.extend(candidates)
        return {candidate: [1.0, 1.0] for candidate in candidates}

    monkeypatch.setattr(precision, "measure", timed)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    choose(TrainingConfig(), BATCH, "model", model)
    four = [Compute(p, a, 4) for p in ("fp32", "bf16") for a in ("plain", "fused")]
    assert tried == [*four, Compute("bf16", "plain", 2)]


@pytest.fixture(params=["text-encoder", "averaging", "translator", "deberta"])
def unchoosable(request: pytest.FixtureRequest, backbone: Callable[[str], Path]) -> nn.Module:
    """Models with one way of their own to compute attention, or with none."""
    if request.param == "deberta":
        return tiny.load_model(backbone("deberta"))
    ours: dict[str, Callable[[], nn.Module]] = {
        "text-encoder": lambda: TextEncoder(TextEncoderConfig(hidden_size=8)),
        "averaging": lambda: AveragingEncoder(AveragingConfig(vector_size=8)),
        "translator": lambda: build_translator(9, 9, width=8, heads=2, feed_forward=8),
    }
    return ours[request.param]()


@pytest.mark.usefixtures("native")
def test_attention_that_cannot_be_chosen_is_not_tried_or_named(
    unchoosable: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def timed(_model: nn.Module, _batch: object, candidates: list[Compute]) -> dict[Compute, list[float]]:
        tried.extend(candidates)
        return {candidate: [1.0, 1.0] for candidate in candidates}

    monkeypatch.setattr(precision, "measure", timed)
    chosen, said = choose(TrainingConfig(threads=1), BATCH, "model", unchoosable)
    assert tried == [Compute("fp32", None, 1), Compute("bf16", None, 1)]
    assert chosen.attention is None
    assert said.startswith("Computing in fp32, 1 thread (measured now")
    assert "attention" not in said


@pytest.mark.parametrize("asked", ["plain", "fused"])
def test_attention_that_cannot_be_chosen_cannot_be_set(unchoosable: nn.Module, asked: str) -> None:
    config = TrainingConfig.model_validate({"attention": asked})
    with pytest.raises(ConfigError, match=rf"^training\.attention={asked} has no effect on this backbone"):
        choose(config, BATCH, "model", unchoosable)


def test_measuring_times_every_candidate_and_leaves_the_model_as_it_was(
    backbone: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.load_model(backbone("bert"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    candidates = [Compute(p, a, 1) for p in ("bf16", "fp32") for a in ("plain", "fused")]
    monkeypatch.setattr(precision, "BUDGET_SECONDS", 1.0)
    seconds = precision.measure(model, BATCH, candidates)
    assert list(seconds) == candidates
    assert min(min(passes) for passes in seconds.values()) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_no_gradient_of_all_words_is_made(backbone: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, set[str]] = {}
    step = precision._step

    def seen(model: nn.Module, batch: precision.Batch, compute: Compute) -> float:
        made[type(model).__name__] = {name for name, one in model.named_parameters() if not one.requires_grad}
        return step(model, batch, compute)

    monkeypatch.setattr(precision, "_step", seen)
    monkeypatch.setattr(precision, "BUDGET_SECONDS", 0.0)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "width": 8, "heads": 2, "feed_forward": 8}
    model, translator = tiny.load_model(backbone("bert")), build_translator(9, 9, tied=True, **sizes)
    precision.measure(model, BATCH, [Compute()])
    ids = torch.ones((2, 6), dtype=torch.int64)
    mask = torch.ones((2, 6), dtype=torch.bool)
    precision.measure(translator, {"source": ids, "source_mask": mask, "target": ids}, [Compute()])
    assert {name.split(".")[-2] for name in made["TextClassifier"]} == {
        "word_embeddings", "position_embeddings", "token_type_embeddings",
    }  # fmt: skip
    assert made["Translator"] == set()
    assert all(parameter.requires_grad for one in (model, translator) for parameter in one.parameters())


def test_the_measuring_ends_when_its_time_is_over(
    backbone: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "BUDGET_SECONDS", 0.0)
    candidates = [Compute("fp32", "plain", 1), Compute("fp32", "fused", 1)]
    assert list(precision.measure(tiny.load_model(backbone("bert")), BATCH, candidates)) == candidates[:1]


@pytest.mark.parametrize("step", [0.01, 0.4, 1.1, 2.0])
def test_the_measuring_keeps_to_its_budget(model: nn.Module, monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    now = [100.0]

    def passed(*_: object) -> float:
        now[0] += step
        return step

    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(precision, "_step", passed)
    candidates = [Compute(p, a, 1) for p in ("fp32", "bf16") for a in ("plain", "fused")]
    seconds = precision.measure(model, BATCH, candidates)
    assert now[0] - 100 <= precision.BUDGET_SECONDS + 1e-6
    assert precision.BUDGET_SECONDS <= 3
    assert now[0] - 100 >= precision.BUDGET_SECONDS - step - 1e-6, "no step more had fitted"
    assert sum(map(len, seconds.values())) == round((now[0] - 100) / step)


@pytest.mark.usefixtures("native")
def test_without_time_for_bf16_it_is_not_chosen(
    backbone: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "BUDGET_SECONDS", 0.0)
    chosen, _ = choose(TrainingConfig(), BATCH, "model", tiny.load_model(backbone("bert")))
    assert chosen.precision == "fp32"


def test_the_best_of_bf16_alone_is_the_fastest() -> None:
    plain, fused = Compute("bf16", "plain", 1), Compute("bf16", "fused", 1)
    assert best({plain: 2.0, fused: 1.0}) == fused


def test_fewer_threads_have_to_be_clearly_faster() -> None:
    two, one, exact = Compute("bf16", "plain", 2), Compute("bf16", "plain", 1), Compute("fp32", "plain", 2)
    assert best({two: 1.1, exact: 2.0, one: 1.0}) == two
    assert best({two: 2.0, exact: 2.0, one: 1.0}) == one
    assert best({two: 1.0, one: 0.9, exact: 0.95}) == exact
    # 1.31 times as fast as fp32 is the thread alone, which is not chosen.
    assert best({one: 1.0, two: 1.25, exact: 1.31}) == exact


def test_a_timed_step_has_at_least_one_row_and_no_more_than_a_batch() -> None:
    assert precision.probe_shape(10, 8, 32) == (32, 8)
    assert precision.probe_shape(10**7, 64, 32) == (int(precision.STEP_FLOP / (6 * 10**7 * 64)), 64)
    assert precision.probe_shape(10**8, 512, 32) == (1, int(precision.STEP_FLOP / (6 * 10**8)))
    assert precision.probe_shape(10**10, 512, 32) == (1, precision.LEAST_TOKENS)


def test_contexts_compute_in_the_precision_they_name() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    with autocast(Compute("bf16")):
        assert layer(x).dtype == torch.bfloat16
    with autocast(Compute("fp32")):
        assert layer(x).dtype == torch.float32


def test_the_number_of_threads_is_given_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("strategy", ["lora", "partial", "bottleneck", "full"])
def test_weights_kept_in_bf16_train_as_weights_cast_in_every_step(
    backbone: Callable[[str], Path], strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = tiny.make_batch(backbone("bert"))
    gradients = []
    for kept in (True, False):
        if not kept:
            monkeypatch.setattr(precision, "_frozen", lambda *_: threads(1))
        torch.manual_seed(0)
        model = tiny.load_model(backbone("bert"))
        make_strategy(StrategySpec(name=strategy)).apply(model)
        compute = Compute("bf16", "plain", 1)
        with training_kernels(model, compute), autocast(compute):
            model(**batch).float().square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert torch.equal(*gradients)


@pytest.mark.parametrize("kind", ["fused", "plain"])
def test_bf16_rounds_and_changes_no_more(backbone: Callable[[str], Path], kind: str) -> None:
    model, batch = tiny.load_model(backbone("bert")), tiny.make_batch(backbone("bert"))
    with torch.no_grad():
        exact = model(**batch)
        compute = Compute("bf16", kind, 1)
        with training_kernels(model, compute), autocast(compute):
            rounded = model(**batch).float()
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=5e-2, rtol=5e-2)
