"""Folders of finished comparisons of language models with known scaling laws."""

import json

import numpy as np

from analysis.compare.folder import ComparisonFolder
from analysis.compare.plan import BudgetPlan, Metric, ModelPlan, Plan
from helpers.small_reports import make_run, write_json, write_lines
from sweeps.launch import VERSION
from sweeps.search_space import log_uniform, random, uniform

# E, A and alpha of loss(C) = E + A C^-alpha.
LAWS = {"rnn": (2.3, 4e5, 0.5), "transformer": (1.4, 396.4, 0.2)}
CROSSING = 8e12
BUDGETS = (1e12, 4e12, 16e12, 64e12)
NUM_TRIALS, NUM_SEEDS, NUM_BLOCKS = 8, 3, 60
SPACE = random({"optim.lr": log_uniform(1e-4, 1e-2), "model.dropout": uniform(0, 0.5)})


def expected_loss(model, budget):
    limit, coefficient, exponent = LAWS[model]
    return limit + coefficient * budget**-exponent


def make_comparison(folder, *, corpus="toy", budgets=BUDGETS, better=0.0):
    """Writes a comparison; the losses of the transformer are lower by `better`."""
    rng = np.random.default_rng(0)
    points = [SPACE.point(number, 0) for number in range(NUM_TRIALS)]
    plans = []
    for budget in budgets:
        name, models = f"{budget:.6g}", []
        for model in LAWS:
            seeds = list(range(1, 1 + NUM_SEEDS))
            models.append(ModelPlan(model, points, [budget] * NUM_TRIALS, seeds))
            loss = expected_loss(model, budget) - better * (model == "transformer")
            values = loss + 0.02 + 0.5 * rng.random(NUM_TRIALS)
            paths = folder / name / "search" / model, folder / name / "final" / model
            write_sweep(paths[0], model, points, values, corpus)
            best = points[int(np.argmin(values))]
            losses = loss + 0.01 * rng.standard_normal(NUM_SEEDS)
            finals = [{**best, "seed": seed} for seed in seeds]
            write_sweep(paths[1], model, finals, losses + 0.01, corpus)
            for number, seed in enumerate(seeds):
                run = paths[1] / "trials" / f"{number:04}"
                write_card(run, losses[number], budget, seed, corpus, rng)
        plans.append(BudgetPlan(name, budget, models))
    asked = {
        "equal": "flops",
        "vary": "width",
        "seeds": NUM_SEEDS,
        "split": "test",
        "config": "configs/toy.py",
        "models": list(LAWS),
        "budgets": list(budgets),
        "trials": dict.fromkeys(LAWS, NUM_TRIALS),
        "overrides": {},
        "configs": {},
        "spaces": {model: {"points": SPACE.to_dict()} for model in LAWS},
    }
    plan = Plan(json.loads(json.dumps(asked)), Metric("loss", "min"), plans)
    ComparisonFolder(folder).write_plan(plan)
    return folder


def write_sweep(folder, model, points, values, corpus):
    """Writes a sweep whose trials have finished, and their run directories."""
    metric = {"split": "validation", "name": "loss", "direction": "min"}
    trials = []
    for number, (point, value) in enumerate(zip(points, values, strict=True)):
        trial = {"trial": number, "state": "done", "point": point, "step": 40}
        trials.append(trial | {"value": float(value)})
        make_run(
            folder / "trials" / f"{number:04}",
            model,
            task="language_modeling",
            metrics=log_lines(float(value)),
            samples=[],
            baselines={},
            attention=None,
        )
    description = {"config": {}, "space": {}, "metric": metric, "version": VERSION}
    write_json(folder / "sweep.json", description)
    write_lines(folder / "trials.jsonl", trials)


def log_lines(value):
    """Returns the log of a run whose last validation has this loss."""
    rates = {"tokens_per_second": 500, "flops_per_second": 1e9}
    lines = []
    for step in (10, 20, 30, 40):
        loss = value + 0.3 * (40 / step - 1)
        lines.append({"step": step, "split": "train", "seconds": step / 2, **rates})
        lines.append({"step": step, "split": "validation", "loss": loss})
    return lines


def write_card(run, loss, budget, seed, corpus, rng):
    """Gives a run its seed and corpus, and a score card with blocks of this loss."""
    config = json.loads((run / "config.json").read_text())
    config |= {"seed": seed, "data": {**config["data"], "name": corpus}}
    write_json(run / "config.json", config)
    weight = np.full(NUM_BLOCKS, 128, np.uint32)
    # The difficulty of a block is the same for all runs.
    difficulty = np.random.default_rng(1).standard_normal(NUM_BLOCKS)
    noise = 0.3 * difficulty + 0.02 * rng.standard_normal(NUM_BLOCKS)
    total = weight * (loss + noise - noise.mean())
    np.savez(run / "eval" / "test-4.npz", total=total.astype(np.float32), weight=weight)
    card = json.loads((run / "eval" / "test-4.json").read_text())
    card["scores"] = {"loss": {"value": float(loss)}}
    memory = {"rnn": {"attention_window": 10}, "transformer": {}}
    card["protocol"] |= memory[config["model"]["name"]]
    write_json(run / "eval" / "test-4.json", card)
