"""A pretrained backbone with a classification head: built, described, fingerprinted."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from transferkit.config import BackboneConfig
from transferkit.errors import BackboneError
from transferkit.models.hub import BackboneFiles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Pooling = Literal["mean", "first", "model"]
# From the files; drawn, in place of weights of another shape in the files; drawn, since the files have none.
Origin = Literal["loaded", "replaced", "new"]
HEAD_FILE = "head.safetensors"


def pool_mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean over real tokens: hidden [rows, length, width], mask [rows, length] -> [rows, width].

    Reimers and Gurevych 2019, Sentence-BERT, section 3.
    """
    assert attention_mask.shape == hidden.shape[:2], "the mask has one entry per position"
    # In fp32: a mean of many wants more digits than bf16 has.
    weights = attention_mask.unsqueeze(-1).float()
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
        fixed_parameters: names of those that never train: word vectors that are to stay as they are.
        origins: where the values of each parameter come from.
        left_out: names of weights in the files that the network has no use for.
    """

    def __init__(self, network: PreTrainedModel, pooling: Pooling, head: nn.Module | None, new: set[str]) -> None:
        super().__init__()
        self.network = network
        network.register_forward_pre_hook(_with_whole_mask, with_kwargs=True)
        self.head = head
        self.pooling: Pooling = pooling
        self.head_parameters = frozenset(name for name, _ in self.named_parameters() if _is_new(name, new))
        freezes = getattr(network.config, "freeze_vectors", False)
        self.fixed_parameters = frozenset({"network.embedding.weight"} if freezes else ())
        self.origins: dict[nn.Parameter, Origin] = dict.fromkeys(self.parameters(), "loaded")
        self.left_out: tuple[str, ...] = ()

    def forward(self, **features: Tensor) -> Tensor:
        """Logits [rows, classes] of a batch as `data.batching` collates it, without labels."""
        outputs = self.network(**features)
        if self.head is None:
            own: Tensor = outputs.logits
            return own
        pooled = POOLINGS[self.pooling](outputs.last_hidden_state, features["attention_mask"])
        logits: Tensor = self.head(pooled)
        return logits

    def fingerprint(self) -> str:
        """SHA-256 of the names, shapes and bytes of the pretrained weights, without the head."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            if name not in self.head_parameters:
                digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _with_whole_mask(_: nn.Module, args: Any, features: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Called before a network: the mask as int64, as tokenizers of transformers have it; XLNet subtracts it from 1."""
    mask = features.get("attention_mask")
    return args, features if mask is None else features | {"attention_mask": mask.long()}


def _is_new(name: str, new: set[str]) -> bool:
    return name.startswith("head.") or name in new


def choose_pooling(files: BackboneFiles, config: BackboneConfig) -> Pooling:
    """What `auto` stands for: the pooling a sentence-embedding model declares, else the family's own head."""
    if config.head_pooling != "auto":
        return config.head_pooling
    return files.own_pooling() or "model"


def load_classifier(
    files: BackboneFiles, config: BackboneConfig, labels: tuple[str, ...], pad_token_id: int
) -> TextClassifier:
    """Load the pretrained weights and put a new head on them, drawn from torch's global generator.

    Raises:
        BackboneError: the folder's architecture is unknown, needs its own code, lacks weights, does not take
            text alone, or has no classification head of its own that reads texts with padding where one was asked for.
    """
    from safetensors import SafetensorError

    pooling = choose_pooling(files, config)
    architecture = read_architecture(files)
    kind = _network_class(architecture, pooling, files.name)
    # Weights of other shapes are the old head's, which goes, or are refused below.
    settings: dict[str, Any] = {
        "dtype": torch.float32, "use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True,
    }  # fmt: skip
    if pooling == "model":
        settings |= _class_names(labels) | {"pad_token_id": pad_token_id}
    try:
        network, info = kind.from_pretrained(files.folder, trust_remote_code=False, **settings)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BackboneError(f"The model in {files.folder} cannot be loaded: {_brief(error)}") from None
    new = _new_parameters(network, info, files.name)
    if pooling == "model":
        _check_last_position(network, files.name)
        model = TextClassifier(network, pooling, None, new)
    else:
        if getattr(network, "pooler", None) is not None:
            # The family's pooler is not on the path to a pooled head: kept, its weights would train on nothing.
            network.pooler = None
        head = nn.Sequential(nn.Dropout(config.head_dropout), nn.Linear(network.config.hidden_size, len(labels)))
        model = TextClassifier(network, pooling, head, set())
        _load_head(model, files)
    _note_origins(model, files, info)
    return model


def _load_head(model: TextClassifier, files: BackboneFiles) -> None:
    """The pooled head beside the network, if there is one: of as many classes it is taken, of others it is replaced."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    assert model.head is not None, "a pooled head is there"
    file = files.folder / HEAD_FILE
    try:
        tensors = load_file(file) if file.is_file() else {}
    except (OSError, SafetensorError) as error:
        raise BackboneError(f"The head in {file} cannot be loaded: {_brief(error)}") from None
    own = model.head.state_dict()
    fits = {name: tensor.shape for name, tensor in tensors.items()} == {n: t.shape for n, t in own.items()}
    if fits:
        model.head.load_state_dict(tensors)
    model.origins |= dict.fromkeys(model.head.parameters(), "loaded" if fits else "replaced" if tensors else "new")


def _note_origins(model: TextClassifier, files: BackboneFiles, info: dict[str, Any]) -> None:
    replaced = {entry[0] for entry in info["mismatched_keys"]}
    for name, parameter in model.network.named_parameters():
        if name in replaced:
            model.origins[parameter] = "replaced"
        elif name in info["missing_keys"] or name in files.drawn:
            model.origins[parameter] = "new"
    model.left_out = tuple(sorted(info["unexpected_keys"]))


def _register_own() -> None:
    """Tell transformers of the architectures that are built here, so that they load as all others do."""
    from transformers import AutoConfig, AutoModel

    from transferkit.models.averaging import AveragingConfig, AveragingEncoder
    from transferkit.models.text_encoder import TextEncoder, TextEncoderConfig

    for config, network in ((TextEncoderConfig, TextEncoder), (AveragingConfig, AveragingEncoder)):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, network, exist_ok=True)


def read_architecture(files: BackboneFiles) -> Any:
    """The transformers configuration in the folder.

    Raises:
        BackboneError: config.json is broken, or describes a model whose code is not in transformers.
    """
    from transformers import AutoConfig

    settings = files.json("config.json")
    _register_own()
    try:
        return AutoConfig.from_pretrained(files.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if "auto_map" in settings:
            raise BackboneError(
                f"{files.name} needs code from its own repository, and such code is never run here; "
                "name a model of a family that transformers has."
            ) from None
        raise BackboneError(
            f"{files.folder}/config.json describes no model that transformers knows: {_brief(error)}"
        ) from None


def has_own_classifier(architecture: Any) -> bool:
    """Whether transformers has a classifier for the family of this configuration."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification._model_mapping.get(type(architecture), None) is not None


def longest_input(files: BackboneFiles) -> int | None:
    """The most tokens a row may have: the positions that the backbone has weights for; None if unbounded."""
    return position_limit(read_architecture(files))


def position_limit(architecture: Any) -> int | None:
    """The number of positions that a model of this transformers configuration can use; None if unbounded."""
    positions = getattr(architecture, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    if architecture.model_type in POSITIONS_AFTER_PADDING:
        return positions - (int(architecture.pad_token_id) + 1)
    return positions


# These families number positions from padding_idx + 1 on, so that many are never used.
POSITIONS_AFTER_PADDING = {
    "roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "mpnet", "longformer", "esm",
    "xmod", "data2vec-text",
}  # fmt: skip


def _network_class(architecture: Any, pooling: Pooling, name: str) -> Any:
    """The class to load, after what its signature tells of the inputs it needs."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    kinds = AutoModelForSequenceClassification if pooling == "model" else AutoModel
    kind = kinds._model_mapping.get(type(architecture), None)
    if kind is None:
        raise BackboneError(
            f"The family {architecture.model_type} of {name} has no classification head of its own; "
            "use --head-pooling mean or first."
        )
    # A few families have two classes for one configuration.
    forward = (kind[0] if isinstance(kind, tuple) else kind).forward
    if "input_ids" not in inspect.signature(forward).parameters:
        raise BackboneError(f"{name} is of the family {architecture.model_type}, which does not take text.")
    if pooling != "model" and architecture.is_encoder_decoder:
        raise BackboneError(
            f"The family {architecture.model_type} of {name} has an encoder and a decoder; name an encoder, "
            "or use --head-pooling model."
        )
    return kinds


def _class_names(labels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def _new_parameters(network: Any, info: dict[str, Any], name: str) -> set[str]:
    """The parameters that the files did not fill: the head and, where the files lack it, the pooler.

    Raises:
        BackboneError: weights of the body are missing, or have other shapes than config.json says.
    """
    missing = set(info["missing_keys"]) | {entry[0] for entry in info["mismatched_keys"]}
    is_bare = network is network.base_model
    outside = {
        key
        for key, _ in network.named_parameters()
        if not is_bare and not key.startswith(f"{network.base_model_prefix}.")
    }
    lost = sorted(key for key in missing - outside if "pooler" not in key)
    if lost:
        raise BackboneError(
            f"{name} is not whole: of its weights {len(lost)} are missing or have other shapes than config.json "
            f"says, such as {lost[0]}."
        )
    return {f"network.{key}" for key in missing | outside}


def _check_last_position(network: Any, name: str) -> None:
    """Refuse a head that takes for the end of a text what is padding here; XLNet's own tokenizer pads on the left."""
    if getattr(getattr(network, "sequence_summary", None), "summary_type", None) == "last":
        raise BackboneError(
            f"The own head of {network.config.model_type}, the family of {name}, reads the last position of a batch, "
            "which is padding after a shorter text; use --head-pooling mean or first."
        )


def _brief(error: Exception) -> str:
    """The first sentence of an error of the library's, which may go on with advice that does not apply here."""
    return re.split(r"(?<=[a-z)'\"`])\. ", " ".join(str(error).split()))[0].rstrip(".")[:240] + "."
