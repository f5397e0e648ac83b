"""Observers of a run or of a population, chosen by keys of `cfg.every`."""

import dataclasses
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from experiment.setup import TrainingSetup
from training.loop import RunRecord
from training.observe.hook import Observer, notify
from training.run_dir import RunDirectory

# Functions that return the `observe` of an Observer for an `ObservedRun`, by the key
# with its interval; imported where a run has it.
OBSERVERS = {
    "watch": "experiment.watch:make_watch",
    "fingerprint": "experiment.fingerprints:make_fingerprint",
}

# (state, carry, batch) -> a tree of arrays
Program = Callable[[PyTree, PyTree, PyTree], PyTree]


@dataclasses.dataclass(frozen=True)
class ObservedRun:
    """One run, or several trials that train as one program, as observers see it.

    Attributes:
      setup: the training setup, which trials share.
      records: log of each trial; only that of the first process writes lines.
      directories: run directory of each trial.
      compile: compiles the program that a function returns for a trial's setup.
        The result takes the inputs of the step and returns, on the host, what the
        program returns for each active trial, by its index. With `whole=True` the
        program reads all rows of a batch under pmap too; otherwise those of a device,
        as the step does there.
    """

    setup: TrainingSetup
    records: Sequence[RunRecord]
    directories: Sequence[RunDirectory]
    compile: Callable[..., Callable[..., dict[int, Any]]]


def open_observers(run: ObservedRun) -> Callable[..., None] | None:
    """Returns a function that calls the observers that the config asks for, if any."""
    every = run.setup.experiment.cfg.every
    observers = [
        Observer(every[key], pkgutil.resolve_name(name)(run))
        for key, name in OBSERVERS.items()
        if every[key]
    ]
    return notify(observers)


def observe_run(
    setup: TrainingSetup, directory: RunDirectory, records: Sequence[RunRecord]
) -> Callable[..., None] | None:
    """Returns a function that calls the observers of one run, with its one record."""

    def compile_program(
        make: Callable[[TrainingSetup], Program], *, whole: bool = False
    ):
        program = setup.partitioner.compile_observer(make(setup), whole=whole)
        return lambda *inputs: {0: jax.device_get(program(*inputs))}

    return open_observers(ObservedRun(setup, records, [directory], compile_program))
