"""What a reader finds on the page, and what must never be on it."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from tests.comparison import made_up
from transferkit.comparison.conclusion import conclude
from transferkit.config import labels_of
from transferkit.evaluation.results import Comparison, Mistake, RunResult
from transferkit.report import page
from transferkit.report.views import gather
from transferkit.settings import parse_strategy

from . import samples

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}


class Reader(HTMLParser):
    """The elements and the text of a page; a tag that closes what was not open is an error."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def render(comparison: Comparison, mistakes: list[Mistake]) -> str:
    updates = {
        (result.strategy, result.seed): samples.lora_updates()
        for result in comparison.results
        if result.strategy.startswith("lora") and result.status == "finished"
    }
    return page.render(comparison, samples.histories(list(comparison.results)), mistakes, updates)


def seeds_of_two_classes() -> Comparison:
    return samples.compare([samples.run(name, seed) for seed in (0, 1) for name in ("full", "lora", "scratch")])


def ten_classes_with_trouble() -> Comparison:
    labels = samples.TEN_CLASSES
    runs = [samples.run(name, 0, labels, collapsed=name == "scratch") for name in ("lora", "full", "scratch")]
    return samples.compare([*runs, samples.failed("peft:ia3", "No module <ffn> matches.")], labels)


def hostile() -> Comparison:
    labels = (samples.HOSTILE, 'b"<i>')
    names = ("lora(rank=4)", samples.HOSTILE, "感情 \x0b $x$")
    return samples.compare([samples.run(name, 0, labels) for name in names], labels)


def single() -> Comparison:
    return samples.compare([samples.run("lora")])


CASES = {
    "seeds": seeds_of_two_classes,
    "trouble": ten_classes_with_trouble,
    "hostile": hostile,
    "single": single,
    "two seeds of one strategy": lambda: samples.compare([samples.run("lora"), samples.run("lora", 1)]),
    "all collapsed": lambda: samples.compare([samples.run(n, collapsed=True) for n in ("lora", "full")]),
    "only a failure": lambda: samples.compare([samples.failed("lora", "boom")]),
}


@cache
def rendered(case: str) -> str:
    comparison = CASES[case]()
    scored = list(dict.fromkeys(result.strategy for result in comparison.results if result.metrics))
    return render(comparison, samples.mistakes(scored, comparison.data.labels) if scored else [])


@cache
def read(case: str) -> Reader:
    return Reader(rendered(case))


@pytest.fixture(params=CASES)
def any_page(request: pytest.FixtureRequest) -> str:
    return rendered(request.param)


def test_loads_nothing(any_page: str) -> None:
    reader = Reader(any_page)
    loads = [value for _, attributes in reader.elements for key, value in attributes.items() if key in ("src", "href")]
    assert all(value.startswith("#") or value == "data:," for value in loads)
    assert "http://" not in any_page
    assert "https://" not in any_page
    assert "@import" not in any_page
    assert not re.search(r"url\((?!#)", any_page)


def test_ids_are_unique_and_references_meet(any_page: str) -> None:
    elements = Reader(any_page).elements
    ids = Counter(attributes["id"] for _, attributes in elements if "id" in attributes)
    assert {name for name, times in ids.items() if times > 1} == set()
    wanted = {attributes["href"][1:] for _, attributes in elements if attributes.get("href", "").startswith("#")}
    wanted |= {attributes["aria-labelledby"] for _, attributes in elements if "aria-labelledby" in attributes}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", any_page))
    assert wanted <= set(ids)


