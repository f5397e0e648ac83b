"""Tests of the HTML page: samples, curves and heat maps of runs."""

import pytest

from analysis.report.charts import round_ticks
from analysis.report.comparison import take_evenly
from analysis.report.renderers import render_html
from analysis.report.runs import read_runs
from analysis.report.tables import learning_curves
from helpers.small_reports import (
    ATTENTION,
    SAMPLES,
    TRANSLATION,
    compare,
    content_of,
    make_run,
    page_of,
    text_of,
    two_runs,
)


@pytest.fixture
def two(tmp_path):
    return two_runs(tmp_path)


def test_samples_prefer_disputed_sentences_and_keep_their_order(tmp_path):
    lines = [
        {"source": f"{i}", "reference": f"r{i}", "hypothesis": f"r{i}"}
        for i in range(40)
    ]
    other = [{**line, "hypothesis": "?"} for line in lines[:20]] + lines[20:]
    one = make_run(tmp_path / "a", samples=lines)
    two = make_run(tmp_path / "b", "transformer", samples=other)
    samples = compare(one, two).samples
    assert len(samples) == 12
    disputed = [sample for sample in samples if len(set(sample.hypotheses)) == 2]
    assert len(disputed) == 8
    numbers = [int(sample.source) for sample in samples]
    assert numbers == sorted(set(numbers))


def test_only_sentences_that_all_runs_translated_are_shown(tmp_path):
    one = make_run(tmp_path / "a")
    two = make_run(tmp_path / "b", "transformer", samples=SAMPLES[1:])
    sources = [sample.source for sample in compare(one, two).samples]
    assert sources == ["5 o'clock", "6 o'clock"]


def test_the_page_is_well_formed_and_has_every_part(two):
    _, tree = page_of(*two)
    headings = [text_of(heading) for heading in tree.iter("h2")]
    assert headings == [
        *("Cost", "Significance", "Runs", "What differs"),
        *("Learning curves", "Samples", "Attention"),
    ]
    assert text_of(tree.find("body/h1")) == "translation, toy/en-de, test split"
    table = tree.find(".//table[@class='numbers']")
    rows = [[text_of(cell) for cell in row] for row in table.iter("tr")]
    assert rows[1][:3] == ["rnn", "91.3", "90.1 to 92.4"]
    assert {len(row) for row in rows} == {6}


def test_exact_translations_are_marked(two):
    _, tree = page_of(*two)
    table = tree.find(".//table[@class='samples beside']")
    marks = [
        ["exact" in text_of(cell) for cell in row.findall("td")]
        for row in table.findall("tbody/tr")
    ]
    both, one = [False, False, True, True], [False, False, False, True]
    assert marks == [both, one, both]


def test_the_page_loads_nothing(two):
    page, tree = page_of(*two)
    assert "://" not in page
    assert "url(" not in page
    assert "@import" not in page
    names = {element.tag for element in tree.iter()}
    assert not names & {"script", "link", "img", "iframe", "object", "embed"}
    assert not any({"src", "href"} & set(element.keys()) for element in tree.iter())


def test_text_of_all_kinds_is_escaped(tmp_path):
    evil = "<script>alert('&')</script>"
    path = make_run(
        tmp_path / "a",
        model=evil,
        data=evil,
        device=evil,
        scores={evil: {"value": 1.0}, **TRANSLATION},
        baselines={evil: {"loss": 1.0}},
        samples=[{"source": evil, "reference": evil, "hypothesis": evil}],
        attention={**ATTENTION, "source": [evil] * 3, "layer": evil},
    )
    page, tree = page_of(path)
    assert "<script" not in page
    cells = tree.findall(".//table[@class='samples beside']/tbody/tr/td")
    assert [text_of(cell).endswith(evil) for cell in cells] == [True] * 3


def test_the_same_runs_give_the_same_bytes(two):
    assert render_html(content_of(*two)) == render_html(content_of(*two))


def test_a_run_keeps_its_colour_in_every_part(two):
    _, tree = page_of(*two)
    marks = [mark.get("class") for mark in tree.iter("svg")]
    marks = [mark.split()[1] for mark in marks if mark != "chart"]
    # Scores, cost, runs, keys, legend, samples, maps.
    assert marks == ["run0", "run1"] * 7
    curves = tree.findall(".//g")
    # Loss and BLEU against steps, tokens and seconds.
    assert [curve.get("class").split()[1] for curve in curves] == ["run0", "run1"] * 6
    heat = tree.findall(".//table[@class]")
    kinds = [table.get("class") for table in heat if "heat" in table.get("class")]
    assert [kind.split()[1] for kind in kinds] == ["run0", "run1"]


def test_a_heat_map_has_a_cell_for_each_weight(two):
    _, tree = page_of(*two)
    strengths = [cell.get("style") for cell in tree.findall(".//td/i")]
    assert strengths[:6] == [
        f"opacity:{w:.2f}" for row in ATTENTION["weights"] for w in row
    ]
    assert len(strengths) == 2 * 6


def test_curves_leave_out_values_that_are_not_finite(two):
    runs = read_runs(two)
    chart = learning_curves(runs, "bleu")
    assert [len(curve.points) for curve in chart.series] == [1, 1]
    loss = learning_curves(runs, "loss").series[0].points
    assert loss[0][0] < loss[1][0]
    assert loss[0][1] < loss[1][1]  # falls: y grows downwards
    assert learning_curves(runs, "perplexity") is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 40, [0, 10, 20, 30, 40]),
        (3.65, 6.5, [3, 4, 5, 6, 7]),
        (0.0, 0.0, [0.0, 0.2]),
        (-1.5, 1.5, [-2, -1, 0, 1, 2]),
        (99.91, 99.99, [99.9, 99.92, 99.94, 99.96, 99.98, 100.0]),
    ],
)
def test_ticks_are_round_and_enclose_the_data(low, high, expected):
    assert round_ticks(low, high) == pytest.approx(expected, abs=1e-12)


def test_evenly_taken_items_are_far_apart():
    assert take_evenly(list(range(10)), 3) == [0, 3, 6]
    assert take_evenly([1, 2], 5) == [1, 2]
