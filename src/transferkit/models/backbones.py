"""A pretrained backbone with a classification head: built, described, fingerprinted."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from transferkit.config import BackboneConfig
from transferkit.errors import BackboneError
from transferkit.models.hub import BackboneFiles

Pooling = Literal["mean", "first", "model"]


def pool_mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean over real tokens: hidden [rows, length, width], mask bool [rows, length] -> [rows, width].

    Reimers and Gurevych 2019, Sentence-BERT, section 3.
    """
    assert attention_mask.shape == hidden.shape[:2], "the mask has one entry per position"
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def pool_first(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The first position, BERT's [CLS]: hidden [rows, length, width] -> [rows, width]."""
    assert attention_mask.shape == hidden.shape[:2], "the mask has one entry per position"
    return hidden[:, 0]


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": pool_mean, "first": pool_first}


class TextClassifier(nn.Module):
    """A transformers network that answers with logits [rows, classes].

    With pooling `model` the network is the family's own classifier. Otherwise it is the bare encoder, and
    `head` is dropout and one linear layer on the pooled hidden states.

    Attributes:
        head_parameters: names of the parameters that are new to the task and so always train.
    """

    def __init__(self, network: nn.Module, pooling: Pooling, head: nn.Module | None, new: set[str]) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.pooling: Pooling = pooling
        self.head_parameters = frozenset(name for name, _ in self.named_parameters() if _is_new(name, new))

    def forward(self, **features: Tensor) -> Tensor:
        """Logits [rows, classes] of a batch as `data.batching` collates it, without labels."""
        outputs = self.network(**features)
        if self.head is None:
            logits: Tensor = outputs.logits
            return logits
        mask = features["attention_mask"]
        # Prompt methods put virtual tokens in front; only the text's own positions are pooled.
        hidden = outputs.last_hidden_state[:, -mask.shape[1] :]
        pooled: Tensor = self.head(POOLINGS[self.pooling](hidden, mask))
        return pooled

    def fingerprint(self) -> str:
        """SHA-256 of the names, shapes and bytes of the pretrained weights, without the head."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            if name not in self.head_parameters:
                digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _is_new(name: str, new: set[str]) -> bool:
    return name.startswith("head.") or name in new


def choose_pooling(files: BackboneFiles, config: BackboneConfig) -> Pooling:
    """What `auto` stands for: the pooling that a sentence-embedding model declares, else the family's own head."""
    if config.head_pooling != "auto":
        return config.head_pooling
    own = files.own_pooling()
    return own if own in ("mean", "first") else "model"  # type: ignore[return-value]


def load_classifier(
    files: BackboneFiles, config: BackboneConfig, labels: tuple[str, ...], pad_token_id: int
) -> TextClassifier:
    """Load the pretrained weights and put a new head on them, drawn from torch's global generator.

    Raises:
        BackboneError: the folder's architecture is unknown, needs its own code, lacks weights, or has no
            classification head of its own where one was asked for.
    """
    pooling = choose_pooling(files, config)
    architecture = read_architecture(files)
    kind = _network_class(architecture, pooling, files.name)
    settings: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    if pooling == "model":
        settings |= _class_names(labels) | {"pad_token_id": pad_token_id, "ignore_mismatched_sizes": True}
    try:
        network, info = kind.from_pretrained(files.folder, trust_remote_code=False, **settings)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BackboneError(f"The model in {files.folder} cannot be loaded: {_first_sentence(error)}") from None
    return _assemble(network, pooling, len(labels), config.head_dropout, _new_parameters(network, info, files.name))


def read_architecture(files: BackboneFiles) -> Any:
    """The transformers configuration in the folder."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(files.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(
            f"{files.folder}/config.json does not describe a model that transformers knows: {_first_sentence(error)}"
        ) from None


def longest_input(files: BackboneFiles) -> int | None:
    """The most tokens a row may have, as the backbone's own files say; None where nothing bounds it."""
    architecture = read_architecture(files)
    positions = getattr(architecture, "max_position_embeddings", None)
    bounds = [files.json("sentence_bert_config.json").get("max_seq_length"), positions]
    if positions and architecture.model_type in _POSITIONS_AFTER_PADDING:
        # These families number positions from padding_idx + 1 on, so that many are never used.
        bounds[1] = positions - (architecture.pad_token_id + 1)
    return min((int(bound) for bound in bounds if isinstance(bound, int) and bound > 0), default=None)


_POSITIONS_AFTER_PADDING = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "esm", "xmod", "data2vec-text"}


def _network_class(architecture: Any, pooling: Pooling, name: str) -> Any:
    from transformers import AutoModel, AutoModelForSequenceClassification

    if pooling != "model":
        return AutoModel
    if type(architecture) not in AutoModelForSequenceClassification._model_mapping:
        raise BackboneError(
            f"The family {architecture.model_type} of {name} has no classification head of its own; "
            "use --head-pooling mean or first."
        )
    return AutoModelForSequenceClassification


def _class_names(labels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def _assemble(network: Any, pooling: Pooling, classes: int, dropout: float, new: set[str]) -> TextClassifier:
    if "input_ids" not in inspect.signature(network.forward).parameters:
        raise BackboneError(f"{type(network).__name__} does not take text; name an encoder of text.")
    if pooling == "model":
        return TextClassifier(network, pooling, None, new)
    if getattr(network, "pooler", None) is not None:
        # The family's pooler is not on the path to a pooled head: kept, its weights would train on nothing.
        network.pooler = None
    head = nn.Sequential(nn.Dropout(dropout), nn.Linear(network.config.hidden_size, classes))
    return TextClassifier(network, pooling, head, set())


def _new_parameters(network: Any, info: dict[str, Any], name: str) -> set[str]:
    """The parameters that the files did not fill: the head and, where the files lack it, the pooler."""
    missing = set(info["missing_keys"]) | {entry[0] for entry in info["mismatched_keys"]}
    base = f"{network.base_model_prefix}."
    outside = {key for key, _ in network.named_parameters() if not key.startswith(base)}
    lost = sorted(key for key in missing - outside if "pooler" not in key)
    if network is not network.base_model and lost:
        raise BackboneError(f"{name}: the weights {lost[0]} and {len(lost) - 1} more are missing from its files.")
    return {f"network.{key}" for key in missing | outside}


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:240]