def test_headings_do_not_skip_a_level(any_page: str) -> None:
    levels = [int(tag[1]) for tag, _ in Reader(any_page).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_tables_and_figures_are_accessible(any_page: str) -> None:
    reader = Reader(any_page)
    assert all(attributes.get("scope") in ("col", "row") for attributes in reader.all("th"))
    assert len(reader.all("caption")) == len(reader.all("table"))
    figures = [attributes for attributes in reader.all("svg") if attributes]
    assert len(figures) == len(reader.all("figure"))
    assert all(attributes["role"] == "img" and re.search(r"\d", attributes["aria-label"]) for attributes in figures)


def test_no_value_shows_as_python(any_page: str) -> None:
    assert not re.search(r"\b(None|nan|inf|False|Undefined)\b", Reader(any_page).text)


def test_same_input_same_bytes() -> None:
    comparison = seeds_of_two_classes()
    assert render(comparison, []) == render(comparison, [])


def test_data_never_becomes_markup() -> None:
    html, reader = rendered("hostile"), read("hostile")
    assert len(reader.all("script")) == 1
    assert not reader.all("i")
    assert "<script>alert" not in html
    assert samples.HOSTILE in reader.text


@pytest.mark.parametrize("strategies", [("full", "lora"), ("lora",)])
def test_every_label_is_laid_out_in_the_direction_of_its_own_script(strategies: tuple[str, ...]) -> None:
    labels = ("\u05d8\u05d5\u05d1!", "\u0633\u064a\u0626!")
    comparison = samples.compare([samples.run(name, 0, labels) for name in strategies], labels)
    html = render(comparison, samples.mistakes(list(strategies), labels))
    tags = re.findall(rf"<([^<>]*)>\s*(?:{'|'.join(labels)})\s*<", html)
    assert {tag.split()[0] for tag in tags} == {"b", "option", "span", "th"}
    assert [tag for tag in tags if 'dir="auto"' not in tag] == []
    # None stands bare behind other elements.
    assert not re.search(rf"</\w+>\s*(?:{'|'.join(labels)})", html)


def test_dollar_signs_in_labels_are_not_mathematics() -> None:
    figures = re.findall(r"<svg.*?</svg>", rendered("hostile"), flags=re.DOTALL)
    assert any("$x$</text>" in figure for figure in figures)


def test_what_was_adapted_is_the_backbone_or_in_pretraining_a_new_encoder() -> None:
    assert "backbone minilm" in read("single").text
    comparison = single()
    encoder = {"architecture": "averaging", "vectors": "glove.6B.100d.txt"}
    pretrained = comparison.model_copy(update={"config": comparison.config | {"encoder": encoder}})
    text = Reader(render(pretrained, [])).text
    assert "new encoder averaging on glove.6B.100d.txt" in text
    assert "minilm" not in text


def test_verdict_comes_first() -> None:
    comparison = seeds_of_two_classes()
    text = read("seeds").text
    assert text.index(comparison.verdict.reason) < text.index("Macro F1")


def test_numbers_of_the_table_are_those_of_the_input() -> None:
    comparison = seeds_of_two_classes()
    text = read("seeds").text
    for summary in comparison.summaries:
        low, high = summary.accuracy_interval
        assert f"{100 * summary.accuracy_mean:.1f} % {100 * low:.1f} \u2013 {100 * high:.1f}" in text
        assert f"{summary.trainable_parameters:,}" in text
    for pair in comparison.pairs:
        assert f"{pair.a} against {pair.b}" in text
    assert f"{100 * comparison.baseline['accuracy']:.1f} %" in text


def test_the_majority_is_that_of_the_rows_which_are_scored() -> None:
    assert "Always answering the most frequent class of the test rows." in read("seeds").text


def test_each_seed_is_shown() -> None:
    comparison = seeds_of_two_classes()
    text = read("seeds").text
    for result in comparison.results:
        assert result.run in text
        assert f"{100 * result.metrics['accuracy']:.1f} %" in text


def test_one_pair_needs_no_correction() -> None:
    assert "p below 0.05 after Holm\u2019s correction over all 3 pairs; not told apart" in read("seeds").text
    one = samples.compare([samples.run(name) for name in ("full", "lora")])
    assert "p below 0.05; not told apart" in Reader(render(one, [])).text


def test_collapse_and_failure_are_said_in_words() -> None:
    text = read("trouble").text
    assert "Collapsed: scratch, seed 0. All 1,500 test rows are answered 'travel'." in text
    assert "Failed: peft:ia3, seed 0. No module <ffn> matches." in text
    assert "scratch collapsed" in text
    assert "peft:ia3 failed" in text


def test_published_figures_stand_in_the_table_of_the_strategy() -> None:
    assert "Published" not in read("seeds").text
    runs = [samples.run("lora(rank=4)"), samples.run("full")]
    comparison = samples.compare(runs).model_copy(update={"config": {"published": {"lora": 0.897, "scratch": 0.5}}})
    text = Reader(render(comparison, [])).text
    assert "Published" in text
    assert "89.7" in text
    assert "50.0 %" not in text.replace("\u00a0", " ").partition("majority baseline")[0]
    several = samples.compare([*runs, samples.run("lora(rank=8)")]).model_copy(update={"config": comparison.config})
    assert "Published" not in Reader(render(several, [])).text, "of which of the two is not known"


def test_a_published_figure_with_options_is_of_that_strategy_alone() -> None:
    both = ["lora(rank=4,targets=query+value)", "lora(rank=8)"]
    published = {"lora(targets=query+value, rank=4)": 0.897, "lora(rank=16)": 0.123, "lora": 0.456}

    def shown(strategies: list[str]) -> list[float | None]:
        specs = [parse_strategy(name) for name in strategies]
        runs = [samples.run(name) for name in labels_of(specs)]
        config = {"published": published, "strategies": [spec.model_dump() for spec in specs]}
        views = {
            view.name: view.published for view in gather(samples.compare(runs).model_copy(update={"config": config}))
        }
        return [views[name] for name in labels_of(specs)]

    assert shown(both) == [0.897, None]
    assert shown(both[:1]) == [0.897]
    assert shown(both[1:]) == [0.456]


def test_collapsed_strategies_do_not_decide_the_cost_axes() -> None:
    labels = [attributes["aria-label"] for attributes in read("trouble").all("svg")]
    costs = [label for label in labels if label.startswith("Accuracy against")]
    assert len(costs) == 3
    assert not any("scratch" in label for label in costs)


def test_confusion_counts_are_summed_over_seeds() -> None:
    text = read("seeds").text
    cells = [run.scores.confusion for run in (samples.run("full", 0), samples.run("full", 1)) if run.scores]
    assert len(cells) == 2
    for row in range(2):
        assert f" {cells[0][row][0] + cells[1][row][0]} " in text


def test_each_scored_strategy_has_a_reliability_diagram() -> None:
    labels = [attributes["aria-label"] for attributes in read("trouble").all("svg") if attributes]
    drawn = [label.partition(".")[0] for label in labels if label.startswith("Calibration of")]
    assert sorted(drawn) == ["Calibration of full", "Calibration of lora", "Calibration of scratch"]


def test_results_without_reliability_have_no_calibration_section() -> None:
    run = samples.run("lora")
    assert run.scores is not None
    bare = run.model_copy(update={"scores": run.scores.model_copy(update={"reliability": ()})})
    reader = Reader(render(samples.compare([bare]), []))
    assert "calibration" not in [attributes["id"] for attributes in reader.all("section")]


def test_single_run_has_no_words_of_comparison() -> None:
    reader = read("single")
    for word in (
        "strategies",
        "Recommended",
        "Comparison",
        "Pairwise",
        "told apart",
        "front",
        "over all seeds",
    ):
        assert word not in reader.text
    assert "81.3 % of the test rows are answered rightly" in reader.text
    assert [svg["aria-label"].split(".")[0] for svg in reader.all("svg") if svg] == [
        "lora",
        "Plane of the update of net",
        "Calibration of lora",
        "Length of the training rows in tokens",
    ]


def test_sections_without_content_are_left_out() -> None:
    reader = read("only a failure")
    sections = [attributes["id"] for attributes in reader.all("section")]
    assert sections == ["verdict", "data", "setup"]
    links = [attributes["href"] for attributes in reader.all("a")]
    assert links == [f"#{name}" for name in sections]


def test_interrupted_run_shows_what_was_reached() -> None:
    halted = samples.run("lora").model_copy(update={"status": "interrupted"})
    text = Reader(render(samples.compare([halted]), [])).text
    assert "Interrupted: lora, seed 0." in text
    assert "81.3" in text


@pytest.mark.parametrize("results", [[], [samples.failed("lora", "no memory")]])
def test_a_comparison_without_a_score_says_so(results: list[RunResult]) -> None:
    assert "There are no scores" in Reader(render(samples.compare(results), [])).text


def of_which_full_failed_once(*others: str) -> Comparison:
    right = {name: made_up.answers(a) for name, a in (("full", 0.95), ("lora", 0.8), ("linear-probe", 0.7))}
    predictions = {"full": {0: right["full"]}, **{name: dict.fromkeys(range(2), right[name]) for name in others}}
    runs = [made_up.finished(name, seed, one) for name, of in predictions.items() for seed, one in of.items()]
    failed = RunResult(strategy="full", seed=1, run="runs/full-seed1", status="failed", error="nan loss")
    logits = {name: {seed: np.eye(2)[one] for seed, one in of.items()} for name, of in predictions.items()}
    return conclude([*runs, failed], logits, made_up.LABELS, 0.01, **made_up.CIRCUMSTANCES)


def test_a_strategy_that_is_left_out_is_called_so_and_is_in_no_comparison_of_costs() -> None:
    comparison = of_which_full_failed_once("lora", "linear-probe")
    full = next(strategy for strategy in gather(comparison) if strategy.name == "full")
    assert full.flags == ("left out", "failed in 1 of 2 runs")
    labels = [attributes.get("aria-label", "") for _, attributes in Reader(render(comparison, [])).elements]
    costs = [label for label in labels if "on the front" in label]
    assert costs
    assert not any("full" in text for text in costs)


def test_the_only_strategy_has_no_figures_beside_the_verdict_where_it_is_left_out() -> None:
    text = Reader(render(of_which_full_failed_once(), [])).text
    assert "No strategy is recommended" in text
    assert "Nothing to recommend. Left out, as at least half of the runs failed" in text
    assert "answered rightly" not in text


def test_mistakes_are_all_there_without_the_script() -> None:
    mistakes = samples.mistakes(["full", "lora", "scratch"])
    reader = read("seeds")
    items = [attributes for attributes in reader.all("li") if "data-wrong" in attributes]
    assert len(items) == len(mistakes)
    assert not any("hidden" in attributes for attributes in items)
    assert all("hidden" in attributes for attributes in reader.all("form"))
    for item, mistake in zip(items, mistakes, strict=True):
        wrong = {name for name, (answer, _) in mistake.answers.items() if answer != mistake.label}
        assert set(json.loads(item["data-wrong"])) == wrong


def test_the_choices_of_the_filter_are_the_names_letter_by_letter() -> None:
    """A browser collapses blanks in the text of an option; its value it takes as it is."""
    mistakes = [
        mistake.model_copy(update={"label": label})
        for mistake, label in zip(samples.mistakes(["full", "lora"]), ("very  bad", " good"), strict=False)
    ]
    reader = Reader(render(seeds_of_two_classes(), mistakes))
    options = [attributes["value"] for attributes in reader.all("option")]
    labels = [attributes["data-label"] for attributes in reader.all("li") if "data-label" in attributes]
    assert labels == ["very  bad", " good"]
    assert options == ["", "full", "lora", "scratch", "", *labels]


def test_both_texts_of_a_pair_are_shown() -> None:
    mistake = Mistake(row=0, text=("left text", "right text"), label="neg", answers={"lora": ("pos", 0.97)})
    text = Reader(render(single(), [mistake])).text
    assert "left text right text" in text
    assert "wrong pos 97 %" in text
