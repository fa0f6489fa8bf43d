"""The text encoder: padding is nothing to it, its vectors are as given, it is saved and loaded as transformers does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests import tiny
from transferkit.adaptation.adapters import disabled, merge
from transferkit.adaptation.strategies import make_strategy
from transferkit.config import BackboneConfig, EncoderConfig, StrategySpec
from transferkit.models.backbones import TextClassifier, load_classifier, longest_input
from transferkit.models.hub import BackboneFiles, locate
from transferkit.models.new_encoder import make_encoder
from transferkit.models.text_encoder import TextEncoder, TextEncoderConfig
from transferkit.training.precision import Compute, autocast, training_kernels

IDS = torch.tensor([[5, 6, 7, 8], [9, 4, 0, 0]])
REAL = IDS != 0
BATCH = {"input_ids": IDS, "attention_mask": REAL}


@pytest.fixture
def network() -> TextEncoder:
    """In the setting of the published playbook: vectors of 100 numbers, two layers, two heads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return TextEncoder(TextEncoderConfig(vocab_size=12)).eval()


@pytest.fixture
def model(network: TextEncoder) -> TextClassifier:
    torch.manual_seed(2)
    return TextClassifier(network, "mean", nn.Sequential(nn.Dropout(0.1), nn.Linear(100, 4)), set()).eval()


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


def made(folder: Path, freeze: bool = False, **settings: object) -> BackboneFiles:
    config = {"vectors": str(tiny.save_vectors(folder / "vectors.txt")), "freeze_vectors": freeze, **settings}
    return make_encoder(EncoderConfig.model_validate(config), 0, folder / "encoder")


def loaded(files: BackboneFiles, labels: tuple[str, ...] = tiny.LABELS) -> TextClassifier:
    return load_classifier(files, BackboneConfig(), labels, 0).eval()


def test_padding_changes_no_logit(model: TextClassifier) -> None:
    together = model(**BATCH)
    alone = model(input_ids=IDS[1:, :2], attention_mask=REAL[1:, :2])
    assert together.shape == (2, 4)
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


def test_it_shows_what_its_layers_look_at_where_it_is_asked(network: TextEncoder) -> None:
    plain, asked = network(**BATCH), network(**BATCH, output_attentions=True)
    assert plain.attentions is None
    assert [weights.shape for weights in asked.attentions] == [(2, 2, 4, 4)] * 2
    for weights in asked.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 4))
        assert (weights[1, :, :, 2:] == 0).all(), "padding"
    torch.testing.assert_close(asked.last_hidden_state, plain.last_hidden_state, atol=1e-5, rtol=1e-5)


def test_it_equals_torch(network: TextEncoder, model: TextClassifier) -> None:
    layer = nn.TransformerEncoderLayer(100, 2, 128, batch_first=True)
    twin = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    for ours, theirs in zip(network.encoder.layers, twin.layers, strict=True):
        parts = (ours.attention.query, ours.attention.key, ours.attention.value)
        with torch.no_grad():
            theirs.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            theirs.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.self_attn.out_proj.load_state_dict(ours.attention.output.state_dict())
        theirs.linear1.load_state_dict(ours.feed_forward.linear1.state_dict())
        theirs.linear2.load_state_dict(ours.feed_forward.linear2.state_dict())
        theirs.norm1.load_state_dict(ours.residuals[0].norm.state_dict())
        theirs.norm2.load_state_dict(ours.residuals[1].norm.state_dict())
    states = twin(network.embedding.weight[IDS] * 10 + network.positions.table[:4], src_key_padding_mask=~REAL)
    mean = torch.stack([row[keep].mean(0) for row, keep in zip(states, REAL, strict=True)])
    torch.testing.assert_close(network(**BATCH).last_hidden_state[REAL], states[REAL], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(**BATCH), model.head(mean), atol=1e-5, rtol=1e-5)


def test_what_is_saved_is_what_is_loaded(network: TextEncoder, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path)
    files = BackboneFiles("saved", tmp_path, pooling="mean")
    again = loaded(files)
    torch.testing.assert_close(again.network(**BATCH).last_hidden_state, network(**BATCH).last_hidden_state)
    assert again.head_parameters == {"head.1.weight", "head.1.bias"}
    assert longest_input(files) is None, "sinusoids go on for ever"


