"""Where a backbone's files are looked for, and what is said when they are nowhere."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub.utils import httpx

from tests.hub_server import serve
from transferkit.errors import BackboneError
from transferkit.models import hub
from transferkit.models.hub import locate


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As with HF_HUB_OFFLINE=1, which the library reads when it is imported, and an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def test_an_unknown_hub_name_offline_is_refused_quickly(offline: None) -> None:
    start = time.perf_counter()
    with pytest.raises(BackboneError, match=r"offline.*local cache; name a folder.*minilm") as error:
        locate("someone/some-model")
    assert time.perf_counter() - start < 5
    assert "\n" not in str(error.value)


def test_a_name_that_is_no_hub_id_offers_the_built_in_one(offline: None) -> None:
    with pytest.raises(BackboneError, match=r"not a built-in backbone, a folder or a hub id. Did you mean minilm"):
        locate("mini lm")


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/nowhere", "~nosuchuser/m", "a/b/c"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(BackboneError, match=f"There is no folder {name}"):
        locate(name)


@pytest.mark.parametrize("name", ["runs/ag-news", "runs/reviews/runs/full-seed0"])
def test_a_run_that_is_not_there_is_not_looked_for_on_the_hub_either(name: str) -> None:
    with pytest.raises(BackboneError, match=rf"^There is no run {name}; .* `transferkit pretrain` with --out {name}\)"):
        locate(name)


def test_the_built_in_backbone_is_a_folder_of_its_package() -> None:
    files = locate("minilm")
    assert files.revision is None
    assert (files.folder / "model.safetensors").is_file()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hub.BUILTIN, "other", ("no_such_package", "model"))
    with pytest.raises(BackboneError, match="pip install no-such-package"):
        locate("other")


def test_a_folder_of_the_name_comes_before_the_hub(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "someone" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert locate("someone/model").folder == Path("someone/model")


@pytest.mark.parametrize("beside", [(), ("config.json", "model.safetensors")], ids=["alone", "beside a model"])
def test_an_adapter_does_not_take_the_place_of_a_model(tmp_path: Path, beside: tuple[str, ...]) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/other"}')
    for name in beside:
        (tmp_path / name).write_text("{}")
    with pytest.raises(BackboneError, match=r"holds a PEFT adapter.*merge_and_unload.*move adapter_config\.json away"):
        locate(str(tmp_path))
    (tmp_path / "adapter_config.json").unlink()
    if beside:
        assert locate(str(tmp_path)).folder == tmp_path


LOCATE = """
import sys
from transferkit.errors import BackboneError
from transferkit.models.hub import locate
try:
    locate(sys.argv[1])
except (BackboneError, OSError) as error:
    print(type(error).__name__, error)
"""


def locate_apart(name: str, address: str, cache: Path) -> str:
    """What `locate` raises in a process whose hub is at `address`, the name of the error first."""
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", LOCATE, name], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_hub_in_reach_is_not_called_out_of_reach(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "models" / "someone" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (tmp_path / "file").write_text("where the cache is to be")
    with serve(tmp_path / "hub", failing=["someone/tiny"]) as address:
        failing = locate_apart("someone/tiny", address, tmp_path / "cache")
    assert failing == "BackboneError The hub answered 501 for 'someone/tiny'; try again later."
    with serve(tmp_path / "hub") as address:
        unwritable = locate_apart("someone/tiny", address, tmp_path / "file")
    assert unwritable.startswith(("NotADirectoryError", "FileExistsError"))
    assert str(tmp_path / "file") in unwritable


def test_a_full_disk_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        locate("someone/some-model")


def test_a_connection_that_breaks_off_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> None:
        raise httpx.ReadError("broken off")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(BackboneError, match="the hub cannot be reached"):
        locate("someone/some-model")
