"""What in a model is head, what is a layer, and which modules run in training mode."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from transferkit.adaptation.patterns import matching
from transferkit.errors import AdaptationError

# The feed-forward pair of a transformer layer under the names that the families give it, and what stands in its place.
FEED_FORWARD = (
    "layer.*.intermediate.dense", "layer.*.output.dense",  # BERT, RoBERTa, ELECTRA, DeBERTa
    "ffn.lin1", "ffn.lin2",  # DistilBERT
    "albert_layers.*.ffn", "albert_layers.*.ffn_output",  # ALBERT
    "mlp.Wi", "mlp.Wo",  # ModernBERT
    "linear1", "linear2",  # torch.nn.TransformerEncoderLayer, and the layers of our own encoder and translator
    "fc1", "fc2",  # BART
    "DenseReluDense.wi*", "DenseReluDense.wo",  # T5
    "ff.layer_1", "ff.layer_2",  # XLNet
    "ffn.linear_1", "ffn.linear_2",  # Funnel
    "network.hidden",  # the one hidden layer of the averaging classifier
)  # fmt: skip


def head_parameters(model: nn.Module) -> frozenset[str]:
    """Names of the parameters that are new to the task and train under every strategy.

    A model may say so in `head_parameters`; a transformers model has as its head what stands beside its base
    model, and none if it is a base model; any other model has the linear layer that it defines last.

    Raises:
        AdaptationError: the model has no linear layer, or its head is tied to another module.
    """
    declared = getattr(model, "head_parameters", None)
    if declared is not None:
        return _of_the_head_alone(model, frozenset(declared))
    prefix = getattr(model, "base_model_prefix", "")
    if prefix:
        names = [name for name, _ in model.named_parameters()]
        return frozenset(name for name in names if hasattr(model, prefix) and not name.startswith(f"{prefix}."))
    linears = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise AdaptationError(f"{type(model).__name__} has no linear layer that could be its head.")
    head, layer = linears[-1]
    return _of_the_head_alone(model, frozenset(name for name, _ in layer.named_parameters(prefix=head)))


def _of_the_head_alone(model: nn.Module, names: frozenset[str]) -> frozenset[str]:
    """`names`, where no module holds one of these parameters under another name."""
    head = {id(p): name for name, p in model.named_parameters(remove_duplicate=False) if name in names}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(module_name, recurse=False):
            if id(parameter) in head and name not in names:
                raise AdaptationError(
                    f"The head of {type(model).__name__} is tied: {head[id(parameter)]} is {name} too, and would train "
                    "with it; use full or scratch, or give the head a weight of its own."
                )
    return names


def fixed_parameters(model: nn.Module) -> frozenset[str]:
    """Names of the parameters that no strategy trains or draws anew, as a model may say in `fixed_parameters`."""
    return frozenset(getattr(model, "fixed_parameters", ()))


def layer_stack(model: nn.Module) -> tuple[str, tuple[str, ...]]:
    """Name of the longest row of like blocks, the layers of the model, and the names of the blocks in it.

    Of a model with an encoder and a decoder it is the decoder's row, whose layers are the last.

    Raises:
        AdaptationError: there is no such row, or there are several.
    """
    rows = _rows_of_blocks(model)
    # As every family calls it, and torch.
    rows = {name: blocks for name, blocks in rows.items() if "decoder" in name.split(".")} or rows
    longest = max((len(blocks) for blocks in rows.values()), default=0)
    found = list[str]()
    for name, blocks in rows.items():
        # The outermost of equals.
        if len(blocks) == longest and not any(_is_inside(name, outer) for outer in found):
            found.append(name)
    if len(found) != 1:
        number = (
            f"{len(found)} rows of {longest} like layers ({', '.join(found)})" if found else "no row of like layers"
        )
        raise AdaptationError(f"{type(model).__name__} has {number}; name parts by pattern instead.")
    return found[0], rows[found[0]]


def _rows_of_blocks(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Names of the blocks in every row of blocks of one kind, outer rows first."""
    rows, lists = dict[str, tuple[str, ...]](), list[str]()
    for name, module in model.named_modules():
        if any(_is_inside(name, outer) for outer in lists):
            # A layer may hold lists of its own, longer than the list of a few layers.
            continue
        is_row = isinstance(module, (nn.ModuleList, nn.Sequential))
        if is_row and len({type(block) for block in module.children()}) == 1:
            rows[name] = tuple(block for block, _ in module.named_children())
            if isinstance(module, nn.ModuleList):
                lists.append(name)
    return rows


def _is_inside(name: str, outer: str) -> bool:
    return not outer or name.startswith(f"{outer}.")


def linears_outside_head(model: nn.Module) -> list[str]:
    """Names of the linear layers that belong to the backbone and are called as layers.

    Raises:
        AdaptationError: there are none.
    """
    names = head_parameters(model)
    # The parameters themselves: a parametrized weight has other names than those of a linear layer.
    head = {id(parameter) for name, parameter in model.named_parameters() if name in names}
    found = [
        name
        for name, module in model.named_modules()
        # torch.nn.MultiheadAttention reads the weights of this one and never calls it.
        if isinstance(module, nn.Linear) and not isinstance(module, NonDynamicallyQuantizableLinear)
        if head.isdisjoint(id(parameter) for parameter in module.parameters())
    ]
    if not found:
        raise AdaptationError(
            f"{_kind(model)} has no linear layer outside its head to put adapters on; use partial, full or peft:lora."
        )
    return found


def encoder_linears(model: nn.Module) -> list[str]:
    """Names of the attention and feed-forward linear layers.

    These are the linear layers outside the head, and where there are numbered layers only those inside them.
    """
    linears = linears_outside_head(model)
    inside = [name for name in linears if any(part.isdigit() for part in name.split("."))]
    return inside or linears


def feed_forward_linears(model: nn.Module) -> list[str]:
    """Names of both feed-forward linear layers of every transformer layer.

    Raises:
        AdaptationError: no layer has a known name of a feed-forward layer; targets must then be named.
    """
    found = matching(FEED_FORWARD, encoder_linears(model))
    if not found:
        raise AdaptationError(
            f"The feed-forward layers of {_kind(model)} are not known by name; name linear layers as targets."
        )
    return found


def _kind(model: nn.Module) -> str:
    """The class that the user knows the model by: of the network, where `model` is it with a head."""
    return type(getattr(model, "network", model)).__name__


def set_training_mode(model: nn.Module, frozen_dropout: bool = False) -> None:
    """Put what trains in training mode and the frozen rest in eval mode, so that no dropout runs in it.

    A module is frozen when none of its own pretrained parameters train; what has no parameters follows its
    parent. Adapters are always in training mode. `frozen_dropout` puts everything in training mode, as PEFT
    does.
    """
    model.train()
    if not frozen_dropout:
        _freeze_mode(model, parent_trains=True)


def _freeze_mode(module: nn.Module, parent_trains: bool) -> None:
    if is_adapter(module):
        return
    trains = _base_trains(module) if any(True for _ in module.parameters()) else parent_trains
    module.training = trains
    for child in module.children():
        _freeze_mode(child, trains)


def _base_trains(module: nn.Module) -> bool:
    """Whether a parameter outside adapters trains in or below `module`."""
    if is_adapter(module):
        return False
    own = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    return own or any(_base_trains(child) for child in module.children())


def is_adapter(module: nn.Module) -> bool:
    """Our adapters and PEFT's both keep the names of what they add on the class."""
    return hasattr(type(module), "adapter_layer_names")
