"""Tests of matched models: the bisection, and models near a budget."""

import functools

import jax
import pytest

from analysis import budget
from analysis.budget import (
    COSTS,
    bisect_int,
    format_table,
    match_models,
    scaled_sizes,
    space_source,
    width_multiple,
)
from analysis.plan.step import StepSpec
from configs import base
from helpers.entry_points import ROOT, assert_refused, run
from sweeps.search_space import read_space
from sweeps.trial_configs import TrialConfigs
from utils.errors import UserError

CLDR = str(ROOT / "configs" / "cldr.py")
MODELS = ("transformer", "rnn", "transformer_xl")
FORMAT = COSTS["parameters"][1]


@functools.cache
def matched(target=2_000_000.0, equal="parameters", vary="width"):
    return tuple(match_models(CLDR, MODELS, equal, target, vary))


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


def test_three_architectures_match_one_number_of_parameters():
    cost = COSTS["parameters"][0]
    for one in matched():
        cfg = TrialConfigs.from_flag(f"{CLDR}:{one.model}", {}).config(one.settings)
        assert cost(cfg) == one.cost  # what is printed is what would be trained
        assert one.relative_error == one.cost / 2_000_000 - 1
        assert abs(one.relative_error) < 0.03
        assert cfg.model.width % cfg.model.get("heads", 1) == 0
    assert "2,000,000 parameters" in format_table(matched(), FORMAT)


def test_a_match_off_by_more_than_a_hundredth_is_marked():
    for one, line in zip(
        matched(), format_table(matched(), FORMAT).split("\n")[::2], strict=True
    ):
        assert ("nearest" in line) == (abs(one.relative_error) > 0.01)


def test_more_parameters_make_a_model_wider():
    small = matched()[0]
    [large] = match_models(CLDR, MODELS[:1], "parameters", 2_500_000.0)
    assert small.settings["model.width"] < large.settings["model.width"]
    assert small.cost < large.cost


def test_the_architectures_of_the_provided_space_have_equal_parameters():
    space = read_space(str(ROOT / "configs" / "sweeps" / "architectures.py"))
    points = [space.point(number) for number in (0, 6, 12)]
    assert [point["model"] for point in points] == list(MODELS)
    experiment, count = TrialConfigs.from_flag(CLDR, {}), COSTS["parameters"][0]
    first, *others = [count(experiment.config(point)) for point in points]
    assert others == pytest.approx([first] * 2, rel=0.01)


def test_overrides_of_the_config_change_the_cost():
    [one] = match_models(CLDR, MODELS[:1], "parameters")
    given = {"data.vocab_size": 2000}
    [more] = match_models(CLDR, MODELS[:1], "parameters", overrides=given)
    # Tied embeddings, and an output bias each.
    assert one.settings == more.settings
    assert more.cost - one.cost == 1000 * (one.settings["model.width"] + 1)


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
    first, *others = matched(None, "flops", "steps")
    assert first.settings == {"steps": 1300}  # the budget is its own
    assert first.relative_error == 0
    for one in others:
        assert set(one.settings) == {"steps"}
        assert abs(one.relative_error) < 0.001


def test_training_time_is_the_median_step_times_the_number_of_steps(monkeypatch):
    class Step:
        batch_size = 2

        def input_shapes(self, batch_size):
            return (jax.ShapeDtypeStruct((batch_size, 3), "float32"),)

        def gradient(self, params, seed):
            return params.sum() * seed

    times = iter([0, 1, 10, 12, 20, 23, 30, 90, 100, 104])  # a begin and an end each
    monkeypatch.setattr(StepSpec, "from_config", lambda cfg: Step())
    monkeypatch.setattr(budget.time, "perf_counter", lambda: next(times))
    cfg = base.get_config("rnn")
    cfg.steps = 1000
    assert budget.training_seconds(cfg) == 3 * 1000


def test_the_written_space_can_be_read_by_a_sweep(tmp_path):
    path = tmp_path / "space.py"
    path.write_text(space_source(CLDR, matched(), FORMAT, 2))
    space = read_space(str(path))
    assert space.points.size == 6
    assert space.point(0) == {
        "model": "transformer",
        **matched()[0].settings,
        "seed": 0,
    }
    TrialConfigs.from_flag(CLDR, {}).check(space)


def test_invalid_arguments_are_refused():
    with pytest.raises(UserError, match=r"too small for transformer.*model.width=4"):
        match_models(CLDR, MODELS, "parameters", 100.0)
    with pytest.raises(UserError, match="choose one of parameters, flops, seconds"):
        match_models(CLDR, MODELS, "money", 100.0)
    with pytest.raises(UserError, match="--vary=steps"):
        match_models(CLDR, MODELS, "parameters", 100.0, "steps")
    with pytest.raises(UserError, match=r"model\.\w+=\d+ must be in 0"):
        match_models(CLDR, MODELS, "parameters", 1e300)


def test_flops_of_a_config_with_epochs_are_refused():
    multi30k = str(ROOT / "configs" / "multi30k.py")
    with pytest.raises(UserError, match=r"--config\.epochs=0 --config\.steps=N"):
        match_models(multi30k, MODELS, "flops", 1e12)
    given = {"epochs": 0.0, "steps": 10}
    [one] = match_models(multi30k, ["rnn"], "flops", None, "steps", given)
    assert one.settings == {"steps": 10}


@pytest.mark.parametrize("text", ["-1", "0", "much", "inf", "nan"])
def test_a_budget_is_a_number_above_zero(text):
    with pytest.raises(UserError, match=f"--to={text}"):
        budget.parse_target(text)


def test_the_command_refuses_an_unknown_model_in_one_line():
    done = run("analysis/budget/__main__.py", f"--config={CLDR}", "--models=cnn")
    assert_refused(done, "cnn")
