from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from transformers import BertConfig, BertModel

from tests.hub_server import serve
from transferkit.data import hub
from transferkit.errors import DataError

CARD = """---
configs:
- config_name: mrpc
  data_files:
  - {split: train, path: mrpc/train.parquet}
  - {split: validation, path: mrpc/validation.parquet}
  - {split: test, path: mrpc/test.parquet}
- config_name: other
  data_files: [{split: train, path: mrpc/train.parquet}]
---
"""
BOOKS_CARD = """---
configs:
- config_name: en-it
  data_files: [{split: train, path: en-it/train.parquet}]
- config_name: en-fr
  data_files: [{split: train, path: en-it/train.parquet}]
---
"""
PREPARE = """
import json, sys
from transferkit.config import DataConfig
from transferkit.data.preparation import prepare
from transferkit.errors import DataError
for name in sys.argv[1:]:
    try:
        data = prepare(DataConfig(source=name))
        sizes = {split: len(rows) for split, rows in data.splits.items()}
        print(json.dumps([sizes, data.labels, data.notes]))
    except DataError as error:
        print(json.dumps(str(error)))
"""
PREPARE_PARALLEL = """
import json, sys
from transferkit.config import ParallelDataConfig
from transferkit.data.parallel import prepare_parallel
for name in sys.argv[1:]:
    data = prepare_parallel(ParallelDataConfig(source=name))
    sizes = {split: len(rows) for split, rows in data.splits.items()}
    print(json.dumps([sizes, data.languages, data.splits["train"][0]]))
"""
LOAD_MODEL = """
from transformers import AutoModel
print(AutoModel.from_pretrained("someone/tiny").embeddings.word_embeddings.weight.sum().item())
"""


