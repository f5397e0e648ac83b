"""Search spaces: points, their order and distributions, and what is refused."""

import collections
import itertools
import json
import math

import numpy as np
import pytest
from scipy.stats import kstest, qmc

from sweeps.search_space import (
    Distribution,
    Space,
    asha,
    chained,
    choice,
    grid,
    halton_point,
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


def test_the_last_part_of_a_product_changes_fastest():
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


def test_a_zip_joins_points_of_the_same_number():
    points = zipped(A, random({"x": uniform(0, 1)}))
    assert points.size == 3
    found = all_points(points)
    assert [point["a"] for point in found] == [1, 2, 3]
    assert len({point["x"] for point in found}) == 3


def test_a_chain_concatenates_its_parts():
    points = chained(A, listed([{"a": 7}]), random({"a": uniform(0, 1)}))
    assert points.size == math.inf
    first = [points.point(number, 0)["a"] for number in range(6)]
    assert first[:4] == [1, 2, 3, 7]
    assert all(0 <= a <= 1 for a in first[4:])


def test_the_first_part_of_a_product_may_be_infinite():
    points = product(random({"x": uniform(0, 1)}), seeds(3))
    assert points.size == math.inf
    found = [points.point(number, 0) for number in range(6)]
    assert [point["seed"] for point in found] == [0, 1, 2, 0, 1, 2]
    assert len({point["x"] for point in found[:3]}) == 1
    assert found[0]["x"] != found[3]["x"]


@pytest.mark.parametrize("draw", [random, quasi_random])
def test_sampled_parts_draw_independent_points(draw):
    one, other = draw({"x": uniform(0, 1)}), draw({"y": uniform(0, 1)})
    points = zipped(one, other)
    found = [points.point(number, 3) for number in range(200)]
    assert [p["x"] for p in found[:9]] == [one.point(n, 3)["x"] for n in range(9)]
    correlation = np.corrcoef([[p["x"], p["y"]] for p in found], rowvar=False)[0, 1]
    assert abs(correlation) < 0.25
    x, y = draw({"x": uniform(0, 1)}, size=20), draw({"y": uniform(0, 1)}, size=20)
    found = all_points(product(x, y))
    assert not {p["x"] for p in found} & {p["y"] for p in found}
    again = draw({"x": uniform(0, 1)}, size=20)
    found = [point["x"] for point in all_points(chained(x, again))]
    assert len(set(found)) == 40
    nested = zipped(one, zipped(other, draw({"z": uniform(0, 1)})))
    assert len(set(nested.point(0, 0).values())) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: random({"a": uniform(0, 1)}, size=2.5), "size=2.5 must be an integer"),
        (lambda: random({"a": uniform(0, 1)}, size=-3), "size=-3 must be at least 1"),
        (lambda: integers(0.5, 3.5), "a bound=0.5 must be an integer"),
        (lambda: listed([]), "has no point"),
        (lambda: chained(), "needs one part or more"),
        (lambda: asha(factor=2.5), "factor=2.5 must be an integer"),
        (lambda: asha(factor=1), "factor=1 must be at least 2"),
        (lambda: asha(min_steps=-5), "min_steps=-5 must be at least 1"),
        (lambda: Space(seeds(2), seed=-1), "seed=-1 must be at least 0"),
        (lambda: Space(seeds(2), retries=-1), "retries=-1 must be at least 0"),
    ],
)
def test_numbers_that_make_no_space_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


RANGES = {
    "rate": log_uniform(1e-4, 1e-1),
    "dropout": uniform(0.1, 0.5),
    "layers": integers(1, 4),
    "width": integers(2, 512, log=True),
    "rule": choice("adam", "lion", None),
}


SPACES = "from sweeps.search_space import *\n"


@pytest.mark.parametrize("draw", [random, quasi_random])
def test_a_point_depends_on_its_number_and_the_seed_alone(draw):
    points, again = draw(RANGES), draw(RANGES)
    forwards = [points.point(number, 5) for number in range(20)]
    backwards = [again.point(number, 5) for number in reversed(range(20))]
    assert forwards == backwards[::-1]
    assert forwards != [points.point(number, 6) for number in range(20)]


