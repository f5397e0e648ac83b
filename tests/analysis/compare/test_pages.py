"""Pages of finished comparisons: verdicts, curves of scaling, and several corpora."""

import json
import re
from xml.etree import ElementTree

import pytest

from analysis.compare.page import differences as page_differences
from analysis.compare.page.content import make_content
from analysis.compare.page.ladder import make_ladder
from analysis.compare.page.renderers import render_html, render_json, render_markdown
from analysis.compare.page.searches import best_of_k_chart, sampling_method
from analysis.compare.results import ComparisonResults
from helpers.small_comparison import (
    BUDGETS,
    CROSSING,
    LAWS,
    NUM_TRIALS,
    make_comparison,
)
from sweeps.search_space import (
    grid,
    product,
    quasi_random,
    random,
    seeds,
    uniform,
    zipped,
)
from utils.errors import UserError

RANGES = {"model.dropout": uniform(0, 1)}
RATES = {"optim.lr": uniform(0, 1)}


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    folder = make_comparison(tmp_path_factory.mktemp("ladder") / "a")
    return ComparisonResults.from_folder(folder)


def page_of(results, output):
    content = make_content(results, output)
    page = render_html(content)
    return content, ElementTree.fromstring(page.replace("<!DOCTYPE html>", ""))


def text_of(element):
    return " ".join("".join(element.itertext()).split())


def test_each_budget_has_a_verdict_and_the_crossing_is_found(ladder, tmp_path):
    _, tree = page_of([ladder], tmp_path / "page.html")
    sentences = [text_of(one) for one in tree.find(".//ul[@class='verdict']")]
    *sentences, crossing = sentences
    assert len(sentences) == len(BUDGETS)
    assert "rnn is ahead of transformer by" in sentences[0]
    assert "transformer is ahead of rnn by" in sentences[-1]
    assert "On toy at 1e+12 FLOPs of training" in sentences[0]
    found = float(re.search(r"crossing at (\S+)", crossing)[1])
    assert found == pytest.approx(CROSSING, rel=0.2)
    headings = [text_of(heading) for heading in tree.iter("h2")]
    assert "Scaling" in headings
    assert "Expected best of k trials" in headings
    tables = tree.findall(".//table[@class='numbers']")
    rows = [text_of(row) for table in tables for row in table.iter("tr")]
    assert sum("rnn minus transformer" in row for row in rows) == len(BUDGETS)


def test_fitted_exponents_are_those_of_the_losses(ladder):
    fits = {row["model"]: row for row in make_ladder(ladder).fits}
    for model, (limit, _, exponent) in LAWS.items():
        low, high = map(float, fits[model]["95% interval of alpha"].split(" to "))
        assert 0.9 * low <= exponent <= 1.1 * high
        assert float(fits[model]["E"]) == pytest.approx(limit, abs=0.3)


def test_the_context_of_an_architecture_is_no_other_protocol(ladder):
    cards = [model.cards[0] for model in ladder.budgets[0].models]
    windows = [card.settings.get("attention_window") for card in cards]
    assert windows == [10, None]  # and yet the sentences above compare them


def test_the_best_of_all_trials_is_the_best_trial(ladder):
    budget = ladder.budgets[0]
    chart, note = best_of_k_chart(budget, ladder)
    assert "without replacement" in note
    assert [len(one.points) for one in chart.series] == [NUM_TRIALS] * 2
    for one in chart.series:
        ys = [y for _, y in one.points]
        assert ys == sorted(ys)  # a lower loss is lower on the chart


@pytest.mark.parametrize(
    ("points", "method"),
    [
        (random(RANGES), "random"),
        (zipped(quasi_random(RANGES), random(RATES)), "quasi_random"),
        (product(random(RANGES), seeds(2)), "listed"),
        (grid({"seed": [1, 2]}), "listed"),
    ],
)
def test_points_of_lists_are_no_sample_of_a_search(points, method):
    assert sampling_method(points.to_dict()) == method


def test_two_corpora_have_profiles_and_their_own_parts(tmp_path):
    folders = [
        make_comparison(tmp_path / "a", corpus="one <b>", budgets=BUDGETS[:1]),
        make_comparison(tmp_path / "b", corpus="two", budgets=BUDGETS[:1], better=0.5),
    ]
    results = [ComparisonResults.from_folder(folder) for folder in folders]
    content, tree = page_of(results, tmp_path / "page.html")
    assert content.title == "rnn, transformer on one <b>, two"
    headings = [text_of(heading) for heading in tree.iter("h2")]
    assert {"Performance profiles", "Scores, one <b>", "Scores, two"} <= set(headings)
    assert "Scaling, two" not in headings
    markdown = render_markdown(content)
    assert "&lt;b&gt;" in markdown
    document = json.loads(render_json(content, results))
    assert [one["corpus"] for one in document["comparisons"]] == ["one <b>", "two"]
    assert all(one["verdict"] for one in document["comparisons"])
    with pytest.raises(UserError, match="each --workdir needs another corpus"):
        make_content([results[0], results[0]], tmp_path / "page.html")


def test_an_unfinished_comparison_says_so(tmp_path):
    folder = make_comparison(tmp_path / "a", budgets=BUDGETS[:2])
    for card in (folder / "4e+12").rglob("eval/*.json"):
        card.unlink()
    results = ComparisonResults.from_folder(folder)
    assert len(results.budgets) == 1
    content = make_content([results], tmp_path / "page.html")
    assert "is incomplete" in content.warnings[0]
    for card in folder.rglob("eval/*.json"):
        card.unlink()
    with pytest.raises(UserError, match="no budget at which all architectures"):
        ComparisonResults.from_folder(folder)


def test_the_smallest_difference_of_interest_is_that_of_the_verdicts(
    ladder, tmp_path, monkeypatch
):
    asked = []

    def format_verdicts(differences, metric, *, context, smallest):
        asked.append(smallest)
        return ["a verdict"]

    monkeypatch.setattr(page_differences, "format_verdicts", format_verdicts)
    make_content([ladder], tmp_path / "page.html")
    make_content([ladder], tmp_path / "page.html", 0.5)
    assert asked == [None] * len(BUDGETS) + [0.5] * len(BUDGETS)


def test_pages_of_knock_outs_are_linked(tmp_path):
    folder = make_comparison(tmp_path / "a", budgets=BUDGETS[:1])
    page = (
        folder / "1e+12" / "final" / "rnn" / "trials" / "0000" / "k" / "knockout.html"
    )
    page.parent.mkdir()
    page.write_text("")
    results = ComparisonResults.from_folder(folder)
    content = make_content([results], folder / "report.html")
    [(link, text)] = content.corpora[0].knockouts
    assert link == "1e%2B12/final/rnn/trials/0000/k/knockout.html"
    assert text == "1e+12/final/rnn/trials/0000/k"
