"""A run that was stopped goes on as if it had not been."""

import os
import signal

import pytest

from analysis.compare_bitwise import differences, read_checkpoint
from experiment import setup, train
from helpers.document_runs import masked_config, write_documents
from helpers.small_runs import config, small_corpora
from training.loop import ExitStatus

STEPS, STOP = 6, 3


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_corpora(monkeypatch)
        yield tmp_path_factory.mktemp("data")


@pytest.mark.parametrize(  # of a recurrent language model: test_fault_injection.py
    ("corpus", "model"),
    [
        ("python_stdlib", "transformer_xl"),
        ("cldr", "rnn"),
        ("document_text", "transformer_xl"),
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
    if corpus == "document_text":  # masks, and a memory of the segment before
        write_documents(data_dir / "documents")
        changes |= {"steps": STEPS, "data.document_order": True}
        cfg = masked_config(data_dir / "documents", model, **changes)
    else:
        cfg = config(corpus, model, data_dir, steps=STEPS, **changes)
    assert train.train(cfg, tmp_path / "whole") is ExitStatus.FINISHED

    compile_step = setup.TrainingSetup.compiled_step
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
        inner.setattr(setup.TrainingSetup, "compiled_step", stopping)
        assert train.train(cfg, tmp_path / "parts") is ExitStatus.STOPPED
    assert len(calls) == STOP
    assert train.train(cfg, tmp_path / "parts") is ExitStatus.FINISHED
    assert differences(tmp_path / "whole", tmp_path / "parts") == []
    names = read_checkpoint(tmp_path / "whole", STEPS)
    assert any("carry" in name for name in names) == (model == "transformer_xl")
