"""Tests of matched models: the bisection, and models near a budget."""

import functools

import jax
import pytest

from analysis.compare import sizes
from analysis.compare.sizes import (
    QUANTITIES,
    bisect_int,
    match_steps,
    match_width,
    scaled_sizes,
    width_multiple,
)
from analysis.plan.step import StepSpec
from configs import base
from helpers.entry_points import ROOT
from sweeps.search_space import read_space
from sweeps.trial_configs import TrialConfigs
from utils.errors import UserError

CLDR = str(ROOT / "configs" / "cldr.py")
MODELS = ("transformer", "rnn", "transformer_xl")
PARAMETERS = QUANTITIES["parameters"]
# Each cost takes a trace of the model, and few widths are tried for this one.
TARGET = 2_100_000.0


def configs(model="transformer", file=CLDR, **overrides):
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    return TrialConfigs.from_flag(f"{file}:{model}", {"model.layers": 1, **given})


@functools.cache
def matched(model="transformer", target=TARGET):
    return match_width(configs(model), {}, PARAMETERS, target)


def test_bisection_finds_the_same_integer_as_an_exhaustive_search():
    def cost(number):
        return 3 * number**2 + 50 * number + 7

    for start in (1, 5, 400):
        for target in (60, 61, 100, 500, 12_345, 99_999, 1_000_000):
            best = min(range(1, 1000), key=lambda n: abs(cost(n) - target))
            assert bisect_int(cost, target, start=start) == best, (start, target)
        assert bisect_int(cost, 59, start=start) == 0


def test_bisection_evaluates_few_costs():
    asked = []

    def cost(number):
        asked.append(number)
        return number**2

    assert bisect_int(cost, 1000.0**2, start=10) == 1000
    assert len(set(asked)) < 20


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "target", [TARGET, pytest.param(200_000.0, marks=pytest.mark.slow)]
)
def test_each_architecture_has_the_parameters_of_the_budget_within_a_hundredth(
    model, target
):
    match = matched(model, target)
    cfg = configs(model).config(match.settings)
    assert PARAMETERS.cost(cfg) == match.cost  # what is printed is what is trained
    assert match.relative_error == match.cost / target - 1
    assert abs(match.relative_error) < 0.01
    assert cfg.model.width % cfg.model.get("heads", 1) == 0
    assert f"{target:,.0f} parameters" in match.format(PARAMETERS)


def test_a_size_is_adapted_where_no_width_is_near_enough():
    match = matched("transformer", 290_000.0)
    cfg = configs().config({})
    by_ratio = scaled_sizes(cfg.model, match.settings["model.width"])
    cost = PARAMETERS.cost(configs().config(by_ratio))
    assert abs(cost / 290_000 - 1) > 0.01  # or there would be nothing to adapt
    assert match.settings["model.feed_forward"] != by_ratio["model.feed_forward"]


@pytest.mark.slow
def test_more_parameters_make_a_model_wider():
    large = matched("transformer", 2_500_000.0)
    assert matched().settings["model.width"] < large.settings["model.width"]
    assert matched().cost < large.cost


def test_sizes_of_a_point_are_kept_in_a_match():
    match = match_width(configs(), {"model.layers": 2}, PARAMETERS, TARGET)
    assert "model.layers" not in match.settings
    assert match.settings["model.width"] < matched().settings["model.width"]


def test_the_architectures_of_the_provided_space_have_equal_parameters():
    space = read_space(str(ROOT / "configs" / "sweeps" / "architectures.py"))
    points = [space.point(number) for number in (0, 6, 12)]
    assert [point["model"] for point in points] == list(MODELS)
    experiment = TrialConfigs.from_flag(CLDR, {})
    first, *others = [PARAMETERS.cost(experiment.config(point)) for point in points]
    assert others == pytest.approx([first] * 2, rel=0.01)


def test_overrides_of_the_config_change_the_cost():
    one = PARAMETERS.cost(configs().config({}))
    more = PARAMETERS.cost(configs(data__vocab_size=2000).config({}))
    # Tied embeddings, and an output bias each.
    assert more - one == 1000 * (configs().config({}).model.width + 1)


def test_sizes_keep_their_ratio_to_the_width():
    model = base.model("transformer", width=128, heads=4, feed_forward=512)
    assert scaled_sizes(model, 256) == {"model.width": 256, "model.feed_forward": 1024}
    recurrent = base.model("rnn", width=100, embedding_width=50, attention_width=25)
    assert scaled_sizes(recurrent, 200)["model.attention_width"] == 50
    assert "model.maxout_width" not in scaled_sizes(recurrent, 200)  # no such readout


@pytest.mark.parametrize(
    ("changes", "unit"),
    [
        ({"heads": 3}, 6),
        ({"heads": 4}, 4),
        ({"heads": 3, "position_encoding": "rotary"}, 6),
    ],
)
def test_widths_divide_by_heads_and_positions_in_pairs(changes, unit):
    assert width_multiple(base.model("transformer", **changes)) == unit
    assert width_multiple(base.model("rnn")) == 1


def test_steps_can_be_matched_with_sizes_unchanged():
    flops = QUANTITIES["flops"]
    target = flops.cost(configs().config({}))
    own, other = (match_steps(configs(m), {}, flops, target) for m in MODELS[:2])
    assert own.settings == {"steps": 1300}  # the budget is its own
    assert own.relative_error == 0
    assert set(other.settings) == {"steps"}
    assert abs(other.relative_error) < 0.001


def test_equal_tokens_are_equal_steps_of_equal_batches():
    tokens = QUANTITIES["tokens"]
    for model in MODELS:
        match = match_steps(configs(model), {}, tokens, 512.0 * 700)
        assert match.settings == {"steps": 700}


def test_training_time_is_the_median_step_times_the_number_of_steps(monkeypatch):
    class Step:
        longest_batch = None

        def inputs_with(self, batch):
            return (jax.ShapeDtypeStruct((2, 3), "float32"),)

        def gradient(self, params, seed):
            return params.sum() * seed

    times = iter([0, 1, 10, 12, 20, 23, 30, 90, 100, 104])  # a begin and an end each
    monkeypatch.setattr(StepSpec, "from_config", lambda cfg, tokenizers: Step())
    monkeypatch.setattr(sizes.time, "perf_counter", lambda: next(times))
    cfg = base.get_config("rnn")
    cfg.steps = 1000
    assert sizes.training_seconds(cfg) == 3 * 1000


def test_budgets_that_no_size_reaches_are_refused():
    for target, width, words in (
        (100.0, 16, r"too small for transformer.*model.width=4"),
        (1e300, 2**24, r"model\.\w+=\d+ must be in 0"),
    ):
        with pytest.raises(UserError, match=words):
            match_width(configs(model__width=width), {}, PARAMETERS, target)
    with pytest.raises(UserError, match=r"nearest is .* FLOPs .* with steps=1"):
        match_steps(configs(), {}, QUANTITIES["flops"], 1000.0)
