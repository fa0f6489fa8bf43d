"""Attention maps as files: one picture for each layer, and one for each of its heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transferkit.environment import write_file
from transferkit.generation.retrace import Retraced
from transferkit.models.translator import KINDS
from transferkit.report.attention import attention_map, head_picture, layer_picture


def draw_attention(sentences: Sequence[Retraced], folder: Path) -> None:
    """Write SVG files such as `cross-layer2.svg` and `cross-layer2-head5.svg`.

    Those of several sentences have folders of their own: `1/`, `2/`...
    """
    for number, one in enumerate(sentences, start=1):
        place = folder / str(number) if len(sentences) > 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            for layer in range(len(getattr(one.attentions, kind))):
                shown = attention_map(one.attentions, kind, layer, one.source, one.given)
                name = f"{kind}-layer{layer + 1}"
                write_file(place / f"{name}.svg", str(layer_picture(shown).markup))
                for head in range(len(shown.weights)):
                    write_file(place / f"{name}-head{head + 1}.svg", str(head_picture(shown, head).markup))
