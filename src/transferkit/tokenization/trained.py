"""Tokenizers that are trained on the user's own text: whole words, BPE or WordPiece, by the tokenizers library."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from transferkit.config import MIN_FREQUENCY, VOCABULARY
from transferkit.environment import write_file
from transferkit.errors import DataError

Kind = Literal["word", "bpe", "wordpiece"]
UNKNOWN, PADDING, START, END = SPECIAL = ("[UNK]", "[PAD]", "[SOS]", "[EOS]")


@dataclass(frozen=True)
class TrainedTokenizer:
    """Text to ids and back; unknown, padding, start and end are the ids 0 to 3."""

    backend: Tokenizer
    unknown_id = 0
    padding_id = 1
    start_id = 2
    end_id = 3

    def __post_init__(self) -> None:
        # Who writes [EOS] in a text writes five characters; the file of a tokenizer does not keep this.
        self.backend.encode_special_tokens = True

    @classmethod
    def train(
        cls, texts: Iterable[str], kind: Kind, vocabulary: int = VOCABULARY, min_frequency: int = MIN_FREQUENCY
    ) -> TrainedTokenizer:
        """Learn a vocabulary.

        Args:
            texts: read once.
            kind: `word` cuts at spaces and punctuation and knows whole words only; `bpe` joins frequent pairs of
                characters (Sennrich et al. 2016, section 3.2) and keeps spaces, so that decoding gives the text back;
                `wordpiece` joins frequent pairs as well, since the library learns it as it learns `bpe`, but cuts a
                word into the longest parts from its left (Song et al. 2021), of which those within it begin with ##;
                it settles ties by chance, so that two trainings may differ.
            vocabulary: the most entries it may have, the four special ones among them. Where there is no room for all
                characters, those are unknown that occur least.
            min_frequency: how often a word, or a pair of parts, has to occur to be in it.

        Raises:
            DataError: the texts hold nothing to learn from.
        """
        backend, trainer = _KINDS[kind](vocabulary - len(SPECIAL))
        backend.normalizer = normalizers.NFC()
        backend.train_from_iterator(
            texts,
            trainer(
                vocab_size=vocabulary, min_frequency=min_frequency, special_tokens=list(SPECIAL), show_progress=False
            ),
        )
        if backend.get_vocab_size() == len(SPECIAL):
            raise DataError(
                f"The texts hold no word that occurs {min_frequency} times, so there is no vocabulary to learn; "
                f"give more text, or lower the frequency."
            )
        return cls(backend)

    @classmethod
    def load(cls, path: Path) -> TrainedTokenizer:
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing or holds no such tokenizer.
        """
        try:
            backend = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises plain exceptions of its own
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path} holds no tokenizer: {reason}") from None
        if [backend.id_to_token(number) for number in range(len(SPECIAL))] != list(SPECIAL):
            raise DataError(f"{path} is a tokenizer without {', '.join(SPECIAL)} as its first entries; train it anew.")
        return cls(backend)

    def save(self, path: Path) -> None:
        """Write it to one JSON file, whole or not at all."""
        write_file(path, self.backend.to_str(pretty=True))

    def __len__(self) -> int:
        return self.backend.get_vocab_size()

    def hash(self) -> str:
        """SHA-256 of all that decides how text becomes ids."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()

    def vocabulary(self) -> list[str]:
        """All tokens in the order of their ids."""
        return list(self.names(range(len(self))))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without start and end."""
        return [encoding.ids for encoding in self.backend.encode_batch(list(texts))]

    def tokens(self, text: str) -> list[str]:
        """The parts of a text as they stand in the vocabulary."""
        return list(self.backend.encode(text).tokens)

    def names(self, ids: Sequence[int]) -> tuple[str, ...]:
        """How ids stand in the vocabulary."""
        return tuple(str(self.backend.id_to_token(number)) for number in ids)

    def ids(self, names: Sequence[str]) -> list[int]:
        """The ids of such names."""
        return [number for name in names if (number := self.backend.token_to_id(name)) is not None]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of ids; special ones are left out, but for unknown words."""
        special = (self.padding_id, self.start_id, self.end_id)
        kept = [[token for token in row if token not in special] for row in rows]
        return self.backend.decode_batch(kept, skip_special_tokens=False)


_Parts = tuple[Tokenizer, Callable[..., trainers.Trainer]]


def _word(_: int) -> _Parts:
    backend = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend, trainers.WordLevelTrainer


def _bpe(room: int) -> _Parts:
    backend = Tokenizer(models.BPE(unk_token=UNKNOWN))
    # Punctuation apart from the word before it, or every word would be learnt with and without a full stop.
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    backend.decoder = decoders.Metaspace()
    return backend, partial(trainers.BpeTrainer, limit_alphabet=room)


def _wordpiece(room: int) -> _Parts:
    backend = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    # A character is an entry at the beginning of a word and another one within.
    return backend, partial(trainers.WordPieceTrainer, limit_alphabet=room // 2)


# Each is given how many entries there is room for.
_KINDS: dict[Kind, Callable[[int], _Parts]] = {"word": _word, "bpe": _bpe, "wordpiece": _wordpiece}
