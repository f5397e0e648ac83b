"""A population from its configs: run directories like any others, trained together.

See training/vmapped_trials/step.py for what its members may differ in.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import numpy as np
from flax.core import meta
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from experiment.setup import TrainingSetup
from experiment.train import (
    Dataset,
    build_experiment,
    check_corpus,
    dump_nonfinite,
    init_run_dir,
    known_tokenizers,
    open_dataset,
    resolve_config,
    run_metadata,
    selection_metric,
    validator,
)
from experiment.validate import validate_population
from training.checkpoint import Checkpoints
from training.checksums import find_corruption
from training.loop import ExitStatus
from training.metric_logger import MetricLogger
from training.metric_writers import MetricWriters
from training.optim.optimizers import make_optimizer
from training.optim.param_groups import check_patterns
from training.profiling.environment import make_deterministic
from training.profiling.peak_flops import peak_flops_per_second
from training.progress import TrainProgress
from training.run_dir import RunDirectory
from training.signals import StopRequested, raise_on_signal
from training.step import TrainState
from training.vmapped_trials.loop import Trial, VmappedTrainLoop
from training.vmapped_trials.partitioner import VmappedPartitioner
from training.vmapped_trials.step import (
    Numbers,
    stack_values,
    varying_values,
    vmapped_step,
    with_values,
)
from utils.locks import exclusive_lock

ENDED = "exit_code"  # of a run that is over for good
STOPPED = "stopped"  # there after a member was told to end, until it is begun again


@dataclasses.dataclass(frozen=True)
class Population:
    """The training of configs that differ in `numbers`.

    Attributes:
      training: what members share, on the first device.
    """

    training: TrainingSetup
    numbers: Numbers
    partitioner: VmappedPartitioner

    @property
    def stacked(self) -> dict[str, Array]:
        """The numbers as the step takes them, where they are needed."""
        return self.partitioner.put(stack_values(self.numbers))

    def member(self, numbers: dict[str, Array]) -> TrainingSetup:
        """The training of one; its numbers may be traced."""
        training, shared = self.training, self.training.experiment
        cfg = with_values(shared.cfg, numbers)
        task = copy.copy(shared.task)
        task.label_smoothing = cfg.label_smoothing
        config = copy.copy(shared.model.config)
        for key in numbers:
            if key.startswith("model."):  # not `replace`: a check reads no tracer
                name = key.removeprefix("model.")
                object.__setattr__(config, name, cfg.model[name])
        optimizer, schedule = make_optimizer(
            cfg.optim, training.steps, width=cfg.model.width
        )
        model = shared.model.clone(config=config)
        return dataclasses.replace(
            training,
            experiment=dataclasses.replace(shared, cfg=cfg, task=task, model=model),
            optimizer=optimizer,
            schedule=schedule,
        )

    def init(self) -> tuple[TrainState, PyTree]:
        """The first state and carry of all."""
        rows = self.training.partitioner.pad_batch_size(self.training.rows)

        def make(numbers, _):
            training = self.member(numbers)
            return meta.unbox(training.make_state()), training.initial_carry(rows)

        places = self.partitioner.put(np.arange(self.partitioner.count))
        return self.partitioner.init(make, self.stacked, places)

    def compiled_step(self) -> Callable:
        """(active, state, carry, batch) -> (state, carry, pairs), of all."""
        step = self.partitioner.compile(
            vmapped_step(lambda numbers: self.member(numbers).step)
        )
        numbers = self.stacked

        def call(active, state, carry, batch):
            return step(numbers, active, state, carry, batch)

        call.cache_size = step._cache_size
        return call

    def batch(self, k: int) -> PyTree:
        """Batch k on the devices."""
        return self.partitioner.put_batch(self.training.batch(k))


def make_population(
    configs: Sequence[ConfigDict],
    dataset: Dataset,
    devices: Sequence[jax.Device] | None = None,
) -> Population:
    """That of configs that differ in numbers, on all devices or these.

    Raises UserError for configs that cannot train together.
    """
    numbers = varying_values(configs)
    partitioner = VmappedPartitioner(len(configs), devices)
    cfg = configs[0].copy_and_resolve_references()
    cfg.parallel.data = 1  # of each member
    shared = build_experiment(cfg, dataset.tokenizers, dataset.corpus.languages)
    training = TrainingSetup.from_experiment(
        shared, dataset, devices=[partitioner.first]
    )
    return Population(training, numbers, partitioner)


def train(
    configs: Sequence[ConfigDict],
    workdirs: Sequence[str | Path],
    asked: Callable[[], Iterable[int]] = tuple,
) -> list[ExitStatus]:
    """Trains all to their ends, from the newest checkpoint that all have.

    Returns why each ended, with everything saved. A run that is over is left alone.

    Args:
      asked: the members, by their place, that are to save and end.
    """
    varying_values(configs)
    endings = {
        k: ending
        for k, ending in enumerate(map(known_end, workdirs))
        if ending is not None
    }
    left = [k for k in range(len(configs)) if k not in endings]

    def ended(number, ending):
        endings[left[number]] = ending
        note_end(Path(workdirs[left[number]]), ending)

    def asked_of_left():
        found = set(asked())
        return [number for number, k in enumerate(left) if k in found]

    with contextlib.suppress(StopRequested), raise_on_signal():  # before the first step
        if left:
            chosen = [configs[k] for k in left], [workdirs[k] for k in left]
            with contextlib.ExitStack() as held:
                _train(*chosen, asked_of_left, ended, held)
    return [endings.get(k, ExitStatus.STOPPED) for k in range(len(configs))]


def known_end(workdir: str | Path) -> ExitStatus | None:
    """How a run is over; None: it is not, though it may have stopped."""
    (Path(workdir) / STOPPED).unlink(missing_ok=True)
    file = Path(workdir) / ENDED
    return ExitStatus(int(file.read_text())) if file.exists() else None


def note_end(workdir: Path, ending: ExitStatus) -> None:
    """Says in a run directory that its run is over, or has stopped."""
    name = STOPPED if ending is ExitStatus.STOPPED else ENDED
    draft = workdir / f"{name}.draft"
    draft.write_text(f"{int(ending)}\n", encoding="utf8")
    draft.replace(workdir / name)


def _train(configs, workdirs, asked, ended, held) -> None:
    cfg = configs[0]
    if cfg.deterministic:
        make_deterministic()
    directories = [RunDirectory(workdir) for workdir in workdirs]
    for one in configs:
        validate_population(one)
    documents = list(map(resolve_config, configs, directories))
    dataset = open_dataset(cfg.data, known_tokenizers(cfg, directories[0], None))
    check_corpus(cfg, dataset)
    population = make_population(configs, dataset)
    state, carry = population.init()
    first = population.partitioner.member(state, 0)
    check_patterns(cfg.optim, first.params)
    facts = run_metadata(first, dataset, population.training.steps)
    for directory, document in zip(directories, documents, strict=True):
        held.enter_context(exclusive_lock(directory.path))
        init_run_dir(directory, document, facts, dataset)
    keep = {"last": cfg.keep.last, "best": cfg.keep.best}
    stores = [Checkpoints(it.checkpoints, **keep) for it in directories]
    done, state, carry, progresses = resumed(population, stores, state, carry)
    parts = zip(directories, stores, progresses, strict=True)
    training = population.training
    run = VmappedTrainLoop(
        members=[make_member(training, *part, done) for part in parts],
        partitioner=population.partitioner,
        step=population.compiled_step(),
        batch=population.batch,
        checkpoint_state=training.checkpoint_state,
        validate=validator(training, dataset),
        best=selection_metric(cfg),
        steps=training.steps,
        eval_every=cfg.every.eval,
        save_every=cfg.every.checkpoint,
        patience=cfg.keep.patience,
        max_nonfinite_steps=cfg.max_nonfinite_steps,
        flops=training.flops(first),
        asked=asked,
        ended=ended,
    )
    run.train(state, carry, done)
    for directory, member in zip(directories, run.members, strict=True):
        if member.ending is ExitStatus.NOT_FINITE:
            dump_nonfinite(directory, training, member.progress)


def make_member(
    training: TrainingSetup,
    directory: RunDirectory,
    checkpoints: Checkpoints,
    progress: TrainProgress,
    done: int,
) -> Trial:
    """What one member keeps and writes, from the step it has `done`."""
    cfg = training.experiment.cfg
    writers = MetricWriters(directory.path, progress, step=done, steps=training.steps)
    meter = MetricLogger(
        progress, writers, cfg.every.log, peak_flops_per_second(cfg.model.dtype)
    )
    return Trial(progress, meter, writers, checkpoints)


def resumed(
    population: Population,
    stores: Sequence[Checkpoints],
    state: TrainState,
    carry: PyTree,
) -> tuple[int, TrainState, PyTree, list[TrainProgress]]:
    """The step that all members have done, and what they had then.

    Checkpoints after it, which not all had written when they were killed, are
    removed: they will be made again.
    """
    step = shared_step(stores)
    for store in stores:
        for later in [k for k in store.steps() if step is None or k > step]:
            store.manager.delete(later)
    if step is None:
        return 0, state, carry, [TrainProgress() for _ in stores]
    print(f"resuming {len(stores)} members at step {step}")
    training, partitioner = population.training, population.partitioner
    fresh = training.make_carry()
    like = training.checkpoint_state(partitioner.member(state, 0), fresh)
    contents, documents = zip(*(it.restore(step, like) for it in stores), strict=True)
    members = [training.from_checkpoint(content, fresh) for content in contents]
    progresses = [TrainProgress.from_json(document) for document in documents]
    for progress in progresses:
        progress.reset_nonfinite(training.experiment.cfg.max_nonfinite_steps)
    return step, *partitioner.joined(members), progresses


def shared_step(stores: Sequence[Checkpoints]) -> int | None:
    """The newest step of which all have a checkpoint that is whole."""
    steps = set.intersection(*(set(store.steps()) for store in stores))

    def is_whole(step):
        return all(
            find_corruption(store.folder / str(step)) is None for store in stores
        )

    return next(filter(is_whole, sorted(steps, reverse=True)), None)
