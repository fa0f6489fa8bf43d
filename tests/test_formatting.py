"""Numbers as a reader meets them."""

from __future__ import annotations

import random

import pytest

from transferkit import formatting


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formatting.percent(0.8134), "81.3 %"),
        (formatting.percent(None), "\u2013"),
        (formatting.small_share(770 / 22_713_986), "< 0.01 %"),
        (formatting.small_share(1.0), "100 %"),
        (formatting.small_share(0.0254), "2.54 %"),
        (formatting.percent_interval((0.793, 0.832)), "79.3 \u2013 83.2"),
        (formatting.points(-0.0131), "\u22121.3"),
        (formatting.points(-0.0001), "0.0"),
        (formatting.points_interval((-0.004, 0.021)), "\u22120.4 to +2.1"),
        (formatting.score(-0.0123), "\u22120.012"),
        (formatting.score_interval((-0.01, 0.0582)), "\u22120.010 to 0.058"),
        (formatting.score_interval(None), "\u2013"),
        (formatting.points(0.0131, plus=False), "1.3"),
        (formatting.points(-0.0131, plus=False), "\u22121.3"),
        (formatting.metric("accuracy", 0.8134), "81.3 %"),
        (formatting.metric("mcc", 0.6268), "0.627"),
        (formatting.metric_interval("f1", (0.793, 0.832)), "79.3 \u2013 83.2"),
        (formatting.metric_interval("ece", (0.021, 0.058)), "0.021 to 0.058"),
        (formatting.metric_name("f1_macro", "pos"), "Macro F1"),
        (formatting.metric_name("recall", "pos"), "Recall of “pos”"),
        (formatting.metric_name("recall"), "Recall"),
        (formatting.metric_name("novel"), "novel"),
        (formatting.p_value(0.00001), "< 0.001"),
        (formatting.p_equation(0.00001), "p < 0.001"),
        (formatting.p_equation(0.0131), "p = 0.013"),
        (formatting.listed(["a"]), "a"),
        (formatting.listed(["a", "b", "c"]), "a, b and c"),
        (formatting.count(592_130), "592,130"),
        (formatting.count(151.5), "151.5"),
        (formatting.short_count(22_713_986), "22.7M"),
        (formatting.three_figures(32_857.1), "32,857"),
        (formatting.three_figures(0.05221), "0.0522"),
        (formatting.two_decimals(3.6), "3.60"),
        (formatting.two_decimals(27.971), "27.97"),
        (formatting.size(2_370_000), "2.37 MB"),
        (formatting.size(999_960), "1,000 kB"),
        (formatting.size(12), "12 B"),
        (formatting.seconds(4.214), "4.21 s"),
        (formatting.seconds(725), "12 min 5 s"),
        (formatting.seconds(7800), "2 h 10 min"),
        (formatting.ratio(38.36), "38\u00d7"),
        (formatting.ratio(0.686), "0.69\u00d7"),
        (formatting.ratio(1 / 38.36), "1/38"),
        (formatting.ratio(1.001), "the same"),
        (formatting.ratio(0.9951), "the same"),
        (formatting.ratio(1.0051), "1.01\u00d7"),
        (formatting.ratio(1.041), "1.04\u00d7"),
        (formatting.ratio(0.9949), "0.99\u00d7"),
        (formatting.ratio(1.5), "1.50\u00d7"),
        (formatting.ratio(3.84), "3.8\u00d7"),
        (formatting.ratio(9.97), "10\u00d7"),
        (formatting.ratio(0.0), "0\u00d7"),
        (formatting.moment("2025-03-14T09:26:53+00:00"), "2025-03-14 09:26 UTC"),
        (formatting.clip("a\tlong \x00 name\n", 8), "a long\u2026"),
        (formatting.one_line("a\nb\r\nc\rd\u2028e\tf \n"), "a b c d e\tf "),
        (formatting.one_line(""), ""),
        (formatting.plain([True, None, 3]), "yes, \u2013, 3"),
    ],
)
def test_written(written: str, expected: str) -> None:
    assert written.replace("\u00a0", " ") == expected


def test_metrics_stand_in_the_order_of_interest_and_unknown_ones_last() -> None:
    assert formatting.metrics_in_order(["novel", "ece", "accuracy", "ece"]) == ["accuracy", "ece", "novel"]


def test_names_whose_beginnings_are_alike_keep_what_tells_them_apart() -> None:
    names = [
        "full", "partial(patterns=**.linear2,learning_rate=0.002)",
        "bottleneck(targets=linear1+linear2,size=24,epochs=6)", "bottleneck(targets=query+key+value,size=24,epochs=5)",
    ]  # fmt: skip
    assert [formatting.clip_apart(names, 20)[name] for name in names] == [
        "full", "partial(patterns=**…", "bottleneck…epochs=6)", "bottleneck…epochs=5)"
    ]  # fmt: skip


def test_options_that_all_share_are_left_out_where_names_are_alike() -> None:
    names = [f"bottleneck(targets=linear1,size={size},learning_rate=0.005,epochs=6)" for size in (24, 48)]
    assert list(formatting.clip_apart(names, 20).values()) == ["bottleneck…size=24)", "bottleneck…size=48)"]
    pairs = [f"lora(rank={rank},alpha=8,targets=query,epochs={epochs})" for rank in (4, 8) for epochs in (2, 3)]
    assert list(formatting.clip_apart(pairs, 20).values()) == [
        "lora…rank=4…pochs=2)", "lora…rank=4…pochs=3)", "lora…rank=8…pochs=2)", "lora…rank=8…pochs=3)"
    ]  # fmt: skip


def test_names_that_print_alike_are_numbered() -> None:
    assert formatting.clip_apart(["very bad", "very  bad", "very bad (1)", "very bad"], 20) == {
        "very bad": "very bad (2)", "very  bad": "very bad (3)", "very bad (1)": "very bad (1)"
    }  # fmt: skip


def test_distinct_names_stay_distinct_and_short_whatever_they_are() -> None:
    draw = random.Random(0)
    for letters in ("ab", "a \t\0", "a(,=)…", "ab(,1)") * 100:
        names = ["".join(draw.choices(letters, k=draw.randrange(40))) for _ in range(draw.randrange(12))]
        short = formatting.clip_apart(names, 18)
        assert len(set(short.values())) == len(set(names))
        assert all(len(text) <= 18 for text in short.values())
