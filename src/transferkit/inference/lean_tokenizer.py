"""A run's tokenizer without transformers, whose import takes longer than tokenizing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transferkit import run_folder
from transferkit.data.batching import FeatureTable, ListColumn
from transferkit.models.lean_encoder import NotLeanError
from transferkit.run_record import TokenizerRecord


class LeanTokenizer:
    """Rows of text to features, with the ids that transformers gives."""

    def __init__(self, run: Path, record: TokenizerRecord) -> None:
        """Load the tokenizer of the run in the folder `run`.

        Raises:
            NotLeanError: it is of a kind that transformers alone can load.
        """
        from tokenizers import Tokenizer

        if record.pad_token_id is None:
            raise NotLeanError("a run of an earlier version")
        file = run / run_folder.TOKENIZER_FILE
        if not file.is_file():
            raise NotLeanError("a tokenizer that is not in one file")
        self._backend: Any = Tokenizer.from_file(str(file))
        self._backend.no_padding()
        self._backend.enable_truncation(record.max_length, strategy="longest_first", direction=record.truncation_side)
        self._pad_token_id = record.pad_token_id
        self._uses_types = record.uses_token_types

    def encode(self, rows: Sequence[Sequence[str]]) -> FeatureTable:
        """The features of rows of one text or two."""
        encoded = self._backend.encode_batch_fast([row[0] if len(row) == 1 else tuple(row) for row in rows])
        return FeatureTable(
            input_ids=ListColumn.from_lists([one.ids for one in encoded]),
            token_type_ids=ListColumn.from_lists([one.type_ids for one in encoded]) if self._uses_types else None,
            labels=None,
            pad_token_id=self._pad_token_id,
        )
