"""Plans of comparisons: equal budgets, fresh seeds, and what is refused."""

import json

import pytest

from analysis.compare.folder import ComparisonFolder
from analysis.compare.plan import Plan, Request, shared_metric
from analysis.compare.sizes import QUANTITIES
from configs import base
from helpers.entry_points import ROOT, assert_refused, run
from utils.errors import UserError

CLDR = str(ROOT / "configs" / "cldr.py")
TUNING = str(ROOT / "configs" / "sweeps" / "tuning.py")
MAIN = "analysis/compare/__main__.py"
# Each cost takes a trace of the model, and few widths are tried for these budgets.
BUDGET, LARGE_BUDGET = 360_000.0, 1_050_000.0


def request(overrides=(), **changes):
    arguments = {
        "config": CLDR,
        "overrides": {"model.layers": 1, **dict(overrides)},
        "models": ("rnn", "transformer"),
        "budgets": (BUDGET,),
        "space": TUNING,
        "trials": 3,
    }
    return Request(**{**arguments, **changes})


def space_file(tmp_path, body):
    path = tmp_path / "space.py"
    text = "from sweeps.search_space import *\n\n\ndef get_space(model):\n    return "
    path.write_text(f"{text}{body}\n")
    return str(path)


@pytest.fixture(scope="module")
def plan():
    return Plan.from_request(request())


def test_every_trial_takes_the_budget_within_a_hundredth(plan):
    [budget] = plan.budgets
    assert [one.model for one in budget.models] == ["rnn", "transformer"]
    for one in budget.models:
        assert len(one.points) == len(one.costs) == 3
        for point, cost in zip(one.points, one.costs, strict=True):
            cfg = request().configs(one.model).config(point)
            assert QUANTITIES["parameters"].cost(cfg) == cost
            assert cost == pytest.approx(BUDGET, rel=0.01)
    rates = [[p["optim.lr"] for p in one.points] for one in budget.models]
    assert rates[0] != rates[1]  # each architecture has its own space
    assert (plan.metric.name, plan.metric.direction) == ("bleu", "max")


def test_the_budget_is_that_of_the_first_model_unless_given():
    models = "transformer", "rnn"
    plan = Plan.from_request(request(budgets=(), models=models))
    cost = QUANTITIES["parameters"].cost(request().configs("transformer").config({}))
    assert plan.budgets[0].target == cost


@pytest.mark.slow
def test_each_point_that_changes_the_cost_has_sizes_of_its_own(tmp_path):
    space = space_file(tmp_path, 'Space(grid({"model.layers": [1, 3]}))')
    plan = Plan.from_request(request(space=space, trials=2))
    for one in plan.budgets[0].models:
        assert one.costs == pytest.approx([BUDGET] * 2, rel=0.01)
        assert len({point["model.width"] for point in one.points}) == 2


def test_a_ladder_has_a_plan_for_each_budget():
    plan = Plan.from_request(request(budgets=(BUDGET, LARGE_BUDGET)))
    assert [budget.name for budget in plan.budgets] == ["360000", "1.05e+06"]
    for budget in plan.budgets:
        for one in budget.models:
            assert one.costs == pytest.approx([budget.target] * 3, rel=0.01)


def test_no_run_of_the_best_point_has_a_seed_of_the_search(plan, tmp_path):
    space = space_file(tmp_path, "Space(seeds(2, first=7))")
    other = Plan.from_request(request(space=space, trials=2))
    for found, seeds in ((plan, [1, 2, 3]), (other, [9, 10, 11])):
        for one in found.budgets[0].models:
            assert one.seeds == seeds
            assert not set(seeds) & {point.get("seed", 0) for point in one.points}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('Space(tpe({"optim.lr": log_uniform(1e-4, 1e-2)}))', "points of TPE"),
        ("Space(seeds(3), pruning=asha())", "stops trials early"),
        ("Space(seeds(3), metric='loss')", r"set --config\.keep\.metric"),
        ('Space(listed([{"model": "rnn"}]))', "name the models in --models"),
        ("Space(seeds(2))", "the space has 2 points"),
        ('Space(grid({"optim.lrr": [1.0, 2.0, 3.0]}))', "Unknown config key"),
    ],
)
def test_spaces_without_independent_points_of_one_model_are_refused(
    tmp_path, body, words
):
    with pytest.raises(UserError, match=words):
        Plan.from_request(request(space=space_file(tmp_path, body)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ("rnn",)}, "two models or more"),
        ({"models": ("rnn", "rnn")}, "each once"),
        ({"equal": "money"}, "choose one of parameters, flops, seconds, tokens"),
        ({"vary": "steps"}, "--vary=steps --equal=parameters"),
        ({"equal": "tokens"}, "--vary=width --equal=tokens"),
        ({"config": f"{CLDR}:rnn"}, "name the models in --models"),
    ],
)
def test_arguments_that_exclude_each_other_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        request(**changes)


