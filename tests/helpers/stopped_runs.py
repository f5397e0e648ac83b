"""Runs that a signal stops in the middle, and that the same command resumes."""

import os
import signal

from experiment import setup, train
from training.loop import ExitStatus


def train_in_parts(cfg, workdir, stop, monkeypatch):
    """Trains a run that SIGTERM stops in step `stop`, and then to its end."""
    compile_step = setup.TrainingSetup.compiled_step
    calls = []

    def stopping(*args):
        step = compile_step(*args)

        def counted(*inputs):
            calls.append(1)
            if len(calls) == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(*inputs)

        return counted

    with monkeypatch.context() as inner:
        inner.setattr(setup.TrainingSetup, "compiled_step", stopping)
        assert train.train(cfg, workdir) is ExitStatus.STOPPED
    assert len(calls) == stop
    assert train.train(cfg, workdir) is ExitStatus.FINISHED
