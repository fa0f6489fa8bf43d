"""What TensorBoard reads of a run."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.test_checkpoint import Killed, train
from tests.training.test_loop import PLAN, Impatient
from transferkit.errors import ConfigError
from transferkit.evaluation.results import ClassificationExample, EpochRecord, TranslationExample
from transferkit.training.tensorboard import FOLDER, PIXELS, heads_image, tracked
from transferkit.training.tracking import Listener

EXAMPLE = TranslationExample(source="a | b", target="c", predicted="d\ne")
RECORD = EpochRecord(
    epoch=1, step=20, learning_rate=0.1, train_loss=2.0, validation_loss=1.5, metrics={"bleu": 12.5}, seconds=1.0,
    best=True, examples=(EXAMPLE,),
)  # fmt: skip


# Of 2 heads, 2 queries and 3 keys.
WEIGHTS = np.array(
    [[[1.0, 0.0, 0.25], [0.5, 0.5, 0.0]], [[0.25, 0.5, 0.25], [0.0, 1.0, 0.0]]],
    dtype=np.float32,
)


class Heard(Listener):
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.lines: list[str] = []

    def stepped(self, step: int, loss: float, learning_rate: float) -> None:
        self.steps.append(step)

    def said(self, message: str) -> None:
        self.lines.append(message)


def events_of(run: Path) -> EventAccumulator:
    """What TensorBoard reads in a run folder."""
    return EventAccumulator(str(run / FOLDER)).Reload()


def tables_of(events: EventAccumulator) -> list[tuple[int, str]]:
    """The sample texts as (step, Markdown)."""
    (tag,) = [tag for tag in events.Tags()["tensors"] if "examples" in tag]
    return [(one.step, one.tensor_proto.string_val[0].decode()) for one in events.Tensors(tag)]


def test_curves_and_examples_are_written_and_the_listener_still_hears(tmp_path: Path) -> None:
    heard = Heard()
    with tracked(heard, tmp_path, is_wanted=True) as both:
        both.begun(0)
        both.stepped(10, 3.0, 0.05)
        both.stepped(20, 2.0, 0.1)
        both.epoch_ended(RECORD)
        both.said("done")
        for call in (both.planned, both.extended, both.advanced):
            call(3)
        both.started("run", 3)
        both.looked("cross/layer 1", WEIGHTS, 20)
    assert (heard.steps, heard.lines) == ([10, 20], ["done"])
    events = events_of(tmp_path)
    scalars = {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert scalars["train/loss"] == [(10, 3.0), (20, 2.0)]
    assert scalars["validation/bleu"] == [(20, 12.5)]
    assert scalars["validation/loss"] == [(20, 1.5)]
    assert [step for step, _ in scalars["train/learning_rate"]] == [10, 20]
    (image,) = events.Images("attention/cross/layer 1")
    assert (image.step, image.width, image.height) == (20, 3 * PIXELS, 5 * PIXELS)
    ((step, shown),) = tables_of(events)
    assert step == 20
    assert shown.splitlines() == ["| source | target | predicted |", "| --- | --- | --- |", "| a \\| b | c | d e |"]


def test_the_answers_of_a_classifier_have_a_probability(tmp_path: Path) -> None:
    one = ClassificationExample(text=("How?", "What | how?"), label="yes", predicted="no", probability=0.75)
    with tracked(Listener(), tmp_path, is_wanted=True) as both:
        both.begun(0)
        both.epoch_ended(RECORD.model_copy(update={"examples": (one,)}))
    ((_, shown),) = tables_of(events_of(tmp_path))
    heading, _, line = shown.splitlines()
    assert heading == "| text | label | predicted | probability |"
    assert line == "| How? / What \\| how? | yes | no | 75.0\u00a0% |"


def test_steps_that_are_taken_again_are_shown_once(tmp_path: Path) -> None:
    # Eight steps an epoch, a checkpoint after each, and a line after the tenth, the twentieth and the thirtieth step.
    plan = replace(PLAN, epochs=4, checkpoint_minutes=60.0)
    with pytest.raises(Killed), tracked(Impatient(64 + 40 + 32, Killed), tmp_path, is_wanted=True) as both:
        train(tmp_path, plan, both)
    assert [one.step for one in events_of(tmp_path).Scalars("train/loss")] == [10]
    # Files of events are read in the order of their names, which hold seconds.
    time.sleep(1)
    with tracked(Listener(), tmp_path, is_wanted=True) as both:
        train(tmp_path, plan, both)
    events = events_of(tmp_path)
    assert [one.step for one in events.Scalars("train/loss")] == [10, 20, 30]
    assert [one.step for one in events.Scalars("validation/loss")] == [8, 16, 24, 32]


def test_a_picture_of_attention_is_dark_where_the_weight_is_large() -> None:
    image = heads_image(WEIGHTS)
    at = slice(PIXELS // 2, None, PIXELS)
    expected = [[0.0, 1.0, 0.75], [0.5, 0.5, 1.0], [0.5, 0.5, 0.5], [0.75, 0.5, 0.75], [1.0, 0.0, 1.0]]
    np.testing.assert_allclose(image[at, at], expected, atol=1e-6)
    assert (image[:PIXELS, :PIXELS] == image[0, 0]).all(), "a weight is a square"


def test_heads_fill_a_picture_that_is_nearly_square() -> None:
    # Two lines of four heads, 4 x (8 + 1) - 1 by 2 x (16 + 1) - 1 weights; and five in two lines or columns.
    assert heads_image(np.zeros((8, 16, 8), np.float32)).shape == (33 * PIXELS, 35 * PIXELS)
    of_five = heads_image(np.ones((5, 3, 3), np.float32))
    assert of_five.shape in [(7 * PIXELS, 11 * PIXELS), (11 * PIXELS, 7 * PIXELS)]
    assert (of_five[-1, -1], of_five[0, 0]) == (1.0, 0.0), "there is no sixth"


def test_nothing_is_written_unless_it_is_wanted(tmp_path: Path) -> None:
    heard: Listener = Heard()
    with tracked(heard, tmp_path, is_wanted=False) as same:
        assert same is heard
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_way_to_get_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(ConfigError, match=r"pip install \"transferkit\[tensorboard\]\""),
        tracked(Listener(), tmp_path, is_wanted=True),
    ):
        pass
