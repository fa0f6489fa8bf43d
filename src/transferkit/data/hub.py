"""Data sets of the Hugging Face hub; code that a data set brings along is never run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import datasets
import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import httpx

from transferkit.data.folders import from_dataset_dict
from transferkit.data.tables import Source
from transferkit.errors import DataError, did_you_mean, first_line
from transferkit.hub_errors import answer, is_of_the_machine

# Long enough for a slow line, short enough that an unreachable hub is said within seconds.
_TIMEOUT = 10.0
_NAME = re.compile(r"[\w.-]+(/[\w.-]+){0,2}", re.ASCII)
# Who owns the data sets that have a name without an owner: the hub says so, but not when it is out of reach.
_OWNERS = {
    "ag_news": "fancyzhx",
    "amazon_polarity": "fancyzhx",
    "dbpedia_14": "fancyzhx",
    "emotion": "dair-ai",
    "glue": "nyu-mll",
    "imdb": "stanfordnlp",
    "opus_books": "Helsinki-NLP",
    "rotten_tomatoes": "cornell-movie-review-data",
    "snli": "stanfordnlp",
    "sst2": "stanfordnlp",
    "super_glue": "aps",
    "tweet_eval": "cardiffnlp",
    "yelp_polarity": "fancyzhx",
    "yelp_review_full": "Yelp",
}
# A repository, and one of its configs where it has several.
Reading = tuple[str, str | None]


def is_hub_name(name: str) -> bool:
    """Whether `name` has the form `name`, `owner/name`, `name/config` or `owner/name/config`."""
    return _NAME.fullmatch(name) is not None


def read(name: str) -> Source:
    """The splits of a data set of the hub, from the local cache where the hub cannot be reached.

    Raises:
        DataError: there is no such data set or config, it is gated, it is neither in reach nor cached, or the hub
            fails.
        OSError: the local cache cannot take it.
    """
    with _quiet():
        if datasets.config.HF_HUB_OFFLINE:
            return _load_cached(name, "offline mode is on (HF_HUB_OFFLINE or HF_DATASETS_OFFLINE)")
        try:
            reading = _find(name)
        except (OfflineModeIsEnabled, httpx.TransportError):
            return _load_cached(name, "the hub cannot be reached")
        try:
            return _load(name, reading)
        except (httpx.TransportError, ConnectionError):
            return _load_cached(name, "the connection to the hub broke off")


def _readings(name: str) -> list[Reading]:
    """What a name may stand for: first a repository as typed, then repository and config."""
    repository, slash, config = name.rpartition("/")
    whole: list[Reading] = [(name, None)] if name.count("/") < 2 else []
    return whole + ([(repository, config)] if slash else [])


def _find(name: str) -> Reading:
    """The first reading of the name under which the hub has a data set."""
    for repository, config in _readings(name):
        try:
            info = huggingface_hub.HfApi().dataset_info(repository, timeout=_TIMEOUT)
        except GatedRepoError:
            raise DataError(
                f"The hub's data set {repository!r} is gated; get access on its page and run `hf auth login`."
            ) from None
        except (HFValidationError, RepositoryNotFoundError):
            continue
        except HfHubHTTPError as error:
            said = answer(error, name)
            if said is None:
                continue
            raise DataError(said) from None
        # The full name, which the hub gives for a short one; `load_dataset` takes no other.
        return info.id, config
    raise DataError(
        f"There is no file {name}, and no data set {name!r} on the Hugging Face hub (or it is private); "
        "give a path, or a hub name such as imdb, glue/mrpc or owner/name."
    )


def _load(name: str, reading: Reading) -> Source:
    repository, config = reading
    try:
        splits = datasets.load_dataset(repository, config)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise DataError(f"The hub's data set {name!r} is made by a script, which is not run; use another.") from None
    except datasets.exceptions.DatasetsError as error:
        if is_of_the_machine(error.__cause__):
            raise error.__cause__ from None
        raise DataError(_not_loaded(name, error)) from None
    except OSError as error:
        if isinstance(error, ConnectionError) or is_of_the_machine(error):
            raise
        raise DataError(answer(error, name) or _not_loaded(name, error)) from None
    except ValueError as error:
        raise DataError(_wrong_config(reading) or f"{_not_loaded(name, error)}; give paths of its files.") from None
    return from_dataset_dict(splits, name)


def _not_loaded(name: str, error: Exception) -> str:
    return f"The hub's data set {name!r} cannot be loaded: {first_line(error)}"


def _wrong_config(reading: Reading) -> str | None:
    """What is wrong with the config of a reading; None where it is not the config."""
    repository, config = reading
    try:
        configs = datasets.get_dataset_config_names(repository)
    except (ValueError, HfHubHTTPError):
        return None
    if config in configs or (config is None and len(configs) < 2):
        return None
    hint = did_you_mean(config, configs) if config else f" There is: {', '.join(configs[:20])}."
    what = f"has no config {config!r}" if config else f"has several configs; name one as {repository}/CONFIG"
    return f"The hub's data set {repository!r} {what}.{hint}"


def _load_cached(name: str, reason: str) -> Source:
    with _offline():
        for repository, config in _readings(name):
            owned = f"{_OWNERS[repository]}/{repository}" if repository in _OWNERS else repository
            try:
                found = datasets.load_dataset(owned, config)
            except (OSError, ValueError):
                continue  # not in the cache under this reading
            source = from_dataset_dict(found, name)
            used = next(iter(found.values())).config_name
            note = f"{name} is read from the local cache, config {used}, since {reason}."
            return replace(source, notes=(note, *source.notes))
    raise DataError(
        f"There is no file {name}; as a data set of the Hugging Face hub it cannot be had, since {reason} "
        "and the local cache does not hold it. Give a file or a built-in name, or connect."
    )


@contextmanager
def _offline() -> Iterator[None]:
    """Let `datasets` look at its cache at once, where it would first try the network for half a minute."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the bars and the warnings of `datasets` and the hub's client off the terminal."""
    bars = [kind for kind in (datasets, huggingface_hub.utils) if not kind.are_progress_bars_disabled()]
    levels = [(logs, logs.get_verbosity()) for logs in (datasets.logging, huggingface_hub.logging)]
    for kind in bars:
        kind.disable_progress_bars()
    for logs, _ in levels:
        logs.set_verbosity_error()
    try:
        yield
    finally:
        for kind in bars:
            kind.enable_progress_bars()
        for logs, level in levels:
            logs.set_verbosity(level)
