"""Sweeps and populations of encoders' tasks."""

import json

import numpy as np
import pytest

from experiment import train
from helpers.document_runs import masked_config, write_documents
from helpers.entry_points import assert_refused, run
from helpers.labeled_runs import labeled_config, write_colored
from sweeps import population
from training.loop import ExitStatus
from training.vmapped_trials.step import varying_values
from utils.errors import UserError

SHORT = {
    "steps": 4,
    "every.log": 1,
    "every.eval": 4,
    "every.checkpoint": 4,
    "data.batch_size": 8,
    "data.buckets": 1,
    "eval.batch_size": 64,
    "optim.name": "sgd",
}
CASES = {
    "classification": (
        write_colored,
        labeled_config,
        "rnn",
        [
            {"head.dropout": 0.1, "model.dropout": 0.2, "optim.lr": 0.1},
            {"head.dropout": 0.5, "model.dropout": 0.0, "optim.lr": 0.2, "seed": 1},
        ],
    ),
    "documents in order": (
        write_documents,
        masked_config,
        "transformer_xl",
        [
            {"data.document_order": True, "label_smoothing": 0.1, "optim.lr": 0.1},
            {"data.document_order": True, "label_smoothing": 0.0, "optim.lr": 0.2},
        ],
    ),
}


def logged(workdir):
    """Returns the losses of training and the scores of validation, by step."""
    rows = list(map(json.loads, (workdir / "metrics.jsonl").open()))
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    scores = [row for row in rows if row["split"] == "validation"]
    return losses, [row["loss"] for row in scores]


@pytest.mark.parametrize(
    "case",
    ["documents in order", pytest.param("classification", marks=pytest.mark.slow)],
)
def test_a_trial_of_a_population_is_the_same_run_alone(case, tmp_path):
    write, config, model, points = CASES[case]
    write(tmp_path)
    configs = [config(tmp_path, model, **SHORT | point) for point in points]
    workdirs = [tmp_path / str(k) for k in range(len(points))]
    assert population.train(configs, workdirs) == [ExitStatus.FINISHED] * 2
    assert train.train(configs[1], tmp_path / "alone") is ExitStatus.FINISHED
    together, alone = logged(workdirs[1]), logged(tmp_path / "alone")
    assert [len(part) for part in alone] == [4, 1]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert logged(workdirs[0]) != together


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("head.pooling", ("mean", "max"), "'mean' and 'max'"),
        ("head.class_weights", ("none", "balanced"), "'none' and 'balanced'"),
        ("head.dropout", (None, 0.1), "None and 'a number'"),
        ("mlm.probability", (0.1, 0.2), "0.1 and 0.2"),
        ("mlm.whole_word", (False, True), "False and True"),
        ("data.batch_size", (4, 8), "4 and 8"),
    ],
)
def test_what_one_program_cannot_vary_is_named(tmp_path, key, values, words):
    configs = [labeled_config(tmp_path, **{key: value}) for value in values]
    with pytest.raises(UserError, match=f"{key} is {words} .* the same for all"):
        varying_values(configs)


SPACE = "from sweeps.search_space import *\ndef get_space():\n  return Space(grid({}))"


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"head.poling": ["max"]}, "Unknown config key 'head.poling' in the space"),
        ({"head.pooling": ["sum"]}, "Unknown head.pooling 'sum'; choose one of cls"),
        ({"head.dropout": [1.0]}, "head.dropout=1.0 must be"),
        ({"mlm.probability": ["a"]}, "mlm.probability='a' is not of type float"),
    ],
)
def test_a_space_with_an_invalid_value_is_refused(tmp_path, point, words):
    (tmp_path / "space.py").write_text(SPACE.format(point))
    done = run(
        "sweep.py",
        "--config=configs/classification/labeled_text.py:rnn",
        f"--space={tmp_path}/space.py",
        f"--workdir={tmp_path}/sweep",
        "--population=2",
    )
    assert_refused(done, words)
    assert not (tmp_path / "sweep").exists()
