"""Small images as batches: from idx files such as MNIST and notMNIST, or the digits that scikit-learn brings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from transferkit.data.batching import runs
from transferkit.data.idx import read_idx
from transferkit.data.rows import Indices, Mask
from transferkit.errors import DataError

Pixels = npt.NDArray[np.uint8]

SIDE = 32
_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


@dataclass(frozen=True)
class ImageTable:
    """Images with labels, ready to be collated.

    A batch holds `images` float32 [rows, 1, 32, 32] and `labels` int64 [rows]. For the loop a row has the length 1: an
    image counts as one token.
    """

    pixels: Pixels  # [rows, 32, 32], 0 where nothing is drawn
    labels: Indices  # [rows], numbers that index `names`
    names: tuple[str, ...]
    where: str  # how messages call it

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """One each, int32 [rows]."""
        return np.ones(len(self), dtype=np.int32)

    @property
    def side_lengths(self) -> npt.NDArray[np.int32]:
        """The same as the only column, int32 [rows, 1]."""
        return self.lengths[:, None]

    def keep(self, mask: Mask) -> ImageTable:
        """The rows for which `mask`, bool [rows], is true."""
        return replace(self, pixels=self.pixels[mask], labels=self.labels[mask])

    def distinct(self) -> ImageTable:
        """The first row of each image: one that stands in training and in test makes the test easier than it is."""
        _, first = np.unique(self.pixels.reshape(len(self), -1), axis=0, return_index=True)
        mask = np.zeros(len(self), dtype=bool)
        mask[first] = True
        return self.keep(mask)

    def only(self, classes: Sequence[int]) -> ImageTable:
        """The rows of these classes, which are numbered anew in the order given."""
        numbers = np.full(len(self.names), -1)
        numbers[list(classes)] = range(len(classes))
        labels = numbers[self.labels]
        table = replace(self, labels=labels, names=tuple(self.names[number] for number in classes))
        return table.keep(labels >= 0)

    def __getitems__(self, rows: Sequence[int] | Indices) -> dict[str, Tensor]:
        """Collate `rows`; torch's loader calls this once a batch."""
        index = np.asarray(rows)
        return {"images": _scaled(self.pixels[index]), "labels": torch.from_numpy(self.labels[index])}

    def in_length_order(self, max_tokens: int) -> Iterator[tuple[Indices, dict[str, Tensor]]]:
        """(row numbers, batch) over all rows, `max_tokens` images at a time, in their own order."""
        for rows in runs(np.arange(len(self)), max_tokens, lambda _: 1):
            yield rows, self.__getitems__(rows)


def read_images(path: Path) -> ImageTable:
    """Images and labels in the idx format; the labels that occur are the classes, in order.

    Args:
        path: of a file `*images-idx3-ubyte`, plain or `.gz`, or of a folder with one such file. The labels are beside
            it in the file `*labels-idx1-ubyte` of the same beginning. Images are of at most 32 x 32 pixels.

    Raises:
        DataError: a file is missing or is not what it should be, the two do not belong together, or the images are too
            large.
    """
    file = _only_images_in(path) if path.is_dir() else path
    pixels = read_idx(file, 3)
    labels = read_idx(_labels_beside(file), 1)
    if len(pixels) != len(labels):
        raise DataError(
            f"{file} holds {len(pixels):,} images, and the file of labels beside it {len(labels):,} labels."
        )
    if not len(labels):
        raise DataError(f"{file} holds no images.")
    if max(pixels.shape[1:]) > SIDE:
        height, width = pixels.shape[1:]
        raise DataError(f"{file} holds images of {height} x {width} pixels; the most is {SIDE} x {SIDE}.")
    # Labels need not begin at 0: those of EMNIST's letters go from 1 to 26.
    classes, numbers = np.unique(labels, return_inverse=True)
    return ImageTable(_padded(pixels), numbers.astype(np.int64), tuple(map(str, classes.tolist())), str(path))


def builtin_digits() -> ImageTable:
    """The 1,797 handwritten digits that scikit-learn brings: 8 x 8 pixels, enlarged four times by interpolation.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("scikit-learn is not installed; install it with: pip install scikit-learn.") from None
    digits = load_digits()
    # Values go from 0 to 16.
    small = torch.from_numpy(digits.images).unsqueeze(1) * (255 / 16)
    large = functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear").squeeze(1)
    names = tuple(str(name) for name in digits.target_names)
    return ImageTable(
        large.round().to(torch.uint8).numpy(), digits.target.astype(np.int64), names, "scikit-learn's digits"
    )


def _scaled(pixels: Pixels) -> Tensor:
    """Bytes [rows, 32, 32] as float32 [rows, 1, 32, 32]: -0.1 where nothing is drawn, 1.175 where all is.

    With these ends MNIST has a mean of about 0 and a variance of about 1 (LeCun et al. 1998, section II.B).
    """
    return torch.from_numpy(pixels).unsqueeze(1).float() * (1.275 / 255) - 0.1


def _padded(pixels: Pixels) -> Pixels:
    """Images [rows, height, width] in the middle of 32 x 32 pixels."""
    before = [(SIDE - size) // 2 for size in pixels.shape[1:]]
    after = [SIDE - size - start for size, start in zip(pixels.shape[1:], before, strict=True)]
    return np.pad(pixels, ((0, 0), *zip(before, after, strict=True)))


def _only_images_in(folder: Path) -> Path:
    found = sorted([*folder.glob(f"*{_IMAGES}"), *folder.glob(f"*{_IMAGES}.gz")])
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{folder} holds {len(found)} files of images; name one, such as {found[0]}.")
    raise DataError(f"There is no file *{_IMAGES} or *{_IMAGES}.gz in {folder}.")


def _labels_beside(images: Path) -> Path:
    if _IMAGES not in images.name:
        raise DataError(f"The name of {images} does not hold {_IMAGES}, so that its labels cannot be found beside it.")
    plain = images.with_name(images.name.removesuffix(".gz").replace(_IMAGES, _LABELS))
    packed = plain.with_name(f"{plain.name}.gz")
    return packed if packed.is_file() and not plain.is_file() else plain