def python(program: str, *arguments: str, home: Path, **environment: str) -> list[Any]:
    """Run a program with a cache of its own, and give the lines that it prints, read as JSON."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**kept, "HF_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr or program is LOAD_MODEL, "data sets of the hub load without a word on the terminal"
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    glue = root / "datasets" / "nyu-mll" / "glue"
    (glue / "mrpc").mkdir(parents=True)
    (glue / "README.md").write_text(CARD)
    names = ["not_equivalent", "equivalent"]
    kinds = {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string")}
    features = datasets.Features({**kinds, "label": datasets.ClassLabel(names=names), "idx": datasets.Value("int32")})
    for split, number in (("train", 40), ("validation", 10), ("test", 10)):
        rows = {
            "sentence1": [f"{split} {i}" for i in range(number)],
            "sentence2": [f"pair {i}" for i in range(number)],
            "label": [-1 if split == "test" else i % 2 for i in range(number)],
            "idx": range(number),
        }
        saved = datasets.Dataset.from_dict(rows, features=features)
        pq.write_table(saved.data.table, glue / "mrpc" / f"{split}.parquet")
    for name in ("reviews", "mixed", "failing"):
        folder = root / "datasets" / "someone" / name
        folder.mkdir(parents=True)
        (folder / "train.csv").write_text("text,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(30)))
    (root / "datasets" / "someone" / "mixed" / "test.jsonl").write_text('{"text": "row", "label": 1}\n')
    books = root / "datasets" / "Helsinki-NLP" / "opus_books"
    (books / "en-it").mkdir(parents=True)
    (books / "README.md").write_text(BOOKS_CARD)
    translations = datasets.Features(
        {"id": datasets.Value("string"), "translation": datasets.Translation(["en", "it"])}
    )
    objects = {"id": map(str, range(40)), "translation": [{"en": f"book {i}", "it": f"libro {i}"} for i in range(40)]}
    saved = datasets.Dataset.from_dict({name: list(column) for name, column in objects.items()}, features=translations)
    saved.to_parquet(books / "en-it" / "train.parquet")
    config = BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(root / "models" / "someone" / "tiny")
    return root


@pytest.fixture(scope="module")
def address(repositories: Path) -> Iterator[str]:
    aliases = {"glue": "nyu-mll/glue", "opus_books": "Helsinki-NLP/opus_books"}
    with serve(repositories, aliases=aliases, failing=["someone/failing"]) as address:
        yield address


def test_data_sets_are_loaded_by_short_and_full_names_and_then_from_the_cache(tmp_path: Path, address: str) -> None:
    names = ("glue/mrpc", "nyu-mll/glue/mrpc", "someone/reviews")
    short, full, single = python(PREPARE, *names, home=tmp_path, HF_ENDPOINT=address)
    assert short[:2] == full[:2] == [{"train": 32, "validation": 10, "test": 8}, ["not_equivalent", "equivalent"]]
    assert "glue/mrpc (test) has no labels and is left aside; another test split is drawn." in short[2]
    assert single[0] == {"train": 21, "validation": 3, "test": 6}

    cached = python(PREPARE, "glue/mrpc", home=tmp_path, HF_HUB_OFFLINE="1")[0]
    assert cached[:2] == short[:2]
    assert "read from the local cache, config mrpc, since offline mode is on" in cached[2][0]


def test_translations_are_loaded_and_then_read_from_the_cache(tmp_path: Path, address: str) -> None:
    expected = [{"train": 36, "validation": 2, "test": 2}, ["en", "it"], {"source": "book 0", "target": "libro 0"}]
    assert python(PREPARE_PARALLEL, "opus_books/en-it", home=tmp_path, HF_ENDPOINT=address) == [expected]
    assert python(PREPARE_PARALLEL, "opus_books/en-it", home=tmp_path, HF_HUB_OFFLINE="1") == [expected]


def test_what_the_hub_does_not_have_is_said(tmp_path: Path, address: str) -> None:
    several, near, nothing = python(PREPARE, "glue", "glue/mrcp", "someone/nothing", home=tmp_path, HF_ENDPOINT=address)
    assert "has several configs; name one as nyu-mll/glue/CONFIG. There is: mrpc, other." in several
    assert "has no config 'mrcp'. Did you mean mrpc?" in near
    assert "no data set 'someone/nothing' on the Hugging Face hub" in nothing


def test_a_name_that_the_hub_gives_to_nothing_is_no_data_set_of_it(tmp_path: Path, address: str) -> None:
    names = ("my--reviews", "reviews.git", "data/my..reviews", "reviews-", "r" * 97, "my--reviews/mrpc")
    said = python(PREPARE, *names, home=tmp_path, HF_ENDPOINT=address)
    assert [f"no data set {name!r} on the Hugging Face hub" in one for name, one in zip(names, said, strict=True)] == (
        [True] * len(names)
    )


def test_files_of_several_formats_are_one_sentence(tmp_path: Path, address: str) -> None:
    for said in python(PREPARE, "someone/mixed", "someone/mixed/mrpc", home=tmp_path, HF_ENDPOINT=address):
        assert "'someone/mixed" in said
        assert "cannot be loaded: Couldn't infer the same data file format for all splits" in said
        assert said.endswith("; give paths of its files.")


def test_a_hub_that_fails_after_the_name_is_known_is_one_sentence(tmp_path: Path, address: str) -> None:
    (said,) = python(PREPARE, "someone/failing", home=tmp_path, HF_ENDPOINT=address)
    assert said == "The hub answered 501 for 'someone/failing'; try again later."


def test_a_full_disk_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        no_room = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset") from no_room

    monkeypatch.setattr(hub, "_find", lambda name: (name, None))
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        hub.read("someone/reviews")


def test_a_failure_without_words_is_told_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(hub, "_find", lambda name: (name, None))
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match="cannot be loaded: TimeoutError"):
        hub.read("someone/reviews")


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "offline mode is on"),
        ({"HF_DATASETS_OFFLINE": "1"}, "offline mode is on"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub cannot be reached"),
    ],
)
def test_without_a_network_one_sentence_comes_at_once(tmp_path: Path, environment: dict[str, str], reason: str) -> None:
    begin = time.perf_counter()
    (message,) = python(PREPARE, "glue/mrpc", home=tmp_path, **environment)
    assert message.startswith("There is no file glue/mrpc; as a data set of the Hugging Face hub it cannot be had")
    assert reason in message
    assert time.perf_counter() - begin < 20


def test_models_are_loaded_from_the_same_server(tmp_path: Path, address: str, repositories: Path) -> None:
    (loaded,) = python(LOAD_MODEL, home=tmp_path, HF_ENDPOINT=address)
    saved = BertModel.from_pretrained(repositories / "models" / "someone" / "tiny")
    assert loaded == pytest.approx(saved.embeddings.word_embeddings.weight.sum().item())
    assert torch.isfinite(torch.tensor(loaded))
