"""Tiny random backbones of many families, each saved to a folder with a small tokenizer of its own kind."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from transferkit.config import BackboneConfig, TokenizationConfig
from transferkit.models.backbones import TextClassifier, load_classifier
from transferkit.models.hub import BackboneFiles
from transferkit.tokenization.pretrained import TextTokenizer

WORDS = (
    "a", "and", "bad", "boring", "but", "dull", "film", "fine", "funny", "good", "great", "is", "it", "long",
    "movie", "not", "of", "plot", "scene", "slow", "story", "terrible", "the", "this", "very", "was", "wonderful",
)  # fmt: skip
CORPUS = ["the film was a very good story", "this movie is not funny and the plot was terrible", "slow but fine"]
LABELS = ("bad", "good", "neither")
WIDTH, LAYERS, HEADS = 32, 2, 4

# Weights larger than the families draw them, so that a token or a position more or less shows in the logits.
SPREAD = {"initializer_range": 0.15}
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 64}
POSITIONS = {"max_position_embeddings": 64}


@dataclass(frozen=True)
class Family:
    """How to build one: transformers' model type, the settings of a tiny one, its kind of tokenizer."""

    model_type: str
    settings: Mapping[str, Any]
    tokenizer: Literal["wordpiece", "roberta", "gpt2", "t5"] = "wordpiece"
    token_types: bool = False
    # Parameters of the family's own classifier that no pretrained encoder has, by the start of their names.
    head: tuple[str, ...] = ("network.classifier.",)
    # Names of the linear layers inside one transformer layer: attention, then the feed-forward pair.
    attention: tuple[str, ...] = ("query", "key", "value", "attention.output.dense")
    feed_forward: tuple[str, ...] = ("intermediate.dense", "output.dense")
    layers: str = "encoder.layer"

    @property
    def has_linears(self) -> bool:
        """GPT-2 writes its layers with a class of its own, Conv1D."""
        return self.tokenizer != "gpt2"


FAMILIES: dict[str, Family] = {
    "bert": Family("bert", SIZES | POSITIONS | SPREAD, token_types=True),
    "roberta": Family(
        "roberta", SIZES | {"max_position_embeddings": 66, "type_vocab_size": 1} | SPREAD, "roberta"
    ),
    "distilbert": Family(
        "distilbert",
        {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 64} | POSITIONS | SPREAD,
        head=("network.classifier.", "network.pre_classifier."),
        attention=("q_lin", "k_lin", "v_lin", "out_lin"),
        feed_forward=("ffn.lin1", "ffn.lin2"),
        layers="transformer.layer",
    ),
    "electra": Family("electra", SIZES | POSITIONS | {"embedding_size": 16} | SPREAD, token_types=True),
    "albert": Family(
        "albert",
        SIZES | POSITIONS | {"embedding_size": 16} | SPREAD,
        token_types=True,
        attention=("query", "key", "value", "attention.dense"),
        feed_forward=("ffn", "ffn_output"),
        layers="encoder.albert_layer_groups",
    ),
    "deberta": Family(
        "deberta-v2",
        SIZES
        | POSITIONS
        | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "type_vocab_size": 0}
        | SPREAD,
        token_types=True,
        head=("network.classifier.", "network.pooler."),
        attention=("query_proj", "key_proj", "value_proj", "attention.output.dense"),
    ),
    "modernbert": Family(
        "modernbert",
        SIZES | POSITIONS | {"local_attention": 4, "initializer_cutoff_factor": 3.0} | SPREAD,
        head=("network.classifier.", "network.head."),
        attention=("attn.Wqkv", "attn.Wo"),
        feed_forward=("mlp.Wi", "mlp.Wo"),
        layers="layers",
    ),
    "gpt2": Family(
        "gpt2",
        {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64} | SPREAD,
        "gpt2",
        head=("network.score.",),
        layers="h",
    ),
}  # fmt: skip
# Families that answer in other ways than from one row of layers: from a decoder behind the encoder, at the <eos> of the
# text, or from layers that hold fewer positions than the text.
OTHERS: dict[str, Family] = {
    "bart": Family(
        "bart",
        {
            "d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": LAYERS, "encoder_attention_heads": HEADS,
            "decoder_attention_heads": HEADS, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "init_std": 0.15,
        }
        | POSITIONS,
        "roberta",
        feed_forward=("fc1", "fc2"),
    ),
    "t5": Family(
        "t5",
        {
            "d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": LAYERS, "num_heads": HEADS,
            "decoder_start_token_id": 0,
        },
        "t5",
        feed_forward=("wi", "wo"),
    ),
    "canine": Family("canine", SIZES | POSITIONS | {"num_hash_buckets": 50} | SPREAD, token_types=True),
    "funnel": Family(
        "funnel",
        {
            "d_model": WIDTH, "n_head": HEADS, "d_head": 8, "d_inner": 64, "block_sizes": [1, 1],
            "num_decoder_layers": 1, "architectures": ["FunnelModel"],
        },
        token_types=True,
        feed_forward=("linear_1", "linear_2"),
    ),
}  # fmt: skip
# It takes no mask of bools, and its own head reads the padding of a batch.
XLNET = Family(
    "xlnet",
    {"d_model": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "d_inner": 64} | SPREAD,
    feed_forward=("layer_1", "layer_2"),
)
WITH_LINEARS = tuple(name for name, family in FAMILIES.items() if family.has_linears)


