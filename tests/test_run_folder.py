"""Run folders: never overwritten by accident, never deleted when they are not ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import transferkit
from transferkit import run_folder
from transferkit.config import RunConfig
from transferkit.errors import BackboneError, RunError
from transferkit.models.hub import locate


def test_an_empty_or_missing_folder_is_free(tmp_path: Path) -> None:
    run_folder.check_free(tmp_path, overwrite=False)
    run_folder.make_folder(tmp_path / "a" / "b", overwrite=False)
    assert (tmp_path / "a" / "b").is_dir()


def test_a_run_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"schema": "transferkit/run/1"}')
    (tmp_path / "old").write_text("")
    with pytest.raises(RunError, match=r"exists and is not empty.*--overwrite"):
        run_folder.make_folder(tmp_path, overwrite=False)
    run_folder.make_folder(tmp_path, overwrite=True)
    run_folder.forget_earlier(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_not_told_of_an_option_that_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"schema": "transferkit/run/1"}')
    with pytest.raises(RunError, match=r"exists and is not empty; choose another --out\.$"):
        run_folder.check_free(tmp_path)


def test_what_a_run_replaces_comes_back_when_it_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"schema": "transferkit/run/1"}')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("old")
    for _ in range(2):
        # The second time after a kill, with half of a run beside what it was to replace.
        run_folder.make_folder(tmp_path, overwrite=True)
        (tmp_path / "model").mkdir()
        (tmp_path / "labels.json").write_text("[]")
    run_folder.put_back(tmp_path, is_new=False)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model", "run.json"]
    assert (tmp_path / "model" / "weights").read_text() == "old"


def test_a_new_folder_goes_again_when_its_run_does_not_begin(tmp_path: Path) -> None:
    run_folder.make_folder(tmp_path / "run", overwrite=False)
    (tmp_path / "run" / "tensorboard").mkdir()
    run_folder.put_back(tmp_path / "run", is_new=True)
    assert list(tmp_path.iterdir()) == []


def write_whole(out: Path, then: Callable[[], object]) -> None:
    with run_folder.whole_folder(out) as partial:
        (partial / "model").mkdir()
        (partial / "model" / "weights").write_text("whole")
        (partial / "config.json").write_text("{}")
        then()


def stop() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["new", "a/b/new", "empty", "link", ".", "link-to-new"])
def test_a_whole_folder_is_there_at_the_end_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "link-to-new").symlink_to(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "empty" if name == "." else tmp_path)
    before, out = sorted(tmp_path.rglob("*")), Path(name)
    folder = out.stat().st_ino if out.is_dir() else None
    with pytest.raises(KeyboardInterrupt):
        write_whole(out, stop)
    assert sorted(tmp_path.rglob("*")) == before
    seen: list[bool] = []
    write_whole(out, lambda: seen.append((out / "config.json").exists()))
    assert seen == [False]
    assert sorted(entry.name for entry in out.iterdir()) == ["config.json", "model"]
    assert (out / "model" / "weights").read_text() == "whole"
    assert not list(tmp_path.rglob("*.part"))
    assert folder in (None, out.stat().st_ino), "a folder that was there may be the root of a disk"
    with pytest.raises(RunError, match="exists and is not empty"):
        write_whole(out, stop)


def test_what_comes_into_a_folder_meanwhile_stays_and_stays_alone(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not empty"):
        write_whole(tmp_path, lambda: (tmp_path / "model" / "mine").mkdir(parents=True))
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "model", tmp_path / "model" / "mine"]


def test_a_folder_is_written_by_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    config = RunConfig.model_validate({})
    with run_folder.reserved(out), run_folder.reserved(tmp_path / "other"):
        (tmp_path / "link").symlink_to(out)
        for write in (
            lambda: transferkit.train(config, tmp_path / "link"),
            lambda: transferkit.compare(transferkit.CompareConfig.model_validate({}), out),
            lambda: transferkit.resume(out),
        ):
            with pytest.raises(RunError, match=r"Another process is writing to .*; wait for its end"):
                write()
        assert not out.exists()
    with pytest.raises(KeyError), run_folder.reserved(out):
        raise KeyError
    # What the cache cannot hold stops nobody.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path / "file"))
    with run_folder.reserved(out), run_folder.reserved(out):
        pass


def test_what_is_no_run_is_never_deleted(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.tex"
    precious.write_text("")
    with pytest.raises(RunError, match="leaves it alone"):
        run_folder.make_folder(tmp_path, overwrite=True)
    with pytest.raises(RunError, match="is a file"):
        run_folder.make_folder(precious, overwrite=True)
    for name, content in (("runs/mine/notes", "{}"), ("results.json", "[]"), ("run.json", '{"schema": 1}')):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        with pytest.raises(RunError, match="leaves it alone"):
            run_folder.make_folder(tmp_path, overwrite=True)
    assert precious.is_file()


def test_a_comparison_that_was_stopped_at_once_can_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "runs" / "full-seed0").mkdir(parents=True)
    run_folder.make_folder(tmp_path, overwrite=True)
    run_folder.forget_earlier(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_has_begun_stays_though_the_earlier_one_could_not_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.json").write_text('{"schema": "transferkit/run/1", "label": "old"}')
    run_folder.make_folder(tmp_path, overwrite=True)
    (tmp_path / "run.json").write_text('{"schema": "transferkit/run/1", "label": "new"}')
    run_folder.put_back(tmp_path, is_new=False)
    assert "new" in (tmp_path / "run.json").read_text()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"There is no run in .*transferkit train"):
        run_folder.resolve(tmp_path)


def test_a_run_of_a_built_in_name_does_not_take_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "minilm").mkdir()
    (tmp_path / "minilm" / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert run_folder.find_backbone("minilm") == locate("minilm")
    with pytest.raises(RunError, match=r"minilm/run\.json"):
        run_folder.find_backbone("./minilm")


def test_a_backbone_in_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(BackboneError, match="There is no folder ~nosuchuser/m;"):
        run_folder.find_backbone("~nosuchuser/m")


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"schema": "transferkit/run/9"}')
    with pytest.raises(RunError, match="damaged or of another version"):
        run_folder.read_record(tmp_path)
    (tmp_path / "lora.json").write_text('{"schema": "transferkit/lora/1", "modules"')
    with pytest.raises(RunError, match=r"lora\.json .*damaged"):
        run_folder.read_lora(tmp_path)


def test_predictions_come_back_as_they_were(tmp_path: Path) -> None:
    labels, logits = np.array([1, 0, 1]), np.array([[0.1, 0.9], [2, -1], [0, 0]], dtype=np.float32)
    run_folder.write_predictions(tmp_path, labels, logits)
    again = run_folder.read_predictions(tmp_path)
    np.testing.assert_array_equal(again[0], labels)
    np.testing.assert_array_equal(again[1], logits)


def test_predictions_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"There is no predictions\.safetensors in "):
        run_folder.read_predictions(tmp_path)
    path = tmp_path / run_folder.PREDICTIONS_FILE
    run_folder.write_predictions(tmp_path, np.array([1, 0]), np.eye(2, dtype=np.float32))
    whole = path.read_bytes()
    for torn in (b"", whole[:20], whole[:-4], whole.replace(b"labels", b"lavels")):
        path.write_bytes(torn)
        with pytest.raises(RunError, match=r"predictions\.safetensors is damaged .*; run again with --overwrite"):
            run_folder.read_predictions(tmp_path)