@pytest.mark.parametrize("draw", [random, quasi_random])
def test_samples_follow_their_distributions(draw):
    found = [draw(RANGES).point(number, 0) for number in range(600)]
    for key, within in RANGES.items():
        assert all(point[key] in within for point in found), key
    rates = np.log10([point["rate"] for point in found])
    assert (
        kstest(rates, "uniform", args=(-4, 3)).pvalue > 1e-3
    )  # uniform in the logarithm
    counts = collections.Counter(point["layers"] for point in found)
    assert sorted(counts) == [1, 2, 3, 4]
    assert min(counts.values()) > 110
    assert set(collections.Counter(p["rule"] for p in found)) == {"adam", "lion", None}
    small = sum(point["width"] <= 32 for point in found) / 600
    assert 0.4 < small < 0.6  # half of the interval [2, 512] in the logarithm


@pytest.mark.parametrize("within", RANGES.values())
def test_quantiles_at_both_ends_are_in_the_range(within):
    assert within.quantile(0.0) in within
    assert within.quantile(1 - 2**-53) in within


@pytest.mark.parametrize("dimensions", [2, 5])
def test_quasi_random_points_are_spread_more_evenly_than_random_ones(dimensions):
    def discrepancy(points):
        return qmc.discrepancy(np.array(points), method="CD")

    for seed in range(3):
        halton = [halton_point(n, dimensions, seed) for n in range(128)]
        drawn = np.random.default_rng(seed).random((128, dimensions))
        assert discrepancy(halton) < 0.5 * discrepancy(drawn)


def test_a_halton_point_alone_equals_that_of_the_whole_sequence():
    sequence = qmc.Halton(5, rng=np.random.default_rng(3)).random(20)
    for number in (0, 1, 7, 19):
        np.testing.assert_array_equal(halton_point(number, 5, 3), sequence[number])


def test_high_dimensions_of_a_halton_sequence_are_not_correlated():
    correlations = []
    for seed in range(5):
        points = np.array([halton_point(n, 8, seed) for n in range(16)])
        correlations.append(
            abs(np.corrcoef(points.T)[6, 7])
        )  # 0.99 without permutations
    assert np.mean(correlations) < 0.6


def test_values_of_numpy_become_numbers_of_python():
    parts = [
        grid({"a": np.arange(2)}),
        listed([{"b": np.float32(0.5)}]),
        random({"c": choice((np.int64(1), 2)), "d": integers(np.int32(1), 3)}, 1),
    ]
    space = Space(product(*parts))
    assert json.loads(json.dumps(space.to_dict())) is not None
    point = space.point(1)
    assert point == {"a": 1, "b": 0.5, "c": (1, 2), "d": point["d"]}
    values = [point["a"], point["b"], point["c"][0], point["d"]]
    assert list(map(type, values)) == [int, float, int, int]


def test_points_of_tpe_hold_distributions():
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
        (lambda: Space(A, value="mean"), "choose one of best, last"),
        (lambda: Space([1]), "needs a sequence of points"),
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
def test_invalid_spaces_are_refused_with_a_reason(make, words):
    with pytest.raises(UserError) as refused:
        make()
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_different_spaces_have_different_descriptions():
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
    descriptions = [str(space.to_dict()) for space in spaces]
    assert len(set(descriptions)) == len(descriptions)
    assert Space(A, trials=2, retries=3).to_dict() == Space(A).to_dict()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_space(): return 3", "not a Space"),
        ("x = ", "SyntaxError"),
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("x = 1", "no function get_space()"),
        ("from sweeps.search_space import gird", "Unknown name 'gird'"),
        (f"{SPACES}get_space = lambda: Space(gird({{}}))", "Unknown name 'gird'"),
        (f"{SPACES}get_space = lambda: Space(seeds(2), metrc=1)", "'metrc'"),
        (f"{SPACES}get_space = lambda: Space(grid(1 / 0))", "ZeroDivisionError"),
        (f"{SPACES}get_space = lambda: grid({{'a': 1}})", "a needs"),
    ],
)  # fmt: skip
def test_a_file_without_a_valid_space_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "space.py"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        read_space(str(path))
    assert str(path) in str(refused.value)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
