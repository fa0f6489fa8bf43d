"""The backbone's own tokenizer, over whole data sets and over single texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from transferkit.config import TokenizationConfig
from transferkit.environment import uncollected
from transferkit.errors import BackboneError, ConfigError

if TYPE_CHECKING:
    from datasets import Dataset

DEFAULT_MAX_LENGTH = 256
# A call switches truncation on or off in the tokenizer itself, so threads take turns.
_TURN = Lock()


@dataclass(frozen=True)
class TextTokenizer:
    """A pretrained tokenizer with the length and the side of truncation that a run uses."""

    backend: Any
    max_length: int
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: Path, config: TokenizationConfig, allowed_length: int | None) -> TextTokenizer:
        """Load from `folder`; `allowed_length` is the longest input the backbone takes, None if unbounded.

        Raises:
            BackboneError: there is no folder, or no tokenizer in it that can be read without running code.
            ConfigError: max_length is more than the backbone allows.
        """
        from transformers import AutoTokenizer

        if not folder.is_dir():
            # The library would take its path for the name of a stranger's tokenizer on the hub.
            raise BackboneError(
                f"There is no folder {folder} with the tokenizer; bring it back, or save one there with "
                "save_pretrained."
            )
        try:
            backend = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # the library raises many kinds for a missing or broken file
            reason = " ".join(str(error).split())[:200]
            raise BackboneError(
                f"{folder} has no tokenizer that can be loaded; save one there with save_pretrained ({reason})."
            ) from None
        if set(backend.get_vocab()) <= set(backend.all_special_tokens):
            # What the library makes of a folder with a model and no tokenizer: every word is unknown to it.
            raise BackboneError(f"{folder} has no tokenizer; save one there with save_pretrained.")
        notes = []
        if backend.pad_token_id is None:
            stand_in = backend.eos_token or backend.unk_token
            if stand_in is None:
                raise BackboneError(f"The tokenizer in {folder} has no token that could pad: give it a pad token.")
            backend.pad_token = stand_in
            notes.append(f"The tokenizer has no padding token; {stand_in!r} pads and is masked out.")
        backend.truncation_side = config.truncation_side
        max_length = _max_length(config.max_length, _smaller(backend.model_max_length, allowed_length))
        return cls(backend, max_length, tuple(notes))

    @property
    def pad_token_id(self) -> int:
        """The id that fills the end of shorter rows."""
        return int(self.backend.pad_token_id)

    def uses_token_types(self, texts: int) -> bool:
        """Whether rows of so many texts need `token_type_ids`, which tell the backbone where which text is.

        Zeros alone say nothing: a backbone takes them where it is given none.
        """
        return self._tells_apart[texts]

    @cached_property
    def _tells_apart(self) -> dict[int, bool]:
        """By number of texts, one or two."""
        if "token_type_ids" not in self.backend.model_input_names:
            return {1: False, 2: False}
        return {
            len(texts): any(self._call(*texts, return_token_type_ids=True)["token_type_ids"])
            for texts in (["a"], ["a", "a"])
        }

    def joins_pairs(self) -> bool:
        """Whether nothing tells the backbone where the second text of a pair begins."""
        once = self._call("a", add_special_tokens=False)["input_ids"]
        pair, length = self._call("a", "a")["input_ids"], 2 * len(once)
        has_nothing_between = any(pair[start : start + length] == 2 * once for start in range(len(pair)))
        return has_nothing_between and not self.uses_token_types(2)

    def hash(self) -> str:
        """SHA-256 of all that decides how text becomes ids: equal hashes give equal ids."""
        if getattr(self.backend, "backend_tokenizer", None) is not None:
            state = json.loads(self.backend.backend_tokenizer.to_str())
            # Truncation and padding are settings of a call, not of the vocabulary.
            state.pop("truncation", None)
            state.pop("padding", None)
        else:
            state = {"vocabulary": self.backend.get_vocab(), "class": type(self.backend).__name__}
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def encode(self, texts: Sequence[Sequence[str]]) -> tuple[dict[str, list[list[int]]], np.ndarray]:
        """Tokenize rows of one text or two, cut to `max_length` ids each.

        Returns:
            the columns `input_ids` and, where they are needed, `token_type_ids`; and the uncut lengths, int [rows].
        """
        rows = [tuple(row) for row in texts]
        encoded = self._encode(rows, truncation=False)
        lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
        long = np.flatnonzero(lengths > self.max_length)
        if len(long):
            cut = self._encode([rows[i] for i in long], truncation=True)
            for name, column in encoded.items():
                for position, row in enumerate(long):
                    column[row] = cut[name][position]
        return encoded, lengths

    def _encode(self, rows: list[tuple[str, ...]], truncation: bool) -> dict[str, list[list[int]]]:
        columns = [list(column) for column in zip(*rows, strict=True)]
        encoded = self._call(
            *columns,
            truncation="longest_first" if truncation else False,
            max_length=self.max_length if truncation else None,
            return_attention_mask=False,
            return_token_type_ids=self.uses_token_types(len(columns)),
            verbose=False,
        )
        return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}

    def _call(self, *texts: Any, **settings: Any) -> Any:
        with _TURN:
            return self.backend(*texts, **settings)

    @uncollected()
    def tokenize(
        self, rows: Dataset, path: Path, progress: Callable[[int], None] = lambda _: None
    ) -> tuple[Dataset, np.ndarray]:
        """Tokenize the columns text and, for pairs, text_pair of a data set into the Arrow file `path`.

        Returns:
            the memory-mapped data set of features, and the uncut lengths, int [rows].
        """
        from datasets import Features, List, Value, disable_progress_bars

        disable_progress_bars()
        texts = [name for name in ("text", "text_pair") if name in rows.column_names]
        uncut: list[np.ndarray] = []

        def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            encoded, lengths = self.encode(list(zip(*(batch[name] for name in texts), strict=True)))
            uncut.append(lengths)
            progress(len(lengths))
            return encoded

        features = {"input_ids": List(Value("int32"))}
        if self.uses_token_types(len(texts)):
            features["token_type_ids"] = List(Value("int32"))
        if "label" in rows.column_names:
            features["label"] = Value("int64")
        tokenized = rows.map(
            encode,
            batched=True,
            remove_columns=texts,
            features=Features(features),
            cache_file_name=str(path),
            load_from_cache_file=False,
            new_fingerprint=path.stem,
        )
        return tokenized, np.concatenate(uncut)

    def encode_table(self, texts: Sequence[Sequence[str]]) -> pa.Table:
        """The features of a few rows, in memory."""
        encoded, _ = self.encode(texts)
        return pa.table({name: pa.array(column, pa.list_(pa.int32())) for name, column in encoded.items()})

    def save(self, folder: Path) -> None:
        """Write the tokenizer's own files."""
        self.backend.save_pretrained(folder)


def _smaller(model_max_length: int, allowed_length: int | None) -> int | None:
    # transformers stands a huge number for "unbounded".
    known = [length for length in (model_max_length, allowed_length) if length is not None and length < 10**9]
    return min(known, default=None)


def _max_length(asked: int | None, allowed: int | None) -> int:
    if asked is None:
        return min(DEFAULT_MAX_LENGTH, allowed or DEFAULT_MAX_LENGTH)
    if allowed is not None and asked > allowed:
        raise ConfigError(f"--max-length {asked} is more than the {allowed} tokens that the backbone allows.")
    return asked
