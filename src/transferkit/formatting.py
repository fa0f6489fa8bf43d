"""Numbers as people read them: one form for the page, the terminal and the sentences of a verdict.

A value that was not recorded is a dash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from itertools import count as counting
from typing import Any

Interval = tuple[float, float]

# In the order of a reader's interest.
METRIC_NAMES = {
    "accuracy": "Accuracy",
    "f1_macro": "Macro F1",
    "f1": "F1",
    "mcc": "MCC",
    "log_loss": "Log loss",
    "ece": "ECE",
    "precision": "Precision",
    "recall": "Recall",
    "precision_macro": "Macro precision",
    "recall_macro": "Macro recall",
    "f1_weighted": "Weighted F1",
    "precision_weighted": "Weighted precision",
    "recall_weighted": "Weighted recall",
    "bleu": "BLEU",
    "chrf": "chrF",
    "perplexity": "Perplexity",
}
# What is not a share of the rows and so is written as a plain number.
_PLAIN_METRICS = ("mcc", "log_loss", "ece")
# What goes up to 100, or beyond, and is written with one decimal.
_LARGE_METRICS = ("bleu", "chrf", "perplexity")
# What speaks of one class only.
_ONE_CLASS_METRICS = ("f1", "precision", "recall")

MISSING = "\u2013"
# Between a number and its unit, so that a line never breaks there.
_GAP = "\u00a0"
_TIMES = "\u00d7"
_MINUS = "\u2212"


def percent(share: float | None, digits: int = 1) -> str:
    """0.8134 as '81.3 %'."""
    return MISSING if share is None else f"{100 * share:.{digits}f}{_GAP}%"


def small_share(share: float | None) -> str:
    """A share that may be tiny or whole: '2.54 %', '< 0.01 %', '100 %'."""
    if share is not None and 0 < share < 0.00005:
        return f"< 0.01{_GAP}%"
    return percent(share, 0 if share == 1 else 2)


def percent_interval(interval: Interval | None) -> str:
    """(0.793, 0.832) in percent, joined by a dash."""
    return MISSING if interval is None else f"{100 * interval[0]:.1f} {MISSING} {100 * interval[1]:.1f}"


def points(difference: float | None, plus: bool = True) -> str:
    """A difference of shares in percentage points: 0.013 as '+1.3', or as '1.3' where a word gives its sense."""
    return MISSING if difference is None else signed(f"{100 * difference:{'+' if plus else ''}.1f}")


def points_interval(interval: Interval) -> str:
    """The interval of a difference: (-0.004, 0.021) as '-0.4 to +2.1' with a true minus sign."""
    return f"{points(interval[0])} to {points(interval[1])}"


def score(value: float | None) -> str:
    """A score that is not a share, such as MCC or a loss."""
    return MISSING if value is None else signed(f"{value:.3f}")


def score_interval(interval: Interval | None) -> str:
    """The interval of such a score: '0.021 to 0.058'."""
    return MISSING if interval is None else f"{score(interval[0])} to {score(interval[1])}"


def metric(name: str, value: float | None) -> str:
    """A metric in its own unit: a share in percent, others as plain numbers."""
    if name in _LARGE_METRICS and value is not None:
        return f"{value:.1f}"
    return score(value) if name in _PLAIN_METRICS else percent(value)


def metric_interval(name: str, interval: Interval | None) -> str:
    """The interval of a metric, in the metric's own unit."""
    if name in _LARGE_METRICS and interval is not None:
        return f"{interval[0]:.1f} {MISSING} {interval[1]:.1f}"
    return score_interval(interval) if name in _PLAIN_METRICS else percent_interval(interval)


def metric_name(name: str, positive: str | None = None) -> str:
    """The heading of a metric; what speaks of the `positive` class alone says so."""
    heading = METRIC_NAMES.get(name, name)
    return f"{heading} of “{positive}”" if positive is not None and name in _ONE_CLASS_METRICS else heading


def metrics_in_order(names: Iterable[str]) -> list[str]:
    """The known metrics in the order of a reader's interest, then the others as they come."""
    present = list(dict.fromkeys(names))
    return [name for name in METRIC_NAMES if name in present] + [n for n in present if n not in METRIC_NAMES]


def p_value(value: float) -> str:
    """A p value, never written as zero: '< 0.001', '0.013'."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_equation(value: float) -> str:
    """A p value inside a sentence: 'p < 0.001', 'p = 0.013'."""
    return f"p {'' if value < 0.001 else '= '}{p_value(value)}"


def count(value: float | None) -> str:
    """592130 as '592,130'; a mean that is not whole keeps one decimal."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def short_count(value: float) -> str:
    """592130 as '592K', for axes."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= factor:
            return f"{three_figures(value / factor)}{unit}"
    return three_figures(value)


def three_figures(value: float) -> str:
    """Three significant figures, and no digit of a larger number hidden: '0.0522', '8.32', '32,857'."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def two_decimals(value: float) -> str:
    """A number beside others of its kind, such as an effective rank: '3.60'."""
    return f"{value:,.2f}"


