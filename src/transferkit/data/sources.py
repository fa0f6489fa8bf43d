"""From the name of a source to its reader: built-in, file, folder or hub, in this order."""

from __future__ import annotations

from transferkit.data import builtin, folders, hub, tabular
from transferkit.data.tables import Source
from transferkit.data.text_lines import FileOptions
from transferkit.environment import user_path
from transferkit.errors import DataError, did_you_mean


def read(name: str, options: FileOptions) -> Source:
    """The splits that `name` stands for, with raw columns.

    Raises:
        DataError: there is nothing of that name, or it cannot be read.
        ConfigError: an option of `options` is unknown.
    """
    if name in builtin.BUILTIN:
        return builtin.read(name)
    path = user_path(name)
    if path.is_dir():
        return folders.read(path, options)
    if path.exists():
        return tabular.read(path, options)
    if "://" in name:
        raise DataError(f"{name} is an address on the network; fetch the file, and give its path.")
    if name.partition(":")[0] in {known.partition(":")[0] for known in builtin.BUILTIN} or _is_misspelt(name):
        raise DataError(f"There is no built-in data set {name!r}.{did_you_mean(name, builtin.BUILTIN)}")
    if _is_path(name):
        raise tabular.missing(path)
    return hub.read(name)


def _is_misspelt(name: str) -> bool:
    # Neither paths on Unix nor hub names hold a colon; in `C:\reviews.csv` one letter stands before it.
    return name.find(":") > 1


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or tabular.is_tabular(name) or not hub.is_hub_name(name)
