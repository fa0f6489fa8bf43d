"""A tokenizer of whole words for word vectors, cut as torchtext's `basic_english` does, in transformers' form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PADDING, UNKNOWN = "<pad>", "<unk>"
# In this order: a pattern and what stands in its place. Spaces then part the words.
_RULES = (
    ("'", " ' "), ('"', ""), (".", " . "), ("<br />", " "), (",", " , "), ("(", " ( "), (")", " ) "), ("!", " ! "),
    ("?", " ? "), (";", " "), (":", " "),
)  # fmt: skip
# A text of nothing but what the rules take out: it is one unknown word, since a mean needs a token.
_NOTHING = r'\A(?:[\s";:]|<br />)*\z'


def word_tokenizer(words: Sequence[str]) -> Any:
    """A `PreTrainedTokenizerFast` of lower-case words and punctuation, whose ids are the places in `words`.

    Args:
        words: the vocabulary, `<pad>` and `<unk>` among them; a word that is not in it is `<unk>`.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(_NOTHING), UNKNOWN),
            *(normalizers.Replace(pattern, place) for pattern, place in _RULES),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PADDING,
        unk_token=UNKNOWN,
        model_input_names=["input_ids", "attention_mask"],
    )