def save_backbone(name: str, folder: Path, **settings: Any) -> Path:
    """Write a tiny pretrained encoder of the family `name` and its tokenizer; `settings` go over the config's."""
    from transformers import AutoConfig, AutoModel

    family = (FAMILIES | OTHERS | {"xlnet": XLNET})[name]
    tokenizer = make_tokenizer(family)
    ids = {
        f"{role}_token_id": getattr(tokenizer, f"{role}_token_id")
        for role in ("pad", "bos", "eos", "cls", "sep")
        if getattr(tokenizer, f"{role}_token") is not None
    }
    config = AutoConfig.for_model(
        family.model_type, **{"vocab_size": len(tokenizer)} | family.settings | ids | settings
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(17)
        model = AutoModel.from_config(config)
        for parameter in model.parameters():
            # Pretrained biases and norms are not the zeros and ones they start from.
            if parameter.ndim == 1:
                nn.init.normal_(parameter, parameter.mean().item(), 0.05)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_vectors(file: Path, width: int = 8) -> Path:
    """Write random word vectors of `WORDS` in the text format of GloVe."""
    table = torch.randn(len(WORDS), width, generator=torch.Generator().manual_seed(5))
    rows = zip(WORDS, table.tolist(), strict=True)
    file.write_text("".join(f"{word} {' '.join(f'{value:.4f}' for value in row)}\n" for word, row in rows))
    return file


def make_tokenizer(family: Family) -> Any:
    """A fast tokenizer as the family's own one is: WordPiece, or byte-level BPE with or without a pad token."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    inputs = ["input_ids", *(["token_type_ids"] if family.token_types else []), "attention_mask"]
    if family.tokenizer == "wordpiece":
        return PreTrainedTokenizerFast(
            tokenizer_object=_wordpiece(), model_input_names=inputs, model_max_length=64,
            pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        )  # fmt: skip
    if family.tokenizer == "roberta":
        return PreTrainedTokenizerFast(
            tokenizer_object=_byte_bpe(["<s>", "<pad>", "</s>", "<unk>"], framed=True),
            model_input_names=inputs, model_max_length=64,
            bos_token="<s>", cls_token="<s>", pad_token="<pad>", eos_token="</s>", sep_token="</s>",
            unk_token="<unk>",
        )  # fmt: skip
    if family.tokenizer == "t5":
        tokenizer = _byte_bpe(["<pad>", "</s>", "<unk>"], framed=False)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, model_input_names=inputs, model_max_length=64,
            pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_bpe(["<|endoftext|>"], framed=False),
        model_input_names=inputs, model_max_length=64,
        bos_token="<|endoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>",
    )  # fmt: skip


def _wordpiece() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys([*pieces, *WORDS, *".,!?"]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return tokenizer


def _byte_bpe(specials: list[str], framed: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if framed:
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>"))
        )
    return tokenizer


def load_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer in `folder` as a run takes it."""
    return TextTokenizer.load(folder, TokenizationConfig(), allowed_length=64)


def load_model(folder: Path, pooling: str = "model", labels: tuple[str, ...] = LABELS, seed: int = 0) -> TextClassifier:
    """The backbone in `folder` with a new head drawn with `seed`, in eval mode."""
    config = BackboneConfig.model_validate({"name": str(folder), "head_pooling": pooling})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return load_classifier(
            BackboneFiles(str(folder), folder), config, labels, load_tokenizer(folder).pad_token_id
        ).eval()


def make_batch(folder: Path, texts: tuple[str, ...] = tuple(CORPUS)) -> dict[str, torch.Tensor]:
    """`texts` tokenized and padded, without labels."""
    from transferkit.data.batching import FeatureTable

    tokenizer = load_tokenizer(folder)
    table = FeatureTable.from_arrow(tokenizer.encode_table([(text,) for text in texts]), tokenizer.pad_token_id)
    return table.__getitems__(range(len(texts)))


def train_steps(
    model: nn.Module, batch: Mapping[str, torch.Tensor], steps: int = 3, learning_rate: float = 0.02
) -> None:
    """A few steps of AdamW on what trains, in the mode that training uses; eval mode is on again afterwards."""
    from transferkit.adaptation.freezing import set_training_mode

    targets = torch.arange(len(next(iter(batch.values())))) % 2
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    set_training_mode(model)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(**batch), targets).backward()
        optimizer.step()
    model.eval()


