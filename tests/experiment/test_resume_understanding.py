"""Runs of encoders that were stopped go on as if they had not been."""

import jax
import pytest

from analysis.diverge.records import differences, read_checkpoint
from experiment import train
from helpers.document_runs import masked_config, write_documents
from helpers.labeled_runs import labeled_config, write_colored
from helpers.stopped_runs import train_in_parts
from helpers.tagged_runs import tagged_config, write_tagged
from training.loop import ExitStatus

STEPS, STOP = 4, 2
SHORT = {
    "steps": STEPS,
    "every.log": 2,
    "every.eval": STEPS,
    "every.checkpoint": STOP,
    "data.batch_size": 8,
    "data.buckets": 1,
    "eval.batch_size": 64,
    "model.dropout": 0.3,
}
CASES = {
    "classification": (
        write_colored,
        labeled_config,
        "transformer_xl",
        {"head.dropout": 0.5, "data.buckets": 2},
    ),
    "tagging with a CRF": (write_tagged, tagged_config, "rnn", {"head.crf": True}),
    "documents in order": (
        write_documents,
        masked_config,
        "transformer_xl",
        {"data.document_order": True, "data.max_length": 8},
    ),
    "next sentences": (
        write_documents,
        masked_config,
        "transformer",
        {"mlm.next_sentence": True},
    ),
}


@pytest.mark.parametrize(
    "case",
    [
        # test_resume.py and test_buckets.py cover a stop of runs with and without a
        # carry, tests/data/understanding that batches depend on their number alone.
        pytest.param("next sentences", marks=pytest.mark.slow),
        pytest.param("tagging with a CRF", marks=pytest.mark.slow),
        pytest.param("documents in order", marks=pytest.mark.slow),
        pytest.param("classification", marks=pytest.mark.slow),
    ],
)
def test_stopped_and_resumed_is_the_same_to_the_bit(case, tmp_path, monkeypatch):
    write, config, model, changes = CASES[case]
    write(tmp_path)
    cfg = config(tmp_path, model, **SHORT | changes)
    assert train.train(cfg, tmp_path / "whole") is ExitStatus.FINISHED
    train_in_parts(cfg, tmp_path / "parts", STOP, monkeypatch)
    assert differences(tmp_path / "whole", tmp_path / "parts") == []
    stored = read_checkpoint(tmp_path / "whole", STEPS)
    carry = [leaf for name, leaf in stored.items() if "carry" in name]
    assert bool(jax.tree.leaves(carry)) == (case == "documents in order")
