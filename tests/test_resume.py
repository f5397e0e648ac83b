"""A run that was stopped goes on as if it had not been."""

import json
import os
import signal

import jax
import numpy as np
import pytest
from small_runs import config, small_corpora

import experiment
from training.checkpoints import Checkpoints
from training.loop import Ending

STEPS, STOP = 6, 3


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_corpora(monkeypatch)
        yield tmp_path_factory.mktemp("data")


def final_content(workdir):
    """All that the newest checkpoint holds, as numpy arrays by name."""
    import orbax.checkpoint as ocp

    checkpoints = Checkpoints(workdir / "checkpoints")
    step = checkpoints.find("last")
    checkpoints.close()
    folder = (workdir / "checkpoints" / str(step) / "content").absolute()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        found = reader.restore(folder)
    leaves = jax.tree_util.tree_leaves_with_path(found)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["step"], row["split"], row["loss"]) for row in rows]


@pytest.mark.parametrize(
    ("corpus", "model"),
    [("python_stdlib", "transformer_xl"), ("python_stdlib", "rnn"), ("cldr", "rnn")],
)
def test_stopped_and_resumed_is_the_same_to_the_bit(
    data_dir, tmp_path, monkeypatch, corpus, model
):
    changes = {
        "model.dropout": 0.1,
        "every.log": 2,
        "every.eval": STEPS,
        "every.checkpoint": STOP,
        "eval.batch_rows": 64,
        "eval.segment_length": 64,
        "decode.max_length": 4,
    }
    cfg = config(corpus, model, data_dir, steps=STEPS, **changes)
    assert experiment.train(cfg, tmp_path / "whole") is Ending.FINISHED

    compile_step = experiment.Training.compiled_step
    calls = []

    def stopping(*args):
        step = compile_step(*args)

        def counted(*inputs):
            calls.append(1)
            if len(calls) == STOP:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(*inputs)

        return counted

    with monkeypatch.context() as inner:
        inner.setattr(experiment.Training, "compiled_step", stopping)
        assert experiment.train(cfg, tmp_path / "parts") is Ending.STOPPED
    assert len(calls) == STOP
    assert experiment.train(cfg, tmp_path / "parts") is Ending.FINISHED
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    whole, parts = (final_content(tmp_path / name) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert any("carry" in name for name in whole) == (corpus == "python_stdlib")
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)