def size(value: float | None) -> str:
    """Bytes in decimal units: 2370000 as '2.37 MB'."""
    if value is None:
        return MISSING
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{three_figures(value / factor)}{_GAP}{unit}"
    return f"{value:.0f}{_GAP}B"


def seconds(value: float | None) -> str:
    """A duration: '4.2 s', '203 s', '12 min 5 s', '2 h 10 min'."""
    if value is None:
        return MISSING
    if value < 600:
        return f"{three_figures(value)}{_GAP}s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}{_GAP}min {rest}{_GAP}s"
    return f"{minutes // 60}{_GAP}h {minutes % 60}{_GAP}min"


def ratio(value: float | None) -> str:
    """How many times as much: 38 times, 1.04 times, 0.69 times, '1/38'; 'the same' within half a percent."""
    if value is None:
        return MISSING
    if abs(value - 1) < 0.005:
        return "the same"
    if 0 < value < 0.1:
        return f"1/{1 / value:,.0f}"
    if 0 < value < 2:
        # Two figures would write 4 % more as no more.
        return f"{value:.2f}{_TIMES}"
    return (f"{value:,.0f}" if value >= 10 else f"{value:.2g}") + _TIMES


def listed(names: Iterable[str]) -> str:
    """Names in a sentence: 'a, b and c'."""
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


def moment(iso: str) -> str:
    """'2025-03-14T09:26:53Z' as '2025-03-14 09:26 UTC'."""
    return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M UTC")


def one_line(text: str) -> str:
    """The text with a space for each line break, whichever it is; one at the end is left out."""
    return " ".join(text.splitlines())


def clip(text: str, most: int) -> str:
    """One printable line of at most `most` characters; what is cut shows as an ellipsis."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def clip_apart(names: Iterable[str], most: int) -> dict[str, str]:
    """Each distinct name clipped, and no two alike: where the beginnings are, what tells the names apart is kept.

    Of names such as `lora(rank=4,alpha=8)` the options that all with that strategy share are left out, and what is
    still too long is cut in its middle. Names that all this leaves alike are numbered.
    """
    short: dict[str, str] = {}
    left = _settle(short, {name: clip(name, most) for name in names})
    lines = _without_shared_options(left)
    # Cut at the end, then in the middle, then farther and farther from it.
    for tail in (0, *sorted(range(1, most - 1), key=lambda tail: abs(most - 2 - 2 * tail))):
        left = _settle(short, {name: _clip_before(lines[name], tail, most) for name in left})
    marks = (f" ({number})" for number in counting(1))
    for name in left:
        numbered = (f"{clip(name, most - len(mark))}{mark}" for mark in marks)
        short[name] = next(text for text in numbered if text not in short.values())
    return short


def _settle(short: dict[str, str], texts: dict[str, str]) -> list[str]:
    """Put those `texts` that no other equals into `short`, and return the names of the others."""
    times = Counter([*short.values(), *texts.values()])
    short.update({name: text for name, text in texts.items() if times[text] == 1})
    return [name for name, text in texts.items() if times[text] > 1]


def _without_shared_options(names: Iterable[str]) -> dict[str, str]:
    """Each of the `names` without the options that all of the same strategy have, as 'lora…rank=4)'."""
    opened = {name: name.removesuffix(")").partition("(") for name in names}
    options = {name: (strategy, listing.split(",")) for name, (strategy, _, listing) in opened.items()}
    lines = {}
    for name, (strategy, own) in options.items():
        shared = set.intersection(*(set(others) for other, others in options.values() if other == strategy))
        kept = [option for option in own if option not in shared]
        lines[name] = f"{strategy}…{','.join(kept)})" if 0 < len(kept) < len(own) else name
    return lines


def _clip_before(text: str, tail: int, most: int) -> str:
    """One printable line of at most `most` characters, cut before the last `tail`."""
    line = clip(text, len(text))
    if len(line) <= most:
        return line
    return f"{line[: most - 1 - tail].rstrip(' …')}…{line[len(line) - tail :].lstrip()}"


def plain(value: Any) -> str:
    """A setting as a reader would type it; nothing is a dash."""
    if value is None or value == [] or value == {}:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    return str(value)


def signed(text: str) -> str:
    """A number with a true minus sign, and no sign on a zero."""
    if not text.strip("+-0."):
        return text.lstrip("+-")
    return text.replace("-", _MINUS)
