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

from experiment.setup import Training
from experiment.train import (
    Dataset,
    about,
    assemble,
    begin,
    best_metric,
    check_corpus,
    checked,
    keep_skipped,
    known_tokenizers,
    open_dataset,
    validator,
)
from experiment.validate import check_alone
from training.checkpoint import Checkpoints
from training.checksums import damage
from training.loop import Ending
from training.metric_logger import Meter
from training.metric_writers import Writers
from training.optim.optimizers import make_optimizer
from training.optim.param_groups import check_patterns
from training.profiling.environment import make_deterministic
from training.profiling.peak_flops import ceiling
from training.progress import Progress
from training.run_dir import RunDirectory
from training.signals import StopRequested, stop_at_once
from training.step import TrainState
from training.vmapped_trials.loop import Member, PopulationRun
from training.vmapped_trials.partitioner import PopulationPartitioner
from training.vmapped_trials.step import (
    Numbers,
    numbers_of,
    stacked_numbers,
    step_of_all,
    with_numbers,
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

    training: Training
    numbers: Numbers
    partitioner: PopulationPartitioner

    @property
    def stacked(self) -> dict[str, Array]:
        """The numbers as the step takes them, where they are needed."""
        return self.partitioner.put(stacked_numbers(self.numbers))

    def member(self, numbers: dict[str, Array]) -> Training:
        """The training of one; its numbers may be traced."""
        training, shared = self.training, self.training.experiment
        cfg = with_numbers(shared.cfg, numbers)
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
        rows = self.training.partitioner.padded(self.training.rows)

        def make(numbers, _):
            training = self.member(numbers)
            return meta.unbox(training.make_state()), training.initial_carry(rows)

        places = self.partitioner.put(np.arange(self.partitioner.count))
        return self.partitioner.init(make, self.stacked, places)

    def compiled_step(self) -> Callable:
        """(active, state, carry, batch) -> (state, carry, pairs), of all."""
        step = self.partitioner.compile(
            step_of_all(lambda numbers: self.member(numbers).step)
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
    numbers = numbers_of(configs)
    partitioner = PopulationPartitioner(len(configs), devices)
    cfg = configs[0].copy_and_resolve_references()
    cfg.parallel.data = 1  # of each member
    shared = assemble(cfg, dataset.tokenizers, dataset.corpus.languages)
    training = Training.of(shared, dataset, devices=[partitioner.first])
    return Population(training, numbers, partitioner)


def train(
    configs: Sequence[ConfigDict],
    workdirs: Sequence[str | Path],
    asked: Callable[[], Iterable[int]] = tuple,
) -> list[Ending]:
    """Trains all to their ends, from the newest checkpoint that all have.

    Returns why each ended, with everything saved. A run that is over is left alone.

    Args:
      asked: the members, by their place, that are to save and end.
    """
    numbers_of(configs)
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

    with contextlib.suppress(StopRequested), stop_at_once():  # before the first step
        if left:
            chosen = [configs[k] for k in left], [workdirs[k] for k in left]
            with contextlib.ExitStack() as held:
                _train(*chosen, asked_of_left, ended, held)
    return [endings.get(k, Ending.STOPPED) for k in range(len(configs))]


def known_end(workdir: str | Path) -> Ending | None:
    """How a run is over; None: it is not, though it may have stopped."""
    (Path(workdir) / STOPPED).unlink(missing_ok=True)
    file = Path(workdir) / ENDED
    return Ending(int(file.read_text())) if file.exists() else None


def note_end(workdir: Path, ending: Ending) -> None:
    """Says in a run directory that its run is over, or has stopped."""
    name = STOPPED if ending is Ending.STOPPED else ENDED
    draft = workdir / f"{name}.draft"
    draft.write_text(f"{int(ending)}\n", encoding="utf8")
    draft.replace(workdir / name)


def _train(configs, workdirs, asked, ended, held) -> None:
    cfg = configs[0]
    if cfg.deterministic:
        make_deterministic()
    directories = [RunDirectory(workdir) for workdir in workdirs]
    for one in configs:
        check_alone(one)
    documents = list(map(checked, configs, directories))
    dataset = open_dataset(cfg.data, known_tokenizers(cfg, directories[0], None))
    check_corpus(cfg, dataset)
    population = make_population(configs, dataset)
    state, carry = population.init()
    first = population.partitioner.member(state, 0)
    check_patterns(cfg.optim, first.params)
    facts = about(first, dataset, population.training.steps)
    for directory, document in zip(directories, documents, strict=True):
        held.enter_context(exclusive_lock(directory.path))
        begin(directory, document, facts, dataset)
    keep = {"last": cfg.keep.last, "best": cfg.keep.best}
    stores = [Checkpoints(it.checkpoints, **keep) for it in directories]
    done, state, carry, progresses = resumed(population, stores, state, carry)
    parts = zip(directories, stores, progresses, strict=True)
    training = population.training
    run = PopulationRun(
        members=[make_member(training, *part, done) for part in parts],
        partitioner=population.partitioner,
        step=population.compiled_step(),
        batch=population.batch,
        content=training.content,
        validate=validator(training, dataset),
        best=best_metric(cfg),
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
        if member.ending is Ending.NOT_FINITE:
            keep_skipped(directory, training, member.progress)


def make_member(
    training: Training,
    directory: RunDirectory,
    checkpoints: Checkpoints,
    progress: Progress,
    done: int,
) -> Member:
    """What one member keeps and writes, from the step it has `done`."""
    cfg = training.experiment.cfg
    writers = Writers(directory.path, progress, step=done, steps=training.steps)
    meter = Meter(progress, writers, cfg.every.log, ceiling(cfg.model.dtype))
    return Member(progress, meter, writers, checkpoints)


def resumed(
    population: Population,
    stores: Sequence[Checkpoints],
    state: TrainState,
    carry: PyTree,
) -> tuple[int, TrainState, PyTree, list[Progress]]:
    """The step that all members have done, and what they had then.

    Checkpoints after it, which not all had written when they were killed, are
    removed: they will be made again.
    """
    step = shared_step(stores)
    for store in stores:
        for later in [k for k in store.steps() if step is None or k > step]:
            store.manager.delete(later)
    if step is None:
        return 0, state, carry, [Progress() for _ in stores]
    print(f"resuming {len(stores)} members at step {step}")
    training, partitioner = population.training, population.partitioner
    fresh = training.make_carry()
    like = training.content(partitioner.member(state, 0), fresh)
    contents, documents = zip(*(it.restore(step, like) for it in stores), strict=True)
    members = [training.restored(content, fresh) for content in contents]
    progresses = [Progress.of_json(document) for document in documents]
    for progress in progresses:
        progress.begin_again(training.experiment.cfg.max_nonfinite_steps)
    return step, *partitioner.joined(members), progresses


def shared_step(stores: Sequence[Checkpoints]) -> int | None:
    """The newest step of which all have a checkpoint that is whole."""
    steps = set.intersection(*(set(store.steps()) for store in stores))

    def is_whole(step):
        return all(damage(store.folder / str(step)) is None for store in stores)

    return next(filter(is_whole, sorted(steps, reverse=True)), None)
