"""What tests of several inference forms share."""

from __future__ import annotations

import pytest

from transferkit.models import lean_layers


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def weights_in_either_order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products read packed weights, and as where torch cannot pack them."""
    monkeypatch.setattr(lean_layers, "_packs", lambda _precision: request.param)
