"""Equal sizes: a solver against counting, and models that come near to a budget."""

import functools

import jax
import pytest

from analysis.budget import equal_models as equal
from analysis.budget.equal_models import COSTS, equal_models, space_text, table
from analysis.budget.equal_sizes import nearest, sizes, width_unit
from analysis.plan.step import PlannedStep
from configs import base
from helpers.entry_points import ROOT, assert_refused, run
from sweeps.search_space import read_space
from sweeps.trial_configs import TrialConfigs
from utils.errors import UserError

CLDR = str(ROOT / "configs" / "cldr.py")
MODELS = ("transformer", "rnn", "transformer_xl")
WORDS = COSTS["parameters"][1]


@functools.cache
def solved(target=2_000_000.0, equal="parameters", vary="width"):
    return tuple(equal_models(CLDR, MODELS, equal, target, vary))


def test_the_nearest_is_that_of_trying_all():
    def cost(number):
        return 3 * number**2 + 50 * number + 7

    for start in (1, 5, 400):
        for target in (60, 61, 100, 500, 12_345, 99_999, 1_000_000):
            best = min(range(1, 1000), key=lambda n: abs(cost(n) - target))
            assert nearest(cost, target, start=start) == best, (start, target)
        assert nearest(cost, 59, start=start) == 0


def test_a_solver_asks_for_few_costs():
    asked = []

    def cost(number):
        asked.append(number)
        return number**2

    assert nearest(cost, 1000.0**2, start=10) == 1000
    assert len(set(asked)) < 20


def test_three_architectures_come_near_to_one_count_of_parameters():
    cost = COSTS["parameters"][0]
    for one in solved():
        cfg = TrialConfigs.from_flag(f"{CLDR}:{one.model}", {}).config(one.point)
        assert cost(cfg) == one.cost  # what is printed is what would be trained
        assert one.miss == one.cost / 2_000_000 - 1
        assert abs(one.miss) < 0.03
        assert cfg.model.width % cfg.model.get("heads", 1) == 0
    assert "2,000,000 parameters" in table(solved(), WORDS)


def test_what_is_farther_off_than_a_hundredth_says_so():
    for one, line in zip(
        solved(), table(solved(), WORDS).split("\n")[::2], strict=True
    ):
        assert ("nearest" in line) == (abs(one.miss) > 0.01)


def test_more_parameters_make_a_model_wider():
    small = solved()[0]
    [large] = equal_models(CLDR, MODELS[:1], "parameters", 2_500_000.0)
    assert small.point["model.width"] < large.point["model.width"]
    assert small.cost < large.cost


def test_the_architectures_of_the_ready_made_space_are_equal():
    space = read_space(str(ROOT / "configs" / "sweeps" / "architectures.py"))
    points = [space.point(number) for number in (0, 6, 12)]
    assert [point["model"] for point in points] == list(MODELS)
    experiment, count = TrialConfigs.from_flag(CLDR, {}), COSTS["parameters"][0]
    first, *others = [count(experiment.config(point)) for point in points]
    assert others == pytest.approx([first] * 2, rel=0.01)


def test_keys_that_all_models_are_given_count():
    [one] = equal_models(CLDR, MODELS[:1], "parameters")
    given = {"data.vocab_size": 2000}
    [more] = equal_models(CLDR, MODELS[:1], "parameters", overrides=given)
    # Embeddings, which are the output's weights too, and a bias each.
    assert one.point == more.point
    assert more.cost - one.cost == 1000 * (one.point["model.width"] + 1)


def test_sizes_keep_their_ratio_to_the_width():
    model = base.model("transformer", width=128, heads=4, feed_forward=512)
    assert sizes(model, 256) == {"model.width": 256, "model.feed_forward": 1024}
    recurrent = base.model("rnn", width=100, embedding_width=50, attention_width=25)
    assert sizes(recurrent, 200)["model.attention_width"] == 50
    assert "model.maxout_width" not in sizes(recurrent, 200)  # no such readout


@pytest.mark.parametrize(
    ("changes", "unit"),
    [
        ({"heads": 3}, 6),
        ({"heads": 4}, 4),
        ({"heads": 3, "position_encoding": "rotary"}, 6),
    ],
)
def test_widths_divide_by_heads_and_positions_in_pairs(changes, unit):
    assert width_unit(base.model("transformer", **changes)) == unit
    assert width_unit(base.model("rnn")) == 1


def test_steps_may_be_solved_for_with_sizes_as_they_are():
    first, *others = solved(None, "flops", "steps")
    assert first.point == {"steps": 1300}  # the budget is its own
    assert first.miss == 0
    for one in others:
        assert set(one.point) == {"steps"}
        assert abs(one.miss) < 0.001


def test_time_is_the_median_of_steps_times_their_number(monkeypatch):
    class Step:
        rows = 2

        def inputs(self, rows):
            return (jax.ShapeDtypeStruct((rows, 3), "float32"),)

        def gradient(self, params, seed):
            return params.sum() * seed

    times = iter([0, 1, 10, 12, 20, 23, 30, 90, 100, 104])  # a begin and an end each
    monkeypatch.setattr(PlannedStep, "of", lambda cfg: Step())
    monkeypatch.setattr(equal.time, "perf_counter", lambda: next(times))
    cfg = base.get_config("rnn")
    cfg.steps = 1000
    assert equal.training_seconds(cfg) == 3 * 1000


def test_a_space_of_the_budget_is_one_that_sweeps_take(tmp_path):
    path = tmp_path / "space.py"
    path.write_text(space_text(CLDR, solved(), WORDS, 2))
    space = read_space(str(path))
    assert space.points.size == 6
    assert space.point(0) == {"model": "transformer", **solved()[0].point, "seed": 0}
    TrialConfigs.from_flag(CLDR, {}).check(space)


def test_what_cannot_be_is_told_in_one_line():
    with pytest.raises(UserError, match=r"too small for transformer.*model.width=4"):
        equal_models(CLDR, MODELS, "parameters", 100.0)
    with pytest.raises(UserError, match="there are parameters, flops, seconds"):
        equal_models(CLDR, MODELS, "money", 100.0)
    with pytest.raises(UserError, match="--vary=steps"):
        equal_models(CLDR, MODELS, "parameters", 100.0, "steps")


def test_epochs_are_no_number_of_steps():
    multi30k = str(ROOT / "configs" / "multi30k.py")
    with pytest.raises(UserError, match=r"--config\.epochs=0 --config\.steps=N"):
        equal_models(multi30k, MODELS, "flops", 1e12)
    given = {"epochs": 0.0, "steps": 10}
    [one] = equal_models(multi30k, ["rnn"], "flops", None, "steps", given)
    assert one.point == {"steps": 10}


@pytest.mark.parametrize("text", ["-1", "0", "much", "inf", "nan"])
def test_a_budget_is_a_number_above_zero(text):
    with pytest.raises(UserError, match=f"--to={text}"):
        equal.parse_target(text)


def test_the_program_refuses_in_one_line():
    done = run("analysis/budget/__main__.py", f"--config={CLDR}", "--models=cnn")
    assert_refused(done, "cnn")
