"""Training of a population: configs that train together, each in its run directory.

The trials share batches and one compiled step (training/vmapped_trials/step.py says
in which settings they may differ); each leaves what a run of its own would leave.
"""

import contextlib
import copy
import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import numpy as np
from flax.core import meta
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from experiment import train as single_run
from experiment.observe import ObservedRun, open_observers
from experiment.setup import TrainingSetup
from sweeps.storage import Storage
from sweeps.trial_configs import check_population
from sweeps.trial_process import EXIT_CODE, STOPPED_MARK, write_exit_code
from training.checkpoint import Checkpoints
from training.loop import ExitStatus
from training.metrics import TrainProgress
from training.optim.optimizers import make_optimizer
from training.optim.param_groups import check_patterns
from training.profiling.environment import make_deterministic
from training.run_dir import RunDirectory
from training.signals import StopRequested, raise_on_signal
from training.step import TrainState
from training.trackers.registry import tracking
from training.vmapped_trials.loop import VmappedTrainLoop
from training.vmapped_trials.partitioner import VmappedPartitioner
from training.vmapped_trials.step import (
    Values,
    stack_values,
    varying_values,
    vmapped_step,
    with_values,
)
from training.watchdog import Watchdog
from utils.locks import exclusive_lock


@dataclasses.dataclass(frozen=True)
class Population:
    """Training of K configs that differ in `values`.

    Attributes:
      setup: the training setup that trials share, on the first device.
    """

    setup: TrainingSetup
    values: Values
    partitioner: VmappedPartitioner

    @property
    def stacked(self) -> dict[str, Array]:
        """The values as inputs of the step, on the devices."""
        return self.partitioner.put(stack_values(self.values))

    def trial_setup(self, values: dict[str, Array]) -> TrainingSetup:
        """Returns the setup of a trial for its values, which may be traced."""
        setup, shared = self.setup, self.setup.experiment
        cfg = with_values(shared.cfg, values)
        task = copy.copy(shared.task)
        task.label_smoothing = cfg.label_smoothing
        config = copy.copy(shared.model.config)
        for key in values:
            if key.startswith("model."):  # not `replace`: checks cannot read tracers
                name = key.removeprefix("model.")
                object.__setattr__(config, name, cfg.model[name])
        optimizer, schedule = make_optimizer(
            cfg.optim, setup.steps, width=cfg.model.width
        )
        model = shared.model.clone(config=config)
        if "head.dropout" in values:
            head = shared.model.head_config
            head = dataclasses.replace(head, dropout=cfg.head.dropout)
            model = model.clone(head_config=head)
        return dataclasses.replace(
            setup,
            experiment=dataclasses.replace(shared, cfg=cfg, task=task, model=model),
            optimizer=optimizer,
            schedule=schedule,
        )

    def init(self) -> tuple[TrainState, PyTree]:
        """Returns the first state and carry of all trials."""
        batch_size = self.setup.partitioner.pad_batch_size(self.setup.carry_batch_size)

        def make(values, _):
            setup = self.trial_setup(values)
            return meta.unbox(setup.make_state()), setup.initial_carry(batch_size)

        indices = self.partitioner.put(np.arange(self.partitioner.count))
        return self.partitioner.init(make, self.stacked, indices)

    def compiled_step(self) -> Callable:
        """Returns (active, state, carry, batch) -> (state, carry, metrics)."""
        step = self.partitioner.compile(
            vmapped_step(lambda values: self.trial_setup(values).step)
        )
        return functools.partial(step, self.stacked)

    def compile_observer(self, make: Callable, *, whole: bool = False) -> Callable:
        """Compiles a program of trials' setups; see `experiment.observe.ObservedRun`.

        Args:
          whole: without effect, since a trial is on one device.
        """
        del whole

        def observe(values, state, carry, batch):
            def observe_trial(values, state, carry):
                return make(self.trial_setup(values))(state, carry, batch)

            return jax.vmap(observe_trial)(values, state, carry)

        program = self.partitioner.compile_observer(observe)

        def call(active, state, carry, batch):
            numbers = jax.device_get(program(self.stacked, state, carry, batch))
            trials = np.flatnonzero(jax.device_get(active)).tolist()
            return {k: jax.tree.map(operator.itemgetter(k), numbers) for k in trials}

        return call

    def batch(self, k: int) -> PyTree:
        """Returns batch k on the devices."""
        return self.partitioner.put_batch(self.setup.batch(k))


