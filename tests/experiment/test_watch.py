"""`every.watch` logs what a run computes and changes nothing of it."""

import json

import numpy as np
import pytest

from analysis.diverge.records import read_checkpoint
from experiment import train
from helpers.small_runs import config
from helpers.stopped_runs import train_in_parts
from training.loop import ExitStatus
from training.metric_writers import read_events
from training.observe.watch import group_name

STEPS = 6
CHANGES = {
    "model.dropout": 0.1,
    "every.log": 1,
    "every.eval": STEPS,
    "every.checkpoint": 3,
    "eval.batch_size": 64,
    "eval.segment_length": 64,
}


def small_config(data_dir, **changes):
    changes = {"steps": STEPS, **CHANGES, **changes}
    return config("python_stdlib", "transformer_xl", data_dir, **changes)


def rows(workdir, split):
    lines = map(json.loads, (workdir / "metrics.jsonl").open())
    return {row["step"]: row for row in lines if row["split"] == split}


@pytest.fixture(scope="module")
def runs(data_dir, tmp_path_factory):
    """The run directories of a run that is watched and of the same run that is not."""
    folder = tmp_path_factory.mktemp("runs")
    for watch in (0, 2):
        cfg = small_config(data_dir, **{"every.watch": watch})
        assert train.train(cfg, folder / str(watch)) is ExitStatus.FINISHED
    return folder / "2", folder / "0"


def test_a_watched_run_is_the_same_to_the_bit(runs):
    watched, plain = (read_checkpoint(folder, STEPS) for folder in runs)
    assert watched.keys() == plain.keys()
    for name, array in plain.items():
        np.testing.assert_array_equal(watched[name], array)
    watched, plain = (rows(folder, "train") for folder in runs)
    assert [row["loss"] for row in watched.values()] == [
        row["loss"] for row in plain.values()
    ]


def test_what_observes_a_run_is_no_part_of_its_step(data_dir):
    programs = set()
    for watch, action in ((0, "off"), (2, "skip")):
        cfg = small_config(data_dir, on_spike=action, **{"every.watch": watch})
        setup = train.make_setup(cfg, train.open_dataset(cfg))
        state = setup.partitioner.init(setup.make_state)
        inputs = state, setup.make_carry(), setup.batch(0)
        programs.add(setup.partitioner.lower(setup.step, *inputs).as_text())
    assert len(programs) == 1


def test_the_log_has_norms_of_every_group(runs):
    watched, plain = (rows(folder, "watch") for folder in runs)
    assert plain == {}
    assert list(watched) == [2, 4, 6]
    groups = {"embedding", "head", "stack", "stack/final_norm", "stack/layers_0"}
    for kind in ("parameter_norm", "gradient_norm", "update_norm", "update_ratio"):
        names = {name for name in watched[2] if name.startswith(f"{kind}/")}
        assert names == {f"{kind}/{group}" for group in groups}


def test_norms_of_groups_add_up_to_the_logged_norm(runs):
    for step, row in rows(runs[0], "watch").items():
        norms = [x for name, x in row.items() if name.startswith("gradient_norm/")]
        expected = rows(runs[0], "train")[step]["gradient_norm"]
        np.testing.assert_allclose(np.linalg.norm(norms), expected, rtol=1e-5)


def test_tensorboard_has_histograms_of_every_group(runs):
    (file,) = (runs[0] / "tensorboard").glob("*tfevents*")
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
    norm = rows(runs[0], "watch")[4]["gradient_norm/stack/layers_0"]
    np.testing.assert_allclose(np.sqrt(histogram.sum_squares), norm, rtol=1e-6)


@pytest.mark.slow
def test_an_interrupted_run_has_the_same_lines(data_dir, tmp_path, monkeypatch, runs):
    cfg = small_config(data_dir, **{"every.watch": 2})
    train_in_parts(cfg, tmp_path / "parts", 5, monkeypatch)
    assert rows(tmp_path / "parts", "watch") == rows(runs[0], "watch")


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("encoder/stack/layers_12/self_attention/query", "encoder/stack/layers_12"),
        ("decoder/cells_0/input", "decoder/cells_0"),
        ("embedding", "embedding"),
        ("decoder/alignment/query", "decoder/alignment"),
        ("stack", "stack"),
    ],
)
def test_a_group_is_a_layer_or_a_module(path, group):
    assert group_name(path.split("/")) == group