def test_flops_of_a_config_with_epochs_are_refused():
    multi30k = str(ROOT / "configs" / "multi30k.py")
    with pytest.raises(UserError, match=r"--config\.epochs=0 --config\.steps=N"):
        Plan.from_request(request(config=multi30k, equal="flops"))


def test_architectures_that_do_not_share_a_score_are_refused():
    one, other = base.get_config("rnn"), base.get_config("transformer")
    assert shared_metric({"rnn": one, "transformer": other}).name == "bleu"
    other.data.tokenizer = "word"
    with pytest.raises(UserError, match=r"do not share a score: data\.tokenizer"):
        shared_metric({"rnn": one, "transformer": other})
    other.data.tokenizer, other.keep.metric = one.data.tokenizer, "loss"
    with pytest.raises(UserError, match="score is 'bleu' and 'loss'"):
        shared_metric({"rnn": one, "transformer": other})


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("bogus", "Unknown keep.metric 'bogus'"),
        (
            "matthews",
            "has no paired test: set keep.metric to one of accuracy, macro_f1",
        ),
    ],
)
def test_a_score_that_cannot_be_compared_is_refused_before_training(metric, message):
    cfg = base.get_config("rnn")
    cfg.task, cfg.keep.metric = "classification", metric
    with pytest.raises(UserError, match=message):
        shared_metric({"rnn": cfg})


def test_a_plan_is_read_as_it_was_written(plan, tmp_path):
    folder = ComparisonFolder.open(tmp_path / "new")
    folder.write_plan(plan)
    assert folder.read_plan() == plan
    folder.check_request(plan, request())
    changed = request(overrides={"data.dir": "/elsewhere"})  # of this machine
    folder.check_request(plan, changed)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trials": 2}, "trials.rnn is 3 there and 2 here"),
        ({"seeds": 4}, "seeds is 3 there"),
        ({"budgets": (1e6,)}, "budgets"),
        ({"overrides": {"steps": 10}}, "steps is 1300 there and 10 here"),
        ({"models": ("rnn", "transformer_xl")}, "models"),
    ],
)
def test_another_comparison_in_the_same_folder_is_refused(
    plan, tmp_path, changes, words
):
    folder = ComparisonFolder.open(tmp_path / "new")
    folder.write_plan(plan)
    with pytest.raises(UserError, match=words):
        folder.check_request(plan, request(**changes))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    refused = {tmp_path: "not the folder", tmp_path / "notes.txt": "a file"}
    for path, words in refused.items():
        with pytest.raises(UserError, match=words):
            ComparisonFolder.open(path)
    (tmp_path / "compare.json").write_text(json.dumps({"version": 1}))
    with pytest.raises(UserError, match="damaged"):
        ComparisonFolder.open(tmp_path).read_plan()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--models=cnn,rnn"], ["cnn"]),
        (["--budget=much"], ["A budget is a number", "'much'"]),
        (["--budget=-1"], ["finite and greater than 0"]),
        (["--budget=1e6", "--budgets=1e6,2e6"], ["exclude each other"]),
        (["--space=nowhere.py"], ["nowhere.py does not exist"]),
    ],
)
def test_the_command_refuses_flags_in_one_line(flags, words):
    done = run(MAIN, f"--config={CLDR}", "--dry_run", *flags)
    assert_refused(done, *words)
