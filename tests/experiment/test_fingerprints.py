"""`every.fingerprint` records digests of each step's inputs and changes nothing."""

import jax
import numpy as np
import pytest

from analysis.diverge.records import read_checkpoint
from helpers.stopped_runs import train_in_parts
from helpers.text_runs import text_config, train_text
from sweeps import population
from training.observe.fingerprint import (
    FILE,
    digest_tree,
    digests_by_name,
    equals,
    named_arrays,
    read_fingerprints,
    relative_distance,
)
from utils.errors import UserError

STEPS = 6
OPTIONS = {"model": "transformer_xl", "model.dropout": 0.1, "model.layers": 1}
OPTIONS |= {"every.checkpoint": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run with fingerprints, and of the same run without."""
    folder = tmp_path_factory.mktemp("runs")
    train_text(folder, "recorded", **OPTIONS, **{"every.fingerprint": 2})
    train_text(folder, "plain", **OPTIONS)
    return folder


def rows(workdir):
    return read_fingerprints(workdir / FILE).rows


def test_a_run_with_fingerprints_is_the_same_to_the_bit(folder):
    recorded = read_checkpoint(folder / "recorded", STEPS)
    plain = read_checkpoint(folder / "plain", STEPS)
    assert recorded.keys() == plain.keys()
    for name, array in plain.items():
        np.testing.assert_array_equal(recorded[name], array)
    assert not (folder / "plain" / FILE).exists()


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


@pytest.mark.slow
def test_an_interrupted_run_has_the_same_fingerprints(folder, monkeypatch):
    cfg = text_config(folder, **OPTIONS, **{"every.fingerprint": 2})
    train_in_parts(cfg, folder / "parts", 5, monkeypatch)
    assert rows(folder / "parts") == rows(folder / "recorded")


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


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "fingerprints.jsonl"
    for text in ("", "text\n", '{"step": 1, "split": "train"}\n'):
        path.write_text(text)
        with pytest.raises(UserError, match="has no fingerprints"):
            read_fingerprints(path)