def train(
    configs: Sequence[ConfigDict],
    workdirs: Sequence[str | Path],
    stop_requests: Callable[[], Iterable[int]] = tuple,
) -> list[ExitStatus]:
    """Trains all to their ends, from the newest checkpoint that all have.

    A trial that is over already is left alone.

    Args:
      stop_requests: returns the indices of trials that are to save and end.

    Returns:
      Why each trial ended; everything is saved then.
    """
    varying_values(configs)
    statuses = [read_exit(workdir) for workdir in workdirs]
    left = [k for k, status in enumerate(statuses) if status is None]

    def on_exit(index, status):
        k = left[index]
        statuses[k] = status
        name = STOPPED_MARK if status is ExitStatus.STOPPED else EXIT_CODE
        write_exit_code(workdirs[k], status, name)

    def stop_requests_of_left():
        requests = set(stop_requests())
        return [index for index, k in enumerate(left) if k in requests]

    with (
        contextlib.suppress(StopRequested),  # before the first step
        raise_on_signal(),
        contextlib.ExitStack() as stack,
    ):
        if left:
            chosen = [configs[k] for k in left], [workdirs[k] for k in left]
            _train(*chosen, stop_requests_of_left, on_exit, stack)
    return [ExitStatus.STOPPED if status is None else status for status in statuses]


def read_exit(workdir: str | Path) -> ExitStatus | None:
    """Returns how a trial ended; None where it is not over, though it may have stopped.

    A trial that stopped is about to be resumed, so its mark is removed.
    """
    storage = Storage(workdir)
    storage.delete(STOPPED_MARK)
    code = storage.read_bytes(EXIT_CODE)
    return None if code is None else ExitStatus(int(code))


def _train(configs, workdirs, stop_requests, on_exit, stack) -> None:
    """Trains, and leaves the locks of run directories to `stack`."""
    cfg = configs[0]
    if cfg.deterministic:
        make_deterministic()
    directories = [RunDirectory(workdir) for workdir in workdirs]
    for trial_cfg in configs:
        check_population(trial_cfg)
    documents = list(map(single_run.resolve_config, configs, directories))
    dataset = single_run.prepare_dataset(cfg, directories[0])
    partitioner = VmappedPartitioner(len(configs))
    shared = cfg.copy_and_resolve_references()
    shared.parallel.data = 1  # each trial is on one device
    devices = [partitioner.first_device]
    setup = single_run.make_setup(shared, dataset, devices=devices)
    population = Population(setup, varying_values(configs), partitioner)
    state, carry = population.init()
    first_state = partitioner.trial(state, 0)
    check_patterns(cfg.optim, first_state.params)
    validate = single_run.make_validate(setup, dataset)
    metadata = single_run.run_metadata(first_state, dataset, setup.steps)
    for directory, document in zip(directories, documents, strict=True):
        stack.enter_context(exclusive_lock(directory.path))
        single_run.init_run_dir(directory, document, metadata, dataset)

    stores = [setup.open_checkpoints(directory) for directory in directories]
    step, state, carry, progresses = restore_newest(population, stores, state, carry)
    records = [
        setup.open_record(directory, progress, checkpoints, step=step)
        for directory, progress, checkpoints in zip(
            directories, progresses, stores, strict=True
        )
    ]
    stack.enter_context(tracking(cfg.track, *directories))
    observers = ObservedRun(setup, records, directories, population.compile_observer)
    saved_step = stores[0].newest_saved
    watchdog = Watchdog(cfg.stall_minutes, cfg.on_stall, saved_step)
    stack.enter_context(watchdog)
    loop = VmappedTrainLoop(
        settings=setup.loop_settings,
        records=records,
        partitioner=partitioner,
        step=population.compiled_step(),
        batch=population.batch,
        checkpoint_state=setup.checkpoint_state,
        validate=validate,
        flops=setup.flops(first_state),
        stop_requests=stop_requests,
        waiting=watchdog.waiting,
        observe=open_observers(observers),
        on_exit=on_exit,
    )
    loop.train(state, carry)
    for directory, record in zip(directories, records, strict=True):
        single_run.dump_nonfinite(directory, setup, record)


def restore_newest(
    population: Population,
    stores: Sequence[Checkpoints],
    state: TrainState,
    carry: PyTree,
) -> tuple[int, TrainState, PyTree, list[TrainProgress]]:
    """Returns the newest intact step that all trials have saved, and what they saved.

    Later checkpoints, which not all had written when they were killed, are removed:
    they will be written again.
    """
    shared = set.intersection(*(set(checkpoints.steps()) for checkpoints in stores))

    def is_intact(step):
        return all(checkpoints.find_corruption(step) is None for checkpoints in stores)

    step = next(filter(is_intact, sorted(shared, reverse=True)), None)
    for checkpoints in stores:
        for later in [k for k in checkpoints.steps() if step is None or k > step]:
            checkpoints.manager.delete(later)
    if step is None:
        return 0, state, carry, [TrainProgress() for _ in stores]
    print(f"resuming {len(stores)} trials at step {step}")
    setup, partitioner = population.setup, population.partitioner
    new_carry = setup.make_carry()
    like = setup.checkpoint_state(partitioner.trial(state, 0), new_carry)
    restored = [checkpoints.restore(step, like) for checkpoints in stores]
    trials = [setup.from_checkpoint(content, new_carry) for content, _ in restored]
    progresses = [
        single_run.resumed_progress(setup, document) for _, document in restored
    ]
    return step, *partitioner.stack(trials), progresses
