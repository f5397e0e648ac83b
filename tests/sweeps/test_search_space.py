"""Search spaces: which points they have, in which order."""

import collections
import itertools

import numpy as np
import pytest
from scipy.stats import kstest, qmc

from sweeps.search_space.distributions import Distribution
from sweeps.search_space.halton import halton_point
from sweeps.search_space.spaces import (
    Space,
    chained,
    choice,
    grid,
    integers,
    listed,
    log_uniform,
    product,
    quasi_random,
    random,
    read_space,
    seeds,
    tpe,
    uniform,
    zipped,
)
from utils.errors import UserError

A = grid({"a": [1, 2, 3]})
B = grid({"b": [10, 20]})


def all_points(points, seed=0):
    return [points.point(number, seed) for number in range(points.size)]


def test_a_product_has_each_point_with_each_other_the_last_fastest():
    points = product(A, B, seeds(2))
    expected = [
        {"a": a, "b": b, "seed": seed}
        for a, b, seed in itertools.product([1, 2, 3], [10, 20], [0, 1])
    ]
    assert points.size == 12
    assert all_points(points) == expected


def test_a_grid_is_the_product_of_its_keys():
    assert all_points(grid({"a": [1, 2, 3], "b": [10, 20]})) == all_points(
        product(A, B)
    )


def test_a_zip_takes_one_point_of_each():
    points = zipped(A, random({"x": uniform(0, 1)}))
    assert points.size == 3
    found = all_points(points)
    assert [point["a"] for point in found] == [1, 2, 3]
    assert len({point["x"] for point in found}) == 3


def test_a_chain_goes_on_where_a_part_ends():
    points = chained(A, listed([{"a": 7}]), random({"a": uniform(0, 1)}))
    assert points.size is None
    first = [points.point(number, 0)["a"] for number in range(6)]
    assert first[:4] == [1, 2, 3, 7]
    assert all(0 <= a <= 1 for a in first[4:])


def test_an_endless_part_may_be_the_first_of_a_product():
    points = product(random({"x": uniform(0, 1)}), seeds(3))
    assert points.size is None
    found = [points.point(number, 0) for number in range(6)]
    assert [point["seed"] for point in found] == [0, 1, 2, 0, 1, 2]
    assert len({point["x"] for point in found[:3]}) == 1
    assert found[0]["x"] != found[3]["x"]


RANGES = {
    "rate": log_uniform(1e-4, 1e-1),
    "dropout": uniform(0.1, 0.5),
    "layers": integers(1, 4),
    "width": integers(2, 512, log=True),
    "rule": choice("adam", "lion", None),
}


SPACES = "from sweeps.search_space.spaces import *\n"


@pytest.mark.parametrize("draw", [random, quasi_random])
def test_a_point_depends_on_its_number_and_the_seed_alone(draw):
    points, again = draw(RANGES), draw(RANGES)
    forwards = [points.point(number, 5) for number in range(20)]
    backwards = [again.point(number, 5) for number in reversed(range(20))]
    assert forwards == backwards[::-1]
    assert forwards != [points.point(number, 6) for number in range(20)]


@pytest.mark.parametrize("draw", [random, quasi_random])
def test_what_is_drawn_fills_its_range_and_no_more(draw):
    found = [draw(RANGES).point(number, 0) for number in range(600)]
    for key, within in RANGES.items():
        assert all(point[key] in within for point in found), key
    rates = np.log10([point["rate"] for point in found])
    assert kstest(rates, "uniform", args=(-4, 3)).pvalue > 1e-3  # each factor alike
    counts = collections.Counter(point["layers"] for point in found)
    assert sorted(counts) == [1, 2, 3, 4]
    assert min(counts.values()) > 110
    assert set(collections.Counter(p["rule"] for p in found)) == {"adam", "lion", None}
    small = sum(point["width"] <= 32 for point in found) / 600
    assert 0.4 < small < 0.6  # half of the factors between 2 and 512


@pytest.mark.parametrize("within", RANGES.values())
def test_shares_at_the_ends_are_in_the_range(within):
    assert within.at(0.0) in within
    assert within.at(1 - 2**-53) in within


@pytest.mark.parametrize("dimensions", [2, 5])
def test_quasi_random_points_are_spread_more_evenly_than_random_ones(dimensions):
    def discrepancy(points):
        return qmc.discrepancy(np.array(points), method="CD")

    for seed in range(3):
        halton = [halton_point(n, dimensions, seed) for n in range(128)]
        drawn = np.random.default_rng(seed).random((128, dimensions))
        assert discrepancy(halton) < 0.5 * discrepancy(drawn)


def test_many_keys_are_not_drawn_alike():
    likeness = []
    for seed in range(5):
        points = np.array([halton_point(n, 8, seed) for n in range(16)])
        likeness.append(abs(np.corrcoef(points.T)[6, 7]))  # 0.99 with digits in order
    assert np.mean(likeness) < 0.6


def test_only_tpe_leaves_something_to_the_study():
    points = chained(listed([{"x": 0.5}]), tpe({"x": uniform(0, 1)}))
    assert points.point(0, 0) == {"x": 0.5}
    assert isinstance(points.point(1, 0)["x"], Distribution)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: product(A, A), "a is in two parts"),
        (lambda: product(A, random({"x": uniform(0, 1)})), "only the first part"),
        (lambda: product(tpe({"x": uniform(0, 1)}), B), "tpe"),
        (lambda: zipped(A, B), "[2, 3] points"),
        (lambda: chained(random({"x": uniform(0, 1)}), A), "only the last part"),
        (lambda: uniform(1, 0), "low must be a number below high"),
        (lambda: log_uniform(0, 1), "above 0"),
        (lambda: grid({"a": 3}), "a needs a list"),
        (lambda: random({"a": [1, 2]}), "a needs uniform"),
        (lambda: Space(A, value="mean"), "there are best, last"),
        (lambda: Space([1]), "points are"),
        (lambda: Space(A).num_trials(4), "3 points"),
        (lambda: Space(random(RANGES)).num_trials(None), "--trials=N"),
        (
            lambda: chained(
                listed([{"x": 1}]), tpe({"x": uniform(0, 1)}, size=2),
                tpe({"x": uniform(0, 2)}),
            ).domains(),
            "two ranges",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_a_reason(make, words):
    with pytest.raises(UserError) as refused:
        make()
    assert words in str(refused.value)


def test_descriptions_differ_where_spaces_do():
    spaces = [
        Space(A),
        Space(B),
        Space(A, metric="loss"),
        Space(random(RANGES)),
        Space(quasi_random(RANGES)),
        Space(random(RANGES), seed=1),
        Space(random({**RANGES, "rate": log_uniform(1e-4, 1e-2)})),
        Space(product(A, B)),
        Space(zipped(A, grid({"b": [1, 2, 3]}))),
    ]
    told = [str(space.describe()) for space in spaces]
    assert len(set(told)) == len(told)
    assert Space(A, trials=2, retries=3).describe() == Space(A).describe()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_space(): return 3", "not a Space"),
        ("x = ", "SyntaxError"),
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("x = 1", "get_space"),
        (f"{SPACES}get_space = lambda: grid({{'a': 1}})", "a needs"),
    ],
)  # fmt: skip
def test_a_file_without_a_space_is_refused(tmp_path, text, words):
    path = tmp_path / "space.py"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        read_space(str(path))
    assert str(path) in str(refused.value)
    assert words in str(refused.value)
