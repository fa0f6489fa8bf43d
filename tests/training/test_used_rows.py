"""Training the rows that the data reads equals training all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from transferkit.data.batching import FeatureTable
from transferkit.training.optimizer import make_optimizer
from transferkit.training.used_rows import UsedRows, used_rows

READ = [[3, 5, 9], [5, 0, 11, 3]]


def table(rows: list[list[int]]) -> FeatureTable:
    return FeatureTable.from_arrow(pa.table({"input_ids": pa.array(rows, pa.list_(pa.int32()))}), pad_token_id=0)


class Words(nn.Module):
    """Word vectors summed into one number."""

    def __init__(self, tied: bool = False, padding_idx: int | None = 0, **options: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(20, 4, padding_idx, **options)
        self.out = nn.Linear(4, 20, bias=False)
        if tied:
            self.out.weight = self.words.weight

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.out(self.words(ids)).square().sum()
        return scores


class Unnamed(Words):
    """As transformers has it of CANINE, which looks characters up in several tables."""

    def get_input_embeddings(self) -> nn.Embedding:
        raise NotImplementedError


@contextmanager
def plain(model: nn.Module, tables: list[FeatureTable]) -> Iterator[None]:
    yield


def trained(context, padding_idx: int | None) -> Words:  # type: ignore[no-untyped-def]
    model = Words(padding_idx=padding_idx)
    with context(model, [table(READ)]):
        optimizer = make_optimizer(model, 0.1, weight_decay=0.3)
        for row in READ * 3:
            model(torch.tensor([row])).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return model


@pytest.mark.parametrize("padding_idx", [0, None])
def test_the_trained_rows_and_the_rest_are_what_training_all_of_them_gives(padding_idx: int | None) -> None:
    before = Words().words.weight.detach()
    mine, usual = trained(used_rows, padding_idx), trained(plain, padding_idx)
    torch.testing.assert_close(mine.words.weight, usual.words.weight)
    torch.testing.assert_close(mine.out.weight, usual.out.weight)
    assert not torch.allclose(mine.words.weight[5], before[5]), "a row that is read trains"
    assert not torch.allclose(mine.words.weight[7], before[7]), "a row that is not read decays"


def test_inside_it_holds_the_rows_that_are_read_and_one_more() -> None:
    model = Words()
    weight = model.words.weight
    ids = torch.tensor([READ[0]])
    expected = model(ids)
    with used_rows(model, [table(READ[:1]), table(READ[1:])]):
        assert model.words.weight.shape == (6, 4), "0, 3, 5, 9, 11 and the factor of the decay"
        assert "words.places" not in model.state_dict()
        assert torch.equal(model(ids), expected)
        with pytest.raises(IndexError):
            model(torch.tensor([[7]]))
    assert model.words.weight is weight
    assert type(model.words) is nn.Embedding
    assert (model.words.padding_idx, [name for name, _ in model.named_buffers()]) == (0, [])
    assert torch.equal(model(ids), expected)


def test_padding_counts_as_read() -> None:
    with used_rows(model := Words(), [table([[3, 4]])]):
        assert model.words.padding_idx == 0
        model(torch.tensor([[3, 0]]))


@pytest.mark.parametrize(
    "model",
    [
        Words(tied=True),
        Words().requires_grad_(False),
        Words(sparse=True),
        Words(scale_grad_by_freq=True),
        nn.Linear(2, 2),
        Unnamed(),
    ],
    ids=["tied", "frozen", "sparse", "by frequency", "no words", "not named"],
)
def test_what_it_cannot_serve_is_left_as_it_is(model: nn.Module) -> None:
    before = dict(model.named_parameters())
    with used_rows(model, [table(READ)]):
        assert not any(isinstance(module, UsedRows) for module in model.modules())
        assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_the_model_is_whole_again_after_an_error() -> None:
    model = Words()
    with pytest.raises(KeyboardInterrupt), used_rows(model, [table(READ)]):
        raise KeyboardInterrupt
    assert model.words.weight.shape == (20, 4)
    assert np.isfinite(model.words.weight.detach().numpy()).all()
