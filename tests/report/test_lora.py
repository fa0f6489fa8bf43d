"""What LoRA learned, on the page: numbers by kind of module, and a plane that is where geometry says."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from transferkit.evaluation.results import LoRAPlane, LoRAUpdates
from transferkit.report import page, palette
from transferkit.report.lora import BARS, LoRAView, lora_views
from transferkit.report.plane import plane_picture, project
from transferkit.report.views import gather

from . import samples
from .test_page import Reader


def views(**updates: LoRAUpdates) -> list[LoRAView]:
    """Of strategies by name, with one seed each."""
    strategies = gather(samples.compare([samples.run(name) for name in updates]))
    return lora_views(strategies, {(name, 0): found for name, found in updates.items()})


def section(reader: Reader) -> bool:
    return "lora" in [attributes["id"] for attributes in reader.all("section")]


def rendered(names: dict[tuple[str, int], LoRAUpdates]) -> Reader:
    comparison = samples.compare([samples.run(name, seed) for name, seed in names])
    updates = {key: found for key, found in names.items() if found.modules}
    return Reader(page.render(comparison, {}, [], updates))


NOTHING = LoRAUpdates(modules=(), plane=None)


def test_modules_are_grouped_by_kind_without_what_all_names_share() -> None:
    (view,) = views(lora=samples.lora_updates(layers=3))
    assert view.prefix == "net.layer."
    assert [(group.name, len(group.modules)) for group in view.groups] == [
        ("*.attention.query", 3),
        ("*.output.dense", 3),
    ]
    assert [view.short(module) for module in view.modules][:2] == ["0.attention.query", "1.attention.query"]
    first = view.groups[0]
    assert first.singular_values[0] == pytest.approx((0.3 + 0.5 + 0.7) / 3)
    assert view.largest_norm == max(module.relative_norm or 0 for module in view.modules)


def test_of_modules_in_one_layer_the_number_is_in_what_all_names_share() -> None:
    (view,) = views(lora=samples.lora_updates(layers=1))
    assert view.prefix == "net.layer.0."
    assert [group.name for group in view.groups] == ["attention.query", "output.dense"]
    assert [view.short(module) for module in view.modules] == ["attention.query", "output.dense"]


def test_a_model_without_numbered_layers_has_a_group_for_each_module() -> None:
    modules = tuple(
        module.model_copy(update={"name": name})
        for name, module in zip(("hidden", "output"), samples.lora_updates(layers=1).modules, strict=True)
    )
    (view,) = views(lora=LoRAUpdates(modules=modules, plane=None))
    assert (view.prefix, [group.name for group in view.groups]) == ("", ["hidden", "output"])


def test_the_page_says_the_numbers_of_each_kind_and_each_module() -> None:
    updates = samples.lora_updates()
    text = rendered({("lora", 0): updates}).text
    ranks = [module.effective_rank for module in updates.modules[::2]]
    assert f"{sum(ranks) / 3:.2f} {min(ranks):.2f} \u2013 {max(ranks):.2f}" in text
    shares = [module.relative_norm or 0 for module in updates.modules[1::2]]
    assert f"{100 * sum(shares) / 3:.2f} % {100 * min(shares):.2f} % \u2013 {100 * max(shares):.2f} %" in text
    for module in updates.modules:
        assert ", ".join(f"{value:.3g}" for value in module.singular_values) in text
    assert "The plane holds 99.2 % of the update" in text


def test_bars_are_as_high_as_their_numbers() -> None:
    reader = rendered({("lora", 0): samples.lora_updates()})
    labels = [attributes["aria-label"] for attributes in reader.all("span") if attributes.get("class") == "bars"]
    heights = [
        float(found[1])
        for attributes in reader.all("span")
        if (found := re.fullmatch(r"height: ([\d.]+)%", attributes.get("style", "")))
    ]
    assert len(labels) == 2 * 3
    assert len(heights) == sum(label.count(",") + 1 for label in labels)
    # Effective ranks are drawn on the rank, 4; the first kind's come first.
    written = [float(value) for value in labels[0].split(", ")]
    assert heights[:3] == pytest.approx([25 * value for value in written], abs=0.2)
    assert max(heights) == 100


def test_many_singular_values_are_cut_and_said_to_be() -> None:
    updates = samples.lora_updates(rank=64)
    (view,) = views(lora=updates)
    assert len(view.groups[0].singular_values) == BARS
    text = rendered({("lora", 0): updates}).text
    last = updates.modules[0].singular_values[BARS - 1]
    assert f"{last:.3g}, \u2026" in text


def test_of_each_strategy_the_first_seed_is_shown() -> None:
    strategies = gather(samples.compare([samples.run(name, seed) for seed in (3, 5) for name in ("lora", "full")]))
    updates = {("lora", 3): samples.lora_updates(rank=4), ("lora", 5): samples.lora_updates(rank=2)}
    (view,) = lora_views(strategies, updates)
    assert (view.strategy.name, view.seed, view.modules[0].rank) == ("lora", 3, 4)
    # A seed that failed has none, and the next stands for the strategy.
    (other,) = lora_views(strategies, {("lora", 5): updates["lora", 5]})
    assert other.seed == 5


def test_several_strategies_of_lora_have_a_heading_and_a_picture_each() -> None:
    reader = rendered({("lora", 0): samples.lora_updates(), ("lora(rank=2)", 0): samples.lora_updates(rank=2)})
    planes = [one["aria-label"] for one in reader.all("svg") if one.get("aria-label", "").startswith("Plane of")]
    assert len(planes) == 2
    assert "s = 2" in reader.text
    assert "s = 4" in reader.text


@pytest.mark.parametrize("names", [["full"], ["full", "bottleneck"]])
def test_other_strategies_have_no_such_section(names: list[str]) -> None:
    assert not section(rendered({(name, 0): NOTHING for name in names}))
    assert section(rendered({(name, 0): NOTHING for name in names} | {("lora", 0): samples.lora_updates()}))


def test_an_update_of_one_direction_has_numbers_and_no_picture() -> None:
    reader = rendered({("lora", 0): samples.lora_updates(rank=1)})
    assert section(reader)
    assert "u\u2081" not in reader.text


def test_no_update_and_no_relative_norm_are_shown_as_such() -> None:
    modules = tuple(
        module.model_copy(
            update={
                "singular_values": (0.0, 0.0), "effective_rank": 0.0, "update_norm": 0.0, "relative_norm": None,
            }
        )
        for module in samples.lora_updates(rank=2).modules
    )  # fmt: skip
    text = rendered({("lora", 0): LoRAUpdates(modules=modules, plane=None)}).text
    assert not re.search(r"\b(None|nan|inf)\b", text)
    assert "\u2013" in text


def test_projection_keeps_parallels_and_draws_the_third_axis_upright() -> None:
    origin, first, second, third, both = project(np.array([(0.0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)]))
    assert origin.tolist() == [0, 0]
    np.testing.assert_allclose(first + second, both)
    assert third[0] == pytest.approx(0)
    assert third[1] > 0
    # What is seen along the line of sight is shortened, nothing is lengthened.
    lengths = [math.hypot(*one) for one in (first, second, third)]
    assert max(lengths) <= 1
    assert sum(length**2 for length in lengths) == pytest.approx(2)


def test_the_picture_says_in_words_what_it_draws() -> None:
    picture = plane_picture(samples.lora_plane("net.layer.2.output"), palette.look(0), 0)
    assert picture.title == "Plane of the update of net.layer.2.output"
    spoken = picture.alternative.replace("\u00a0", " ")
    assert "For 24 random unit inputs the outputs of the update reach 0.0575 along u\u2081, 0.015 along" in spoken
    assert "and 0 along w" in spoken
    assert "reach 0.07 along w." in spoken
    assert spoken.endswith("The plane holds 99.2 % of the update's squared norm.")


def test_the_picture_follows_the_theme_and_is_the_same_each_time() -> None:
    plane, look = samples.lora_plane("output"), palette.look(2)
    picture = plane_picture(plane, look, 1)
    assert picture == plane_picture(plane, look, 1)
    assert look.colour.css in picture.markup
    themed = picture.markup
    for colour in palette.COLOURS:
        themed = themed.replace(colour.css, "")
    assert "#" not in themed.replace("#plane-1-", "")


@pytest.mark.parametrize("scale", [(1, 1e-6, 1), (1e-6, 1, 1e3), (1, 1, 0)])
def test_a_flat_or_a_steep_picture_is_drawn_too(scale: tuple[float, float, float]) -> None:
    plane = samples.lora_plane("output")
    x, y, z = scale
    points = tuple((a * x, b * y, c * z) for a, b, c in plane.weight)
    picture = plane_picture(
        LoRAPlane(module="output", share=1, update=((x, y, 0.0), (-x, -y, 0.0)), weight=points), palette.look(0), 0
    )
    assert "nan" not in picture.markup
