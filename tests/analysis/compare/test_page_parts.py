"""Parts of the page of a comparison: charts, profiles, spaces and links."""

import math
from pathlib import Path

import pytest

from analysis.compare.page.content import describe_space, relative_link
from analysis.compare.page.profiles import performance_ratios, step_points
from analysis.report.charts import Series, log_ticks, make_chart
from sweeps.search_space import (
    choice,
    grid,
    integers,
    listed,
    log_uniform,
    product,
    random,
    seeds,
    uniform,
)


def test_points_of_a_chart_are_inside_of_its_axes_and_in_their_order():
    points = [(1e12, 3.0), (3e12, 2.5), (1e13, 2.25)]
    band = [(x, y - 0.1, y + 0.1) for x, y in points]
    series = [Series(1, "rnn", points, band)]
    chart = make_chart("loss", "FLOPs", series, is_log_x=True)
    [drawn] = chart.series
    xs, ys = zip(*drawn.points, strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)  # y grows downwards
    assert chart.left <= xs[0] < xs[-1] <= chart.right
    thirds = (xs[1] - xs[0]) / (xs[2] - xs[0])
    assert thirds == pytest.approx(math.log(3) / math.log(10), abs=1e-3)
    assert len(drawn.band) == 6
    assert drawn.band[0][1] > drawn.points[0][1] > drawn.band[-1][1]


def test_points_that_are_not_finite_are_left_out():
    points = [(1, 2.0), (2, math.nan), (3, None), (4, 1.0)]
    chart = make_chart("loss", "steps", [Series(0, "rnn", points)])
    assert len(chart.series[0].points) == 2
    assert make_chart("loss", "steps", [Series(0, "rnn", [(1, math.nan)])]) is None


@pytest.mark.parametrize(
    ("ends", "ticks"),
    [
        ((1e12, 1e13), [1e12, 2e12, 5e12, 1e13]),
        ((1, 1000), [1, 3, 10, 30, 100, 300, 1000]),
        ((4, 6), [4, 6]),
        ((7, 7), [7]),
    ],
)
def test_log_ticks_are_few_round_numbers(ends, ticks):
    found = log_ticks(*ends)
    if len(ticks) == 2:  # a single round number is no axis
        assert min(found) >= 4
        assert max(found) <= 6
    else:
        assert found == pytest.approx(ticks)


def test_a_profile_is_the_fraction_of_corpora_within_a_factor_of_the_best():
    # BLEU, larger is better, then two losses.
    scores = {"rnn": [20.0, 4.0, 2.0], "transformer": [25.0, 2.0, 2.2]}
    ratios = performance_ratios(scores, [1, -1, -1])
    assert ratios["rnn"] == pytest.approx([1.25, 2.0, 1.0])
    assert ratios["transformer"] == pytest.approx([1.0, 1.0, 1.1])
    profile = step_points(ratios["rnn"], 1.5)
    for factor, fraction in {1.0: 1 / 3, 1.24: 1 / 3, 1.26: 2 / 3, 1.5: 2 / 3}.items():
        value = [y for x, y in profile if x <= factor][-1]
        assert value == pytest.approx(fraction), factor


def test_a_score_of_zero_is_within_no_factor_of_the_best():
    ratios = performance_ratios({"rnn": [0.0], "transformer": [3.0]}, [1])
    assert ratios == {"rnn": [math.inf], "transformer": [1.0]}
    assert step_points(ratios["rnn"], 1.5) == [(1.0, 0.0), (1.5, 0.0)]


def test_each_key_of_a_space_is_described():
    ranges = {
        "optim.lr": log_uniform(1e-4, 1e-2),
        "model.dropout": uniform(0.0, 0.5),
        "optim.warmup": integers(10, 300, log=True),
        "optim.schedule": choice("cosine", "linear"),
    }
    points = product(random(ranges), grid({"model.layers": [1, 2]}), seeds(2))
    assert describe_space(points.to_dict()) == [
        ("optim.lr", "0.0001 to 0.01 (log-uniform)"),
        ("model.dropout", "0 to 0.5 (uniform)"),
        ("optim.warmup", "10 to 300 (integers, log-uniform)"),
        ("optim.schedule", "one of cosine, linear"),
        ("model.layers", "1, 2"),
        ("seed", "0, 1"),
    ]
    cutoffs = listed([{"model.cutoffs": [1, 2]}, {"model.cutoffs": [3]}])
    assert describe_space(cutoffs.to_dict()) == [("model.cutoffs", "[1, 2], [3]")]


def test_links_are_relative_to_the_page_and_quoted(tmp_path):
    run = tmp_path / "a & b" / "run #1"
    link = relative_link(run, tmp_path / "pages" / "page.html")
    assert link == "../a%20%26%20b/run%20%231"
    assert relative_link(Path("runs/x"), Path("page.html")) == "runs/x"
