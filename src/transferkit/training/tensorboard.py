"""A run in TensorBoard: losses, learning rate, metrics, sample texts and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from transferkit.errors import ConfigError
from transferkit.evaluation.results import EpochRecord, Example
from transferkit.formatting import percent
from transferkit.training.tracking import Both, Listener

FOLDER = "tensorboard"
# Of a weight, each way.
PIXELS = 8


@contextmanager
def tracked(listener: Listener, run: Path, is_wanted: bool) -> Iterator[Listener]:
    """Inside the context what the listener hears also goes to TensorBoard, in the run folder, where that is wanted."""
    if not is_wanted:
        yield listener
        return
    board = TensorBoard(run)
    try:
        yield Both(listener, board)
    finally:
        board.close()


class TensorBoard(Listener):
    """A listener that writes event files into a run folder."""

    def __init__(self, run: Path) -> None:
        """`run` is the run folder.

        Raises:
            ConfigError: tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                'training.tensorboard needs the package tensorboard: pip install "transferkit[tensorboard]".'
            ) from None
        self._open = partial(SummaryWriter, run / FOLDER)
        self._writer: Any = None

    def begun(self, step: int) -> None:
        """Open a file of events."""
        # A stopped training may have written of steps after its checkpoint: they are taken again.
        self._writer = self._open(purge_step=step + 1)

    def stepped(self, step: int, loss: float, learning_rate: float) -> None:
        """Two points of curves by step."""
        self._writer.add_scalar("train/loss", loss, step)
        self._writer.add_scalar("train/learning_rate", learning_rate, step)

    def epoch_ended(self, record: EpochRecord) -> None:
        """A point of every validation curve, and the examples as a table."""
        for name, value in {"loss": record.validation_loss, **record.metrics}.items():
            self._writer.add_scalar(f"validation/{name}", value, record.step)
        if record.examples:
            self._writer.add_text("validation/examples", _table(record.examples), record.step)
        self._writer.flush()

    def looked(self, name: str, weights: npt.NDArray[np.float32], step: int) -> None:
        """A picture of all heads: in each a line for every query, the darker the larger the weight."""
        self._writer.add_image(f"attention/{name}", heads_image(weights), step, dataformats="HW")

    def close(self) -> None:
        """Write what is left, where training had begun."""
        if self._writer is not None:
            self._writer.close()


def heads_image(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Weights [heads, queries, keys] as an image [height, width] from 0, which is black, to 1.

    The heads are in lines of as many as make the image the nearest to a square, the first ones in the uppermost.
    """
    heads, queries, keys = weights.shape
    columns = min(
        range(1, heads + 1), key=lambda number: abs(math.log(number * keys / (math.ceil(heads / number) * queries)))
    )
    # White where the last line has no more heads, and grey lines between two.
    filled = np.pad(weights, ((0, -heads % columns), (0, 0), (0, 0)))
    framed = np.pad(filled, ((0, 0), (0, 1), (0, 1)), constant_values=0.5)
    lines = framed.reshape(-1, columns, queries + 1, keys + 1).swapaxes(1, 2)
    image = 1 - lines.reshape(-1, columns * (keys + 1))[:-1, :-1]
    return image.repeat(PIXELS, axis=0).repeat(PIXELS, axis=1)


def _table(examples: Sequence[Example]) -> str:
    """A line of Markdown for each, under the names of its fields."""
    names = list(type(examples[0]).model_fields)
    rows = [[_cell(value) for _, value in one] for one in examples]
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, ["---"] * len(names), *rows])


def _cell(value: str | tuple[str, ...] | float) -> str:
    """A text, the two of a pair, or a probability."""
    if isinstance(value, float):
        return percent(value)
    text = value if isinstance(value, str) else " / ".join(value)
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
