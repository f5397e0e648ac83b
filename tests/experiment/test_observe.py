"""`every.watch` and `every.fingerprint` record what a run does and change nothing."""

import json

import jax
import numpy as np
import pytest

from analysis.diverge.records import read_checkpoint
from helpers.stopped_runs import train_in_parts
from helpers.text_runs import text_config, train_text
from sweeps import population
from training.metric_writers import read_events
from training.observe.fingerprint import (
    FILE,
    digest_tree,
    digests_by_name,
    equals,
    named_arrays,
    read_fingerprints,
    relative_distance,
)

STEPS = 6
OBSERVERS = {"every.fingerprint": 2, "every.watch": 2}
OPTIONS = {"model": "transformer_xl", "model.dropout": 0.1, "model.layers": 1}
OPTIONS |= {"model.width": 16, "every.checkpoint": 3}
OPTIONS |= {"optim.name": "sgd", "optim.momentum": 0.9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run with both observers, and of the same run without."""
    folder = tmp_path_factory.mktemp("runs")
    train_text(folder, "recorded", **OPTIONS, **OBSERVERS)
    train_text(folder, "plain", **OPTIONS)
    return folder


def by_step(workdir, split):
    """Returns the rows of the log of a split, by step."""
    lines = map(json.loads, (workdir / "metrics.jsonl").open())
    return {row["step"]: row for row in lines if row["split"] == split}


def test_an_observed_run_is_the_same_to_the_bit(folder):
    recorded = read_checkpoint(folder / "recorded", STEPS)
    plain = read_checkpoint(folder / "plain", STEPS)
    assert recorded.keys() == plain.keys()
    for name, array in plain.items():
        np.testing.assert_array_equal(recorded[name], array)
    assert not (folder / "plain" / FILE).exists()
    assert by_step(folder / "plain", "watch") == {}
    recorded, plain = (by_step(folder / x, "train") for x in ("recorded", "plain"))
    assert len(plain) == STEPS
    assert [row["loss"] for row in recorded.values()] == [
        row["loss"] for row in plain.values()
    ]


def test_fingerprints_have_the_inputs_of_steps_in_order(folder):
    found = read_fingerprints(folder / "recorded" / FILE)
    assert list(found.rows) == [2, 4, 6]
    groups = dict.fromkeys(name.split("/")[0] for name in found.digests(2))
    assert list(groups) == ["batch", "carry", "params", "opt_state"]
    assert found.header["config"]["every"]["fingerprint"] == 2
    assert "versions" in found.header["about"]


def test_the_digests_are_those_of_checkpoints(folder):
    found = read_fingerprints(folder / "recorded" / FILE).digests(4)  # before step 4
    stored = read_checkpoint(folder / "recorded", 3)
    arrays = {name.removeprefix("state/"): array for name, array in stored.items()}
    names = [name for name in found if not name.startswith("batch")]
    tree = {name: arrays[name] for name in names}
    stored = digests_by_name(named_arrays(tree), *jax.jit(digest_tree)(tree))
    for name in names:
        assert equals(stored[name], found[name]), name


def test_the_log_has_norms_of_every_group(folder):
    logged = by_step(folder / "recorded", "watch")
    assert list(logged) == [2, 4, 6]
    groups = {"embedding", "head", "stack", "stack/final_norm", "stack/layers_0"}
    for kind in ("parameter_norm", "gradient_norm", "update_norm", "update_ratio"):
        names = {name for name in logged[2] if name.startswith(f"{kind}/")}
        assert names == {f"{kind}/{group}" for group in groups}


def test_norms_of_groups_add_up_to_the_logged_norm(folder):
    for step, row in by_step(folder / "recorded", "watch").items():
        norms = [x for name, x in row.items() if name.startswith("gradient_norm/")]
        expected = by_step(folder / "recorded", "train")[step]["gradient_norm"]
        np.testing.assert_allclose(np.linalg.norm(norms), expected, rtol=1e-5)


def test_tensorboard_has_histograms_of_every_group(folder):
    (file,) = (folder / "recorded/tensorboard").glob("*tfevents*")
    values = [
        value
        for _, event in read_events(file.read_bytes())
        if event.step == 4
        for value in event.summary.value
    ]
    found = {value.tag: value.histo for value in values if value.HasField("histo")}
    kinds = {name.split("/")[1] for name in found}
    assert kinds == {"parameter", "gradient", "update"}
    histogram = found["watch/gradient/stack/layers_0"]
    assert sum(histogram.bucket) == histogram.num > 1000
    assert histogram.bucket_limit[-1] == histogram.max
    norm = by_step(folder / "recorded", "watch")[4]["gradient_norm/stack/layers_0"]
    np.testing.assert_allclose(np.sqrt(histogram.sum_squares), norm, rtol=1e-6)


@pytest.mark.slow
def test_an_interrupted_run_has_the_same_records(folder, monkeypatch):
    cfg = text_config(folder, **OPTIONS, **OBSERVERS)
    train_in_parts(cfg, folder / "parts", 5, monkeypatch)
    parts, whole = folder / "parts", folder / "recorded"
    assert by_step(parts, "watch") == by_step(whole, "watch")
    found, expected = (read_fingerprints(x / FILE).rows for x in (parts, whole))
    assert found == expected


@pytest.mark.slow
def test_each_trial_of_a_population_has_fingerprints(folder):
    options = {**OPTIONS, "every.fingerprint": 2}
    configs = [text_config(folder, **options, **{"optim.lr": x}) for x in (3e-3, 6e-3)]
    population.train(configs, [folder / "trial 0", folder / "trial 1"])
    alone, first, second = (
        read_fingerprints(folder / name / FILE).digests(4)
        for name in ("recorded", "trial 0", "trial 1")
    )
    assert alone.keys() == first.keys() == second.keys()
    for name, digest in alone.items():
        assert relative_distance(digest, first[name]) < 1e-4, name
        if name.startswith("batch"):
            assert equals(digest, first[name])
            assert equals(digest, second[name])
    different = [name for name in alone if not equals(first[name], second[name])]
    assert any(name.startswith("params") for name in different)
