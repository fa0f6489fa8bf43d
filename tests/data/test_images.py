"""Images as the loop takes them, wherever they come from."""

from __future__ import annotations

import builtins
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tests.data.test_idx import idx
from transferkit.data import splits
from transferkit.data.images import ImageTable, builtin_digits, read_images
from transferkit.errors import DataError

PIXELS = np.random.default_rng(0).integers(1, 256, (6, 28, 28), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 1, 0, 2], dtype=np.uint8)


def write(folder: Path, pixels: np.ndarray = PIXELS, labels: np.ndarray = LABELS, part: str = "t10k") -> Path:
    """Images plain, labels packed: each may be either."""
    folder.mkdir(exist_ok=True)
    (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    path = folder / f"{part}-images-idx3-ubyte"
    path.write_bytes(idx(pixels))
    return path


def table(pixels: list[int], labels: list[int]) -> ImageTable:
    """Images of one grey each."""
    grey = np.array(pixels, dtype=np.uint8)[:, None, None]
    return ImageTable(np.broadcast_to(grey, (len(pixels), 32, 32)), np.array(labels), ("a", "b", "c"), "here")


def test_images_stand_in_the_middle_of_32_x_32_pixels(tmp_path: Path) -> None:
    images = read_images(write(tmp_path).parent)
    assert images.pixels.shape == (6, 32, 32)
    np.testing.assert_array_equal(images.pixels[:, 2:30, 2:30], PIXELS)
    images.pixels[:, 2:30, 2:30] = 0
    assert not images.pixels.any()
    assert images.labels.tolist() == LABELS.tolist()
    assert (images.names, images.where) == (("0", "1", "2"), str(tmp_path))


def test_only_labels_that_occur_are_classes(tmp_path: Path) -> None:
    images = read_images(write(tmp_path, labels=np.array([1, 26, 1, 7, 7, 1], dtype=np.uint8)))
    assert images.names == ("1", "7", "26")
    assert images.labels.tolist() == [0, 2, 0, 1, 1, 0]


def test_of_odd_sizes_the_pixel_too_many_is_after_the_image(tmp_path: Path) -> None:
    images = read_images(write(tmp_path, PIXELS[:, :27, :20]))
    np.testing.assert_array_equal(images.pixels[:, 2:29, 6:26], PIXELS[:, :27, :20])


def test_a_batch_is_scaled_as_in_the_paper() -> None:
    batch = table([0, 255, 51], [0, 1, 2]).__getitems__([2, 0, 1])
    assert batch["images"].shape == (3, 1, 32, 32)
    assert batch["images"].dtype == torch.float32
    torch.testing.assert_close(batch["images"][:, 0, 5, 7], torch.tensor([0.155, -0.1, 1.175]))
    assert batch["labels"].tolist() == [2, 0, 1]


def test_all_rows_come_once_in_their_order() -> None:
    images = table([10, 20, 30, 40, 50], [0, 1, 2, 0, 1])
    parts = list(images.in_length_order(2))
    assert [rows.tolist() for rows, _ in parts] == [[0, 1], [2, 3], [4]]
    assert [label for _, batch in parts for label in batch["labels"].tolist()] == [0, 1, 2, 0, 1]
    assert images.lengths.tolist() == [1] * 5
    assert images.side_lengths.shape == (5, 1)


def test_repeated_images_are_kept_once() -> None:
    images = table([7, 3, 7, 5, 3], [0, 1, 0, 2, 1]).distinct()
    assert images.pixels[:, 0, 0].tolist() == [7, 3, 5]
    assert images.labels.tolist() == [0, 1, 2]


def test_chosen_classes_are_numbered_anew() -> None:
    images = table([1, 2, 3, 4], [0, 1, 2, 1]).only((2, 1))
    assert images.pixels[:, 0, 0].tolist() == [2, 3, 4]
    assert images.labels.tolist() == [1, 0, 1]
    assert images.names == ("c", "b")


def test_images_are_split_as_texts_are() -> None:
    images = table(list(range(60)), [0, 1, 2] * 20)
    drawn = splits.draw_missing(images, {"test": 0.2, "validation": 0.1}, images.names, seed=0)
    assert {split: np.bincount(part.labels).tolist() for split, part in drawn.items()} == {
        "train": [14] * 3, "test": [4] * 3, "validation": [2] * 3,
    }  # fmt: skip
    assert sorted(pixel for part in drawn.values() for pixel in part.pixels[:, 0, 0].tolist()) == list(range(60))


def test_the_digits_of_scikit_learn_keep_their_look() -> None:
    digits = builtin_digits()
    assert digits.pixels.shape == (1797, 32, 32)
    assert digits.names == tuple("0123456789")
    small = load_digits()
    assert digits.labels.tolist() == small.target.tolist()
    # The mean of the four pixels in the middle of each 4 x 4 is the pixel that was enlarged, or near it.
    middles = digits.pixels.reshape(-1, 8, 4, 8, 4)[:, :, 1:3, :, 1:3].mean((2, 4))
    assert np.corrcoef(middles.ravel(), small.images.ravel())[0, 1] > 0.98
    assert digits.pixels.max() == 255


def test_without_scikit_learn_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match="scikit-learn is not installed; install it with: pip install scikit-learn"):
        builtin_digits()


def test_a_file_of_images_may_be_named_where_there_are_several(tmp_path: Path) -> None:
    write(tmp_path)
    path = write(tmp_path, PIXELS[:2], LABELS[:2], part="train")
    assert len(read_images(path)) == 2
    with pytest.raises(DataError, match=r"holds 2 files of images; name one, such as .*t10k-images-idx3-ubyte"):
        read_images(tmp_path)


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (PIXELS[:5], LABELS, r"t10k-images-idx3-ubyte holds 5 images, and the file of labels beside it 6 labels"),
        (PIXELS[:0], LABELS[:0], r"holds no images"),
        (np.zeros((6, 28, 33), dtype=np.uint8), LABELS, r"images of 28 x 33 pixels; the most is 32 x 32"),
        (LABELS, LABELS, r"images-idx3-ubyte states 1 as its dimensions, not 3"),
        (PIXELS, PIXELS, r"labels-idx1-ubyte.gz states 3 as its dimensions, not 1"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, pixels: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_images(write(tmp_path, pixels, labels))


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no file \*images-idx3-ubyte or \*images-idx3-ubyte\.gz in"):
        read_images(tmp_path)
    with pytest.raises(DataError, match=r"There is no file .*nowhere"):
        read_images(tmp_path / "nowhere-images-idx3-ubyte")
    path = write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"There is no file .*t10k-labels-idx1-ubyte\."):
        read_images(path)
    other = path.rename(tmp_path / "digits")
    with pytest.raises(DataError, match=r"The name of .*digits does not hold images-idx3-ubyte"):
        read_images(other)


@pytest.mark.parametrize(("name", "distinct", "mean"), [("mnist", 10_000, 33.79), ("notmnist", 9_804, 108.79)])
def test_the_real_files(shared: Callable[[str], str], name: str, distinct: int, mean: float) -> None:
    images = read_images(Path(shared(name)))
    assert len(images) == 10_000
    assert images.names == tuple("0123456789")
    assert round(images.pixels[:, 2:30, 2:30].mean(), 2) == mean
    # notMNIST has one blank image 141 times, and 56 others twice.
    assert len(images.distinct()) == distinct
