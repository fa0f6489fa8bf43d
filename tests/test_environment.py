"""What a result was made with, and how much memory it took."""

from __future__ import annotations

import json
import time

import torch

from transferkit.environment import PeakMemory, describe


def test_the_description_is_json_and_names_what_matters() -> None:
    description = json.loads(json.dumps(describe()))
    assert description["packages"]["torch"] == torch.__version__
    assert description["cores"] >= 1
    assert description["memory_bytes"] > 10**8
    assert description["processor"]


def test_peak_memory_sees_what_is_freed_again_and_not_what_came_before() -> None:
    with PeakMemory() as idle:
        time.sleep(0.1)
    with PeakMemory() as busy:
        block = torch.ones(50_000_000)
        time.sleep(0.2)
        del block
    with PeakMemory() as after:
        time.sleep(0.1)
    assert busy.bytes - idle.bytes > 1.5e8
    assert busy.bytes - after.bytes > 1.5e8
