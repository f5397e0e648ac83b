"""A run that was stopped goes on as if it had not been."""

import pytest

from analysis.diverge.records import differences, read_checkpoint
from experiment import train
from helpers.small_runs import config
from helpers.stopped_runs import train_in_parts
from training.loop import ExitStatus

STEPS, STOP = 6, 3


@pytest.mark.parametrize(
    ("corpus", "model"),
    [  # language models: data/test_buckets.py and test_fault_injection.py
        pytest.param("python_stdlib", "transformer_xl", marks=pytest.mark.slow),
        ("cldr", "rnn"),
    ],
)
def test_stopped_and_resumed_is_the_same_to_the_bit(
    data_dir, tmp_path, monkeypatch, corpus, model
):
    changes = {
        "model.dropout": 0.1,
        "every.log": 2,
        "every.eval": STEPS,
        "every.checkpoint": STOP,
        "eval.batch_size": 64,
        "eval.segment_length": 64,
        "decode.max_length": 4,
    }
    cfg = config(corpus, model, data_dir, steps=STEPS, **changes)
    assert train.train(cfg, tmp_path / "whole") is ExitStatus.FINISHED
    train_in_parts(cfg, tmp_path / "parts", STOP, monkeypatch)
    assert differences(tmp_path / "whole", tmp_path / "parts") == []
    names = read_checkpoint(tmp_path / "whole", STEPS)
    assert any("carry" in name for name in names) == (corpus == "python_stdlib")