@torch.no_grad()
def logits_of(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Logits [rows, classes] in eval mode."""
    logits: torch.Tensor = model.eval()(**batch)
    return logits


class TinyConvNet(nn.Module):
    """Convolutions over a row of numbers [rows, 8], then linear layers; the last one is the head."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(1, 4, kernel_size=3)
        self.norm = nn.BatchNorm1d(4)
        self.hidden = nn.Linear(24, 16)
        self.output = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [rows, 8] -> logits [rows, 2]."""
        features = torch.relu(self.norm(self.convolution(x.unsqueeze(1)))).flatten(1)
        logits: torch.Tensor = self.output(torch.relu(self.hidden(features)))
        return logits


class TinyTransformer(nn.Module):
    """torch's own encoder with a head on the mean of the positions that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, dim_feedforward=64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS)
        self.classifier = nn.Linear(WIDTH, 2)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """x [rows, length, width], padding bool [rows, length], True where there is nothing -> [rows, 2]."""
        with warnings.catch_warnings():
            # torch's fused path uses nested tensors by itself and warns its users of them.
            warnings.filterwarnings("ignore", message="The PyTorch API of nested tensors")
            hidden = self.encoder(x, src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(-1)
        # In its fused path torch cuts off positions that are padding in every row.
        hidden = hidden * kept[:, : hidden.shape[1]]
        logits: torch.Tensor = self.classifier(hidden.sum(1) / kept.sum(1))
        return logits


def seeded(kind: type[nn.Module], seed: int = 3) -> nn.Module:
    """A generic model of `kind` with weights drawn with `seed`, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind().eval()


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every parameter and saved buffer."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed_names(before: Mapping[str, torch.Tensor], model: nn.Module) -> Iterator[str]:
    """The names in `before` whose bits are different in `model` now."""
    now = model.state_dict()
    return (name for name, tensor in before.items() if not torch.equal(tensor, now[name]))
