"""Tokens of single texts and pairs, cut and whole, equal by the row and by the data set."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers.processors import TemplateProcessing
from transformers import AutoModel, AutoTokenizer

from tests import tiny
from transferkit.config import TokenizationConfig
from transferkit.data.batching import FeatureTable
from transferkit.errors import BackboneError, ConfigError
from transferkit.tokenization.pretrained import TextTokenizer

Folders = Callable[[str], Path]
LONG = "the film was a very good story and the plot was not boring but the scene is slow"


def load(folder: Path, allowed: int | None = 64, **settings: object) -> TextTokenizer:
    return TextTokenizer.load(folder, TokenizationConfig.model_validate(settings), allowed)


def words(tokenizer: TextTokenizer, ids: list[int]) -> list[str]:
    return list(tokenizer.backend.convert_ids_to_tokens(ids))


def test_single_texts_and_pairs_have_the_familys_frame(backbone: Folders) -> None:
    bert = load(backbone("bert"))
    encoded, lengths = bert.encode([("a film",)])
    assert words(bert, encoded["input_ids"][0]) == ["[CLS]", "a", "film", "[SEP]"]
    assert lengths.tolist() == [4]
    encoded, lengths = bert.encode([("a film", "good"), ("a", "b")])
    assert words(bert, encoded["input_ids"][0]) == ["[CLS]", "a", "film", "[SEP]", "good", "[SEP]"]
    assert encoded["token_type_ids"][0] == [0, 0, 0, 0, 1, 1]
    assert lengths.tolist() == [6, 5]


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_pairs_have_token_types_where_the_family_uses_them(name: str, backbone: Folders) -> None:
    tokenizer = load(backbone(name))
    encoded, _ = tokenizer.encode([("a film", "good")])
    assert tokenizer.uses_token_types(2) == tiny.FAMILIES[name].token_types
    assert ("token_type_ids" in encoded) == tiny.FAMILIES[name].token_types
    assert set(encoded) <= {"input_ids", "token_type_ids"}


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_types_of_a_single_text_that_are_all_zero_are_left_out(name: str, backbone: Folders) -> None:
    tokenizer = load(backbone(name))
    encoded, _ = tokenizer.encode([("a film",)])
    assert set(encoded) == {"input_ids"}
    assert not tokenizer.uses_token_types(1)


@pytest.mark.parametrize("name", [name for name, family in tiny.FAMILIES.items() if family.token_types])
def test_without_types_a_backbone_answers_as_with_zeros(name: str, backbone: Folders) -> None:
    model = AutoModel.from_pretrained(backbone(name)).eval()
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    alone, with_zeros = model(input_ids=ids), model(input_ids=ids, token_type_ids=torch.zeros_like(ids))
    assert torch.equal(alone.last_hidden_state, with_zeros.last_hidden_state)


def test_types_of_a_single_text_that_are_not_all_zero_stay(backbone: Folders) -> None:
    tokenizer = load(backbone("bert"))
    frame = TemplateProcessing(single="[CLS]:2 $A:0", pair="[CLS]:2 $A:0 $B:1", special_tokens=[("[CLS]", 2)])
    tokenizer.backend.backend_tokenizer.post_processor = frame
    assert tokenizer.uses_token_types(1)
    assert tokenizer.encode([("a film",)])[0]["token_type_ids"] == [[2, 0, 0]]


def test_roberta_pairs_have_two_separators(backbone: Folders) -> None:
    tokenizer = load(backbone("roberta"))
    tokens = words(tokenizer, tokenizer.encode([("a", "a")])[0]["input_ids"][0])
    assert tokens == ["<s>", "a", "</s>", "</s>", "a", "</s>"]


@pytest.mark.parametrize("name", [*tiny.FAMILIES, "t5"])
def test_two_texts_are_one_where_nothing_stands_between_them(name: str, backbone: Folders) -> None:
    assert load(backbone(name)).joins_pairs() == (name == "gpt2")


@pytest.mark.parametrize(
    ("side", "kept"), [("right", ["the", "film", "was", "a"]), ("left", ["the", "scene", "is", "slow"])]
)
def test_truncation_keeps_the_frame_and_cuts_the_side(side: str, kept: list[str], backbone: Folders) -> None:
    tokenizer = load(backbone("bert"), max_length=6, truncation_side=side)
    encoded, lengths = tokenizer.encode([("good",), (LONG,), ("bad",)])
    assert words(tokenizer, encoded["input_ids"][1]) == ["[CLS]", *kept, "[SEP]"]
    assert lengths.tolist() == [3, len(LONG.split()) + 2, 3]


def test_a_pair_is_cut_where_it_is_longest(backbone: Folders) -> None:
    tokenizer = load(backbone("bert"), max_length=9)
    encoded, lengths = tokenizer.encode([(LONG, "good story")])
    tokens = words(tokenizer, encoded["input_ids"][0])
    assert tokens == ["[CLS]", "the", "film", "was", "a", "[SEP]", "good", "story", "[SEP]"]
    assert encoded["token_type_ids"] == [[0] * 6 + [1] * 3]
    assert lengths.tolist() == [len(LONG.split()) + 5]


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_the_shortest_length_still_gives_rows_of_that_length(name: str, backbone: Folders) -> None:
    for texts in ([(LONG,)], [(LONG, LONG)]):
        encoded, _ = load(backbone(name), max_length=4).encode(texts)
        assert len(encoded["input_ids"][0]) <= 4


def test_max_length_is_bounded_by_the_backbone(backbone: Folders) -> None:
    with pytest.raises(ConfigError, match="--max-length 65 is more than the 64 tokens"):
        load(backbone("bert"), max_length=65)
    assert load(backbone("bert"), max_length=64).max_length == 64
    # The tokenizer's own files say 64 too.
    with pytest.raises(ConfigError, match="more than the 64"):
        load(backbone("bert"), allowed=512, max_length=65)


@pytest.mark.parametrize(
    ("stated", "allowed", "expected"),
    [(64, 512, 64), (10**30, 48, 48), (512, 512, 256), (10**30, None, 256), (100, None, 100)],
)
def test_the_default_length_is_the_smaller_of_256_and_what_is_allowed(
    stated: int, allowed: int | None, expected: int, backbone: Folders, tmp_path: Path
) -> None:
    folder = shutil.copytree(backbone("bert"), tmp_path / "model")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": stated}))
    assert load(folder, allowed=allowed).max_length == expected


def test_a_missing_pad_token_is_made_up_for_and_said(backbone: Folders, tmp_path: Path) -> None:
    tokenizer = load(backbone("gpt2"))
    assert tokenizer.pad_token_id == tokenizer.backend.eos_token_id
    assert tokenizer.notes == ("The tokenizer has no padding token; '<|endoftext|>' pads and is masked out.",)
    table = FeatureTable.from_arrow(tokenizer.encode_table([("a",), (LONG,)]), tokenizer.pad_token_id)
    batch = table.__getitems__([0, 1])
    assert batch["input_ids"][0, 1:].eq(tokenizer.pad_token_id).all()
    assert batch["attention_mask"].sum(1).tolist() == table.lengths.tolist()
    assert load(backbone("bert")).notes == ()
    # A run keeps the tokenizer as it was used: the same ids, the same hash.
    tokenizer.save(tmp_path)
    assert load(tmp_path).hash() == tokenizer.hash()
    assert load(tmp_path).pad_token_id == tokenizer.pad_token_id


def test_the_hash_is_of_what_makes_the_ids(backbone: Folders, tmp_path: Path) -> None:
    plain = load(backbone("bert"))
    assert plain.hash() == load(backbone("bert"), max_length=8, truncation_side="left").hash()
    before = plain.hash()
    short = load(backbone("bert"), max_length=8)
    short.encode([(LONG,)])
    assert short.backend.backend_tokenizer.truncation is not None
    assert short.hash() == before, "encoding sets truncation in the tokenizer, which is no part of the hash"
    assert before not in (load(backbone("roberta")).hash(), load(backbone("gpt2")).hash())
    folder = shutil.copytree(backbone("bert"), tmp_path / "model")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(content))
    cased = load(folder)
    assert cased.hash() != before
    content["normalizer"]["lowercase"] = True
    vocabulary = content["model"]["vocab"]
    vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
    path.write_text(json.dumps(content))
    assert load(folder).hash() not in (before, cased.hash())


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
@pytest.mark.parametrize("pair", [False, True])
def test_a_data_set_is_tokenized_as_its_rows_are(name: str, pair: bool, backbone: Folders, tmp_path: Path) -> None:
    tokenizer = load(backbone(name), max_length=8)
    columns = {"text": [*tiny.CORPUS, LONG] * 300, "label": [0, 1, 0, 1] * 300}
    if pair:
        columns["text_pair"] = columns["text"][::-1]
    told: list[int] = []
    features, lengths = tokenizer.tokenize(Dataset.from_dict(columns), tmp_path / "rows.arrow", told.append)
    rows = list(zip(*(columns[key] for key in ("text", "text_pair") if key in columns), strict=True))
    expected, expected_lengths = tokenizer.encode(rows)
    for key, column in expected.items():
        assert features[key] == column
    assert features["label"] == columns["label"]
    assert set(features.column_names) == {*expected, "label"}
    assert np.array_equal(lengths, expected_lengths)
    assert (sum(told), len(told) > 1) == (1200, True)
    assert Path(features.cache_files[0]["filename"]) == tmp_path / "rows.arrow"


def test_few_rows_in_memory_are_the_same_as_in_a_data_set(backbone: Folders) -> None:
    tokenizer = load(backbone("bert"), max_length=6)
    rows = [("a film",), (LONG,)]
    table = tokenizer.encode_table(rows)
    assert table.to_pydict() == tokenizer.encode(rows)[0]


def test_threads_get_the_rows_that_one_gets(backbone: Folders) -> None:
    tokenizer = load(backbone("bert"), max_length=6)
    whole, cut = ("a film",), (LONG,)
    expected = [tokenizer.encode([row])[0] for row in (whole, cut)]
    # Threads change places as often as they can.
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda row: tokenizer.encode([row])[0], [whole, cut] * 200))
    finally:
        sys.setswitchinterval(before)
    assert answers == expected * 200


def test_it_can_be_handed_to_another_process(backbone: Folders) -> None:
    tokenizer = load(backbone("bert"))
    assert pickle.loads(pickle.dumps(tokenizer)).encode([("a film",)]) == tokenizer.encode([("a film",)])


def test_characters_outside_the_vocabulary_are_unknown_and_harmless(backbone: Folders) -> None:
    bert = load(backbone("bert"))
    assert words(bert, bert.encode([("film \U0001f3ac 映画",)])[0]["input_ids"][0])[2] == "[UNK]"
    gpt2 = load(backbone("gpt2"))
    ids = gpt2.encode([("映画",)])[0]["input_ids"][0]
    assert gpt2.backend.decode(ids) == "映画"


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_broken_tokenizer_is_refused(name: str, backbone: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(backbone("bert"), tmp_path / "model")
    (folder / name).write_text("{broken")
    with pytest.raises(BackboneError, match="no tokenizer that can be loaded") as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_pretrained(*_: object, **__: object) -> None:
        raise AssertionError("a path is no name on the hub")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    with pytest.raises(BackboneError, match=r"There is no folder mine/tokenizer with the tokenizer; bring it back"):
        load(Path("mine/tokenizer"))


def test_a_folder_without_a_tokenizer_is_refused(backbone: Folders, tmp_path: Path) -> None:
    shutil.copy(backbone("bert") / "config.json", tmp_path)
    with pytest.raises(BackboneError, match="has no tokenizer"):
        load(tmp_path)
