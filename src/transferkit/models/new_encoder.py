"""The encoder that pre-training starts from, as a backbone's folder: learnt word vectors and layers drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from transferkit.config import EncoderConfig
from transferkit.environment import user_path
from transferkit.errors import BackboneError, ConfigError
from transferkit.models.hub import BUILTIN, BackboneFiles, locate
from transferkit.models.word_vectors import read_vectors
from transferkit.tokenization.words import word_tokenizer


def make_encoder(config: EncoderConfig, seed: int, folder: Path) -> BackboneFiles:
    """Write the network and its tokenizer to `folder`; `seed` is of the layers.

    Raises:
        BackboneError: there are no such vectors, or their file is broken.
        ConfigError: the width of the vectors cannot be divided among the heads.
    """
    tokenizer, vectors = _built_in(config.vectors) if config.vectors in BUILTIN else _from_file(config.vectors)
    # The caller's random numbers are left as they were.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(config, vectors, tokenizer.pad_token_id)
    with torch.no_grad():
        network.embedding.weight.copy_(vectors)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    drawn = frozenset(name for name, _ in network.named_parameters()) - {"embedding.weight"}
    # Every position of the averaging encoder holds the mean already.
    pooling: Literal["mean", "first"] = "first" if config.architecture == "averaging" else "mean"
    return BackboneFiles(f"{config.architecture} on {config.vectors}", folder, pooling=pooling, drawn=drawn)


def _network(config: EncoderConfig, vectors: Tensor, padding: int) -> Any:
    # What imports transformers is imported where it is needed.
    from transferkit.models.averaging import AveragingConfig, AveragingEncoder
    from transferkit.models.text_encoder import TextEncoder, TextEncoderConfig

    words, width = vectors.shape
    shared: dict[str, Any] = {"vocab_size": words, "pad_token_id": padding, "freeze_vectors": config.freeze_vectors}
    if config.architecture == "averaging":
        return AveragingEncoder(AveragingConfig(vector_size=width, hidden_size=config.hidden, **shared))
    if width % config.heads:
        raise ConfigError(
            f"The vectors of {config.vectors} have {width} numbers, which {config.heads} heads cannot share; "
            "choose another --heads."
        )
    return TextEncoder(
        TextEncoderConfig(
            hidden_size=width, layers=config.layers, heads=config.heads, feed_forward=config.feed_forward,
            dropout=config.dropout, **shared,
        )
    )  # fmt: skip


def _from_file(name: str) -> tuple[Any, Tensor]:
    path = user_path(name)
    if not path.suffix and not path.exists():
        raise BackboneError(
            f"There are no word vectors {name!r}: name a file, or a built-in one ({', '.join(BUILTIN)})."
        )
    vectors = read_vectors(path)
    return word_tokenizer(vectors.words), vectors.table


def _built_in(name: str) -> tuple[Any, Tensor]:
    """The tokenizer of a backbone, and what its first layer knows of each token."""
    from transformers import AutoModel, AutoTokenizer

    folder = locate(name).folder
    network = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    return AutoTokenizer.from_pretrained(folder), network.get_input_embeddings().weight.detach()
