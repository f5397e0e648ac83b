"""Training of a comparison: searches, fresh seeds of the winners, and score cards."""

import subprocess
import sys
import threading
from pathlib import Path

from analysis.compare.corpus import Corpus
from analysis.compare.folder import ComparisonFolder
from analysis.compare.plan import (
    BudgetPlan,
    ModelPlan,
    Plan,
    Request,
    check_request,
    open_space,
)
from analysis.paired_tests import MIN_BLOCKS
from analysis.report.score_cards import newest_cards
from sweeps import launch
from sweeps.search_space import Point, Space, listed
from sweeps.trial_process import FINISHED, STOPPED
from training.signals import graceful_stop
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.2


def make_plan(request: Request) -> Plan:
    """Prepares the corpus, and plans a comparison with its vocabularies and batches."""
    check_request(request)  # before the corpus, which may take long
    return Plan.from_request(request, open_corpus(request))


def open_corpus(request: Request) -> Corpus:
    """Prepares the corpus and checks its splits.

    Raises:
      UserError: the split on which the winners are scored is missing, or has too few
        sentences or other blocks.
    """
    from experiment.build import is_language_modeling, open_dataset
    from tasks.bootstrap import BLOCK_SIZE

    cfg, split = request.configs(request.models[0]).config({}), request.split
    dataset = open_dataset(cfg)
    splits = dataset.corpus.splits
    if split not in splits:
        raise UserError(
            f"--split={split}: {cfg.data.name} has the splits {', '.join(splits)}"
        )
    kind, count = "sentences or texts", splits[split]
    if is_language_modeling(cfg):
        [tokenized] = dataset.tokenized[split].values()
        kind = f"blocks of {BLOCK_SIZE} tokens"
        count = -(-len(tokenized.tokens) // BLOCK_SIZE)
    if count < MIN_BLOCKS:
        raise UserError(
            f"--split={split} of {cfg.data.name} has {count} {kind}, too few for a "
            f"test, which needs {MIN_BLOCKS}"
        )
    return Corpus(dataset)


def run(
    plan: Plan, request: Request, folder: ComparisonFolder, placement: launch.Placement
) -> int:
    """Runs what is left of a comparison; returns exit code 0, or 75 after a signal.

    Raises:
      UserError: no trial of a model finishes, or the scoring fails.
    """
    with graceful_stop() as stopped:
        for budget in plan.budgets:
            for model in budget.models:
                if stopped.is_set():
                    return STOPPED
                code = run_model(budget, model, request, folder, placement)
                if code != FINISHED:
                    return code
        return score(plan, folder, stopped)


def run_model(
    budget: BudgetPlan,
    model: ModelPlan,
    request: Request,
    folder: ComparisonFolder,
    placement: launch.Placement,
) -> int:
    """Runs the search of a model, and the seeds of its best point."""
    print(f"{model.model} at {budget.name} {request.equal}", flush=True)
    search = folder.search(budget, model)
    code = run_sweep(model.points, model, request, str(search), placement)
    if code != FINISHED:
        return code
    point = folder.winner(budget, model)["point"]
    points = [{**point, "seed": seed} for seed in model.seeds]
    final = folder.final(budget, model)
    return run_sweep(points, model, request, str(final), placement)


def run_sweep(
    points: list[Point],
    model: ModelPlan,
    request: Request,
    workdir: str,
    placement: launch.Placement,
) -> int:
    """Runs the trials of one sweep that are left; returns its exit code."""
    declared = open_space(request, model.model)
    space = Space(listed(points), value=declared.value, retries=declared.retries)
    sweep = launch.SweepPlan(request.configs(model.model), space, len(points))
    return launch.run(sweep, workdir, placement)


def score(plan: Plan, folder: ComparisonFolder, stopped: threading.Event) -> int:
    """Scores the runs of fresh seeds that have no score card of the split yet."""
    split = plan.asked["split"]
    runs = [
        str(run)
        for budget in plan.budgets
        for model in budget.models
        for run in folder.final_runs(budget, model)
        if split not in newest_cards(run)
    ]
    if not runs:
        return FINISHED
    command = (sys.executable, "-m", "analysis.compare.score", f"--split={split}")
    process = subprocess.Popen([*command, *(f"--run={run}" for run in runs)], cwd=ROOT)
    while process.poll() is None:
        if stopped.wait(POLL_SECONDS):
            process.terminate()
            process.wait()
            return STOPPED
    if process.returncode:
        raise UserError(
            f"scoring on {split} ended with exit code {process.returncode}; the same "
            "command scores the runs that are left"
        )
    return FINISHED