def test_a_new_encoder_has_the_vectors_that_were_given(tmp_path: Path) -> None:
    model = loaded(made(tmp_path))
    first = [float(value) for value in (tmp_path / "vectors.txt").read_text().split("\n")[0].split(" ")[1:]]
    torch.testing.assert_close(model.network.embedding.weight[2], torch.tensor(first))
    assert torch.equal(model.network.embedding.weight[0], torch.zeros(8))
    origins = {name: model.origins[parameter] for name, parameter in model.named_parameters()}
    assert {name for name, origin in origins.items() if origin == "loaded"} == {"network.embedding.weight"}
    assert set(origins.values()) == {"loaded", "new"}


def test_a_new_encoder_may_have_the_embeddings_and_the_tokenizer_of_minilm(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    minilm = locate("minilm").folder
    files = make_encoder(EncoderConfig(vectors="minilm", heads=6), 0, tmp_path / "encoder")
    network = loaded(files).network
    assert (network.config.hidden_size, network.config.heads) == (384, 6)
    embeddings = AutoModel.from_pretrained(minilm).get_input_embeddings().weight
    assert torch.equal(network.embedding.weight, embeddings)
    text = "An unfathomable, quietly moving film!"
    ids = AutoTokenizer.from_pretrained(minilm)(text)["input_ids"]
    assert AutoTokenizer.from_pretrained(files.folder)(text)["input_ids"] == ids
    assert len(ids) > len(text.split())


def test_a_seed_draws_the_same_layers_and_leaves_the_callers_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    first = loaded(made(tmp_path)).network.state_dict()
    assert all(torch.equal(first[name], value) for name, value in loaded(made(tmp_path)).network.state_dict().items())
    torch.manual_seed(4)
    made(tmp_path)
    drawn = torch.rand(3)
    torch.manual_seed(4)
    assert torch.equal(torch.rand(3), drawn)


@pytest.mark.parametrize("strategy", ["full", "scratch", "partial", "lora"])
def test_fixed_vectors_never_train_and_are_never_drawn_anew(tmp_path: Path, strategy: str) -> None:
    model = loaded(made(tmp_path, freeze=True))
    before = model.network.embedding.weight.detach().clone()
    assert make_strategy(StrategySpec(name=strategy)).apply(model).trainable_parameters > 0
    assert not model.network.embedding.weight.requires_grad
    assert torch.equal(model.network.embedding.weight, before)


@pytest.mark.parametrize("freeze", [True, False])
def test_vectors_move_in_training_where_they_are_not_fixed(tmp_path: Path, freeze: bool) -> None:
    model = loaded(made(tmp_path, freeze=freeze))
    before = tiny.weights_of(model)
    make_strategy(StrategySpec(name="full")).apply(model)
    tiny.train_steps(model, BATCH)
    changed = set(tiny.changed_names(before, model))
    assert ("network.embedding.weight" in changed) != freeze
    assert "network.encoder.layers.0.feed_forward.linear1.weight" in changed


def test_scratch_draws_vectors_that_train_of_about_length_one(tmp_path: Path) -> None:
    model = loaded(made(tmp_path))
    before = model.network.embedding.weight.detach().clone()
    make_strategy(StrategySpec(name="scratch")).apply(model)
    after = model.network.embedding.weight.detach()
    assert not torch.equal(after, before)
    assert 0.7 < after[1:].norm(dim=1).mean() < 1.3
    assert torch.equal(after[0], torch.zeros(8))
    torch.testing.assert_close(model.network.positions.table[0, :2], torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize(
    ("strategy", "options", "trains", "numbers"),
    [
        ("linear-probe", {}, [], 0),
        ("partial", {"patterns": ["**.linear2"]}, ["linear2"], 2 * (128 * 100 + 100)),
        (
            "bottleneck",
            {"targets": ["linear1", "linear2"]},
            ["linear1.down", "linear1.up", "linear2.down", "linear2.up"],
            2 * sum(2 * 24 * width + 24 + width for width in (128, 100)),
        ),
        # Four projections of 100 to 100, then 100 to 128 and back, in each of two layers.
        ("lora", {"rank": 2}, ["lora_a", "lora_b"], 2 * 2 * (4 * (100 + 100) + 2 * (100 + 128))),
        # A factor for each output of a projection, and for each input of a feed-forward layer.
        ("peft:ia3", {}, ["ia3_l"], 2 * (4 * 100 + 100 + 128)),
    ],
)
def test_strategies_adapt_it(
    model: TextClassifier, strategy: str, options: dict[str, object], trains: list[str], numbers: int
) -> None:
    before = model(**BATCH)
    report = make_strategy(StrategySpec(name=strategy, options=options)).apply(model)
    assert report.trainable_parameters == numbers + 4 * 100 + 4
    assert model.head_parameters <= set(report.trainable_names)
    others = [name for name in report.trainable_names if name not in model.head_parameters]
    assert bool(others) == bool(trains)
    assert all(any(f".{part}" in name for part in trains) for name in others)
    torch.testing.assert_close(model.eval()(**BATCH), before, atol=1e-2, rtol=1e-2)


def test_methods_that_answer_in_fp32_train_it_in_bf16(model: TextClassifier) -> None:
    options = {"target_modules": ["query", "value"]}
    report = make_strategy(StrategySpec(name="peft:loha", options=options)).apply(model)
    compute = Compute("bf16", None, 1)
    with training_kernels(model.train(), compute), autocast(compute):
        loss = model(**BATCH).sum()
    loss.backward()
    trained = [p.grad for name, p in model.named_parameters() if name in report.trainable_names]
    assert all(grad is not None for grad in trained)


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning"])
def test_virtual_tokens_stand_before_a_text(model: TextClassifier, method: str) -> None:
    before = model(**BATCH)
    report = make_strategy(StrategySpec(name=f"peft:{method}", options={"num_virtual_tokens": 3})).apply(model)
    assert set(report.trainable_names) > model.head_parameters
    together = tiny.logits_of(model, BATCH)
    assert not torch.allclose(together, before, atol=1e-4)
    alone = tiny.logits_of(model, {"input_ids": IDS[1:, :2], "attention_mask": REAL[1:, :2]})
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)
    with disabled(model), torch.no_grad():
        torch.testing.assert_close(model(**BATCH), before)


def test_vectors_may_stand_in_place_of_ids(network: TextEncoder) -> None:
    vectors = network.embedding(IDS)
    given = network(inputs_embeds=vectors, attention_mask=REAL).last_hidden_state
    torch.testing.assert_close(given, network(**BATCH).last_hidden_state)


def test_the_last_layer_of_one_is_the_layer_and_no_list_inside_it(tmp_path: Path) -> None:
    model = loaded(made(tmp_path, layers=1))
    report = make_strategy(StrategySpec(name="partial")).apply(model)
    layer = {name for name, _ in model.named_parameters() if name.startswith("network.encoder.layers.0.")}
    assert set(report.trainable_names) == layer | model.head_parameters


def test_a_bottleneck_is_under_a_fifth_of_what_trains_with_fixed_vectors(network: TextEncoder) -> None:
    network.config.freeze_vectors = True
    sizes = {}
    for name in ("full", "bottleneck"):
        model = TextClassifier(network, "mean", nn.Sequential(nn.Dropout(0.1), nn.Linear(100, 2)), set())
        sizes[name] = make_strategy(StrategySpec(name=name)).apply(model).trainable_parameters
    # By hand: two layers of four projections, two feed-forward layers and two norms; two adapters in each.
    layer = 4 * (100 * 100 + 100) + (100 * 128 + 128) + (128 * 100 + 100) + 2 * 200
    adapters = sum(2 * 24 * width + 24 + width for width in (128, 100))
    assert sizes == {"full": 2 * layer + 202, "bottleneck": 2 * adapters + 202}
    assert sizes["bottleneck"] < 0.2 * sizes["full"]


def test_merged_after_real_steps_it_gives_the_same_logits(model: TextClassifier) -> None:
    base = model(**BATCH)
    make_strategy(StrategySpec(name="lora", options={"rank": 2})).apply(model)
    tiny.train_steps(model, BATCH)
    adapted = tiny.logits_of(model, BATCH)
    assert not torch.allclose(adapted, base, atol=1e-2)
    with disabled(model), torch.no_grad():
        torch.testing.assert_close(model(**BATCH), base)
    torch.testing.assert_close(tiny.logits_of(merge(model), BATCH), adapted, atol=1e-5, rtol=1e-5)
