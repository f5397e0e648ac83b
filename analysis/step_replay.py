"""Training of a run again, from a checkpoint up to the inputs of a chosen step.

    replay = Replay.open("runs/rnn")
    inputs = replay.seek(1200)  # state, carry and batch before step 1200
    metrics = replay.advance()  # step 1200 itself

Every batch and every random number is a function of the config and the step, so the
steps are those of the run: to the bit on the same devices, otherwise up to rounding.
Nothing in the run directory is changed.
"""

import dataclasses
import functools
import math
import sys
import zipfile
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import ClosedJaxpr
from jaxtyping import PyTree

from data.batching.base import Batch, TrainBatches
from experiment.build import check_data, open_dataset
from experiment.init_from import InitialRun
from experiment.restore import open_experiment
from experiment.setup import TrainingSetup
from training.checkpoint import Checkpoints
from training.gradients import gradients
from training.metric_writers import read_metrics
from training.metrics import TrainProgress, WeightedMetrics, compute
from training.optim.on_validation import on_validation
from training.parallel.partitioner import JitPartitioner, make_partitioner
from training.parallel.pmap import PmapPartitioner
from training.run_dir import RunDirectory
from training.step import TrainState, apply_gradients
from utils.errors import UserError
from utils.paths import resolve_path

MAX_REPLAY_STEPS = 1000
# What numpy raises for a file that is no archive, or not a whole one.
NOT_BATCHES = (
    *(OSError, ValueError, TypeError, AttributeError, EOFError),
    *(zipfile.BadZipFile, zlib.error),
)


@dataclasses.dataclass(frozen=True)
class StepInputs:
    """Inputs of step `step`, counted from 1, on the devices.

    `state` and `carry` are donated by the next step of their replay.
    """

    step: int
    state: TrainState
    carry: PyTree
    batch: PyTree


class Replay:
    """Steps of a run, computed again.

    Attributes:
      setup: model, batches and devices; those of the run where this machine has as
        many, otherwise one device.
      kept: batches that the run saved in `replay/`, by step.
      missing: why the data of the run cannot be opened; "" where they can.
      history: mean metrics of each step that was replayed.
    """

    def __init__(self, directory: RunDirectory, setup: TrainingSetup, kept, missing=""):
        self.directory, self.setup = directory, setup
        self.kept, self.missing = dict(kept), missing
        self.history: dict[int, dict[str, float]] = {}
        self.rows = read_metrics(directory.path / "metrics.jsonl")
        self._checkpoints = Checkpoints(
            directory.checkpoints, directory.run_id, is_reader=True
        )
        self._state = self._carry = None
        if self.has_data and self.steps:
            # The newest checkpoint knows what was left out. From the first of those,
            # a batch that was kept before may be that of an earlier step.
            setup.batches.skip(self.progress(self.steps[-1]).skipped_batches)
            self.kept = {
                step: batch
                for step, batch in kept.items()
                if setup.batches.number(step - 1) == step - 1
            }

    @classmethod
    def open(
        cls, workdir: str, places: dict | None = None, batches: str | None = None
    ) -> "Replay":
        """Opens a run directory for replay.

        Args:
          places: folders of the data that have moved, by their key of `cfg.data`.
          batches: file of batches to use in place of others, such as one that
            `on_spike` left out.

        Raises:
          UserError: there is no run, or neither its data nor a kept batch.
        """
        directory, experiment = open_experiment(workdir, {"data": places or {}})
        kept, missing = read_kept_batches(directory), ""
        named = read_batches(batches) if batches else {}
        try:
            dataset = open_dataset(experiment.cfg, experiment.tokenizers)
            check_data(directory, dataset)
        except UserError as error:
            if not (kept or named):
                raise
            missing = str(error)
            cfg = experiment.cfg
            cfg.epochs, cfg.steps = None, directory.read_json("about.json")["steps"]
            dataset = KeptBatches(kept | named)
        setup = _make_setup(directory, experiment, dataset)
        replay = cls(directory, setup, kept, missing)
        replay.kept |= named
        return replay

    @property
    def has_data(self) -> bool:
        """Whether the corpus is there; otherwise only kept batches are."""
        return not self.missing

    @functools.cached_property
    def steps(self) -> list[int]:
        """Steps of the intact checkpoints, in ascending order; each is read once."""
        steps = self._checkpoints.steps()
        return [step for step in steps if not self._checkpoints.find_corruption(step)]

    def progress(self, step: int) -> TrainProgress:
        """Returns the progress in a checkpoint."""
        return TrainProgress(**self._checkpoints.progress(step))

    def start(self, step: int) -> int:
        """Returns the newest checkpoint before a step; 0 for the first state."""
        return max((s for s in self.steps if s < step), default=0)

    def seek(self, step: int, max_steps: int = MAX_REPLAY_STEPS) -> StepInputs:
        """Returns the inputs of a step; trains up to it.

        Args:
          max_steps: largest number of steps to train.

        Raises:
          UserError: the run has no such step, or it is too far from a checkpoint.
        """
        self.check(step, max_steps)
        start = self.start(step)
        if self._state is None or not start <= self._position < step:
            if after := self._unchanged_until(step):
                self._restore(after)
                number = jnp.full_like(self._state.step, step - 1)
                self._state = self._state.replace(step=number)
                return self.inputs()
            self._restore(start)
        self.announce(self._position + 1, step - 1, str(self.directory.path))
        for _ in range(self._position, step - 1):
            self.advance()
        return self.inputs()

    def announce(self, first: int, last: int, whose: str) -> None:
        """Prints on standard error which steps will be trained, and the time."""
        if last < first:
            return
        seconds = (self.seconds_per_step or 0) * (last + 1 - first)
        cost = f", about {format_seconds(seconds)} of training" if seconds else ""
        steps = f"step {first}" if first == last else f"steps {first} to {last}"
        print(f"replaying {steps} of {whose}{cost} ...", file=sys.stderr)

    def check(self, step: int, max_steps: int = MAX_REPLAY_STEPS) -> None:
        """Raises UserError for a step that `seek` would not reach."""
        if not 1 <= step <= self.setup.steps:
            raise UserError(
                f"--step={step}: this run has the steps 1 to {self.setup.steps}"
            )
        if (distance := self.distance(step)) <= max_steps:
            return
        start = self.start(step)
        origin = f"checkpoint {start}" if start else "the first state"
        seconds = self.seconds_per_step
        cost = f", about {format_seconds(distance * seconds)}" if seconds else ""
        listed = ", ".join(map(str, self.steps)) or "there is none"
        raise UserError(
            f"--step={step} is {distance} steps after {origin}, the nearest state "
            f"before it{cost}: allow that with --max_replay_steps={distance}, or "
            f"choose a step nearer to a checkpoint ({listed})"
        )

    def distance(self, step: int) -> int:
        """Returns the number of steps to train before a step, from a checkpoint."""
        return 0 if self._unchanged_until(step) else step - 1 - self.start(step)

    def inputs(self) -> StepInputs:
        """Returns the inputs of the next step."""
        step = self._position + 1
        return StepInputs(step, self._state, self._carry, self._batch(step))

    def advance(self) -> WeightedMetrics:
        """Trains one step, and returns its metrics on the host."""
        inputs = self.inputs()
        self._state, self._carry, metrics = self._step(
            inputs.state, inputs.carry, inputs.batch
        )
        metrics = jax.device_get(metrics)
        self.history[inputs.step] = compute(metrics)
        self._apply_validation(inputs.step)
        return metrics

    @property
    def nonfinite(self) -> set[int]:
        """Steps that were replayed and not finite."""
        steps = self.history.items()
        return {step for step, metrics in steps if metrics["nonfinite_steps"]}

    def has_batches(self, first: int, last: int) -> bool:
        """Whether the batches of some steps can be read."""
        return self.has_data or all(k in self.kept for k in range(first, last + 1))

    def host_batch(self, step: int) -> Batch:
        """Returns the batch of a step on the host: the kept one, if there is one.

        Raises:
          UserError: neither the data nor a kept batch of the step are there.
        """
        if step in self.kept:
            return self.kept[step]
        if not self.has_data:
            raise UserError(
                f"{self.directory.path} needs the batch of step {step}, and kept only "
                f"those of {', '.join(map(str, sorted(self.kept)))}; its data cannot "
                f"be opened (--data.dir names them): {self.missing}"
            )
        return self.setup.batches[step - 1]

    def _batch(self, step: int) -> PyTree:
        return self.setup.partitioner.put_batch(self.host_batch(step))

    @property
    def _position(self) -> int:
        """Number of steps before the current state."""
        return int(self._state.step)

    @functools.cached_property
    def _step(self):
        return self.setup.compiled_step(self._state, self._carry)

    def _restore(self, step: int) -> None:
        """Takes state and carry from a checkpoint, or makes the first ones for 0."""
        setup = self.setup
        state, carry = setup.partitioner.init(setup.make_state), setup.make_carry()
        cfg = setup.experiment.cfg
        if step:
            like = setup.checkpoint_state(state, carry)
            content, _ = self._checkpoints.restore(step, like)
            state, carry = setup.from_checkpoint(content, carry)
        elif cfg.init_from:
            state = InitialRun.open(cfg).init_state(state)
        self._state, self._carry = state, carry

    def _unchanged_until(self, step: int) -> int:
        """Returns a checkpoint with the state before a step; 0 where none is known.

        A step that is not finite changes nothing but the number of steps.
        """
        for later in self.steps:
            skipped = set(self.progress(later).consecutive_nonfinite)
            if skipped >= set(range(step, later + 1)) and step <= later:
                return later
        return 0

    @property
    def seconds_per_step(self) -> float | None:
        """Training time of a step in the log; None without two lines of it."""
        rows = [row for row in self.rows if row["split"] == "train"]
        timed = [row for row in rows if row.get("seconds")]
        if not timed:
            return None
        return timed[-1]["seconds"] / timed[-1]["step"]

    def _apply_validation(self, step: int) -> None:
        """Passes the logged validation loss of a step to the optimizer state."""
        for row in self.rows:
            if (row["split"], row["step"]) == ("validation", step):
                loss = math.nan if row.get("loss") is None else row["loss"]
                opt_state = on_validation(self._state.opt_state, loss)
                self._state = self._state.replace(opt_state=opt_state)

    def on_one_device(self, inputs: StepInputs) -> tuple[TrainingSetup, StepInputs]:
        """Returns the same inputs on the first device, with the setup for it.

        A run under `pmap` keeps the random numbers of each of its devices.
        """
        setup = self.one_device_setup
        if setup is self.setup:
            return setup, inputs
        content = self.setup.checkpoint_state(inputs.state, inputs.carry)
        content = jax.device_put(jax.device_get(content), jax.local_devices()[0])
        state, carry = setup.from_checkpoint(content, setup.make_carry())
        batch = setup.partitioner.put_batch(self.host_batch(inputs.step))
        return setup, StepInputs(inputs.step, state, carry, batch)

    @functools.cached_property
    def one_device_setup(self) -> TrainingSetup:
        """The setup of the run on the first device."""
        cfg = self.setup.experiment.cfg
        if self.setup.partitioner.mesh.size == 1 and cfg.parallel.mode != "pmap":
            return self.setup
        partitioner = _one_device_partitioner(self.directory, cfg)
        return dataclasses.replace(self.setup, partitioner=partitioner)


class KeptBatches(TrainBatches):
    """Batches that a run saved, in place of those of its dataset."""

    def __init__(self, kept: dict[int, Batch]):
        self.kept = kept
        shapes = {
            tuple(leaf.shape for leaf in batch.values()) for batch in kept.values()
        }
        self.shapes, self.epoch_length = sorted(shapes), 1
        self.batch_size = len(next(iter(next(iter(kept.values())).values())))

    def train_batches(self) -> "KeptBatches":
        """Returns these batches, as a dataset does."""
        return self

    def partial_batch(self, k: int, rows: slice) -> Batch:
        """Returns rows of batch k; any other batch where k was not kept."""
        batch = self.kept.get(k + 1) or next(iter(self.kept.values()))
        return {name: leaf[rows] for name, leaf in batch.items()}


class SerialPmapPartitioner(PmapPartitioner):
    """The program of `pmap` for several devices, on the first device with `vmap`."""

    def __init__(self, cfg, *, num_devices: int, num_microbatches: int = 1):
        """Makes the mesh; `cfg.data` is not used."""
        self.num_devices = num_devices
        cfg = cfg.copy_and_resolve_references()
        cfg.data = 1
        devices = jax.local_devices()[:1]
        super().__init__(cfg, num_microbatches=num_microbatches, devices=devices)

    @property
    def _num_row_shards(self) -> int:
        return self.num_devices

    def _map(self, step, in_axes, out_axes):
        return jax.vmap(step, in_axes, out_axes, axis_name=self.axis_name)


def _make_setup(directory: RunDirectory, experiment, dataset) -> TrainingSetup:
    """Returns the setup on the devices of the run, or else on one."""
    try:
        setup = TrainingSetup.from_experiment(experiment, dataset)
        mesh, is_pmap = setup.partitioner.mesh, experiment.cfg.parallel.mode == "pmap"
        if not is_pmap or mesh.size == _num_pmap_devices(directory, experiment.cfg):
            return setup
    except UserError as error:
        if not str(error).startswith("parallel."):
            raise
    first = jax.local_devices()[:1]
    cfg = experiment.cfg.copy_and_resolve_references()
    partitioner = _one_device_partitioner(directory, cfg)
    cfg.parallel.update(mode="jit", data=1, fsdp=1, tensor=1)
    alone = dataclasses.replace(experiment, cfg=cfg)
    setup = TrainingSetup.from_experiment(alone, dataset, first)
    return dataclasses.replace(setup, experiment=experiment, partitioner=partitioner)


def _one_device_partitioner(directory: RunDirectory, cfg) -> JitPartitioner:
    """Returns a partitioner of the first device for a config of any devices."""
    parallel = cfg.parallel.copy_and_resolve_references()
    parallel.update(data=1, fsdp=1, tensor=1)
    options = {"num_microbatches": cfg.grad_accum_steps}
    if parallel.mode == "pmap":
        num_devices = _num_pmap_devices(directory, cfg)
        return SerialPmapPartitioner(parallel, num_devices=num_devices, **options)
    return make_partitioner(parallel, devices=jax.local_devices()[:1], **options)


def _num_pmap_devices(directory: RunDirectory, cfg) -> int:
    """Returns the number of devices that a run under `pmap` was trained on."""
    devices = directory.read_json("about.json").get("devices", [""])
    return cfg.parallel.data if cfg.parallel.data > 0 else len(devices)


@dataclasses.dataclass(frozen=True)
class Program:
    """A step as a traced program, with a name for each of its inputs and outputs.

    Names of inputs begin with params/, opt_state/, ema/, carry/ or batch/; names of
    outputs also with gradients/ or metrics/, whose pairs are sum (0) and weight (1).
    """

    jaxpr: ClosedJaxpr
    args: list[jax.Array]
    input_names: list[str]
    output_names: list[str]


def step_program(setup: TrainingSetup, inputs: StepInputs) -> Program:
    """Traces loss, gradient and update of a step for its inputs on one device.

    The update is as it would be without the check that all is finite. Operations of
    the optimizer have the scope "optimizer".
    """
    cfg, axis_name = setup.experiment.cfg, setup.partitioner.axis_name

    def compute(state, carry, batch):
        rng = jax.random.fold_in(jax.random.key(cfg.seed), state.step)
        options = {"num_microbatches": cfg.grad_accum_steps, "axis_name": axis_name}
        grads, metrics, new_carry = gradients(
            setup.loss, state.params, carry, batch, rng, **options
        )
        with jax.named_scope("optimizer"):
            norm = optax.global_norm(grads)
            new = apply_gradients(state, grads, setup.optimizer, cfg.optim.ema_decay)
        return new, new_carry, {"gradients": grads, "metrics": metrics, "norm": norm}

    step = setup.partitioner.wrap(compute, inputs.carry)
    args = inputs.state, inputs.carry, inputs.batch
    jaxpr, shapes = jax.make_jaxpr(step, return_shape=True)(*args)
    state, carry, rest = shapes
    return Program(
        jaxpr,
        jax.tree.leaves(args),
        _names({**_parts(inputs.state), "carry": inputs.carry, "batch": inputs.batch}),
        _names({**_parts(state), "carry": carry, **rest}),
    )


def _parts(state: TrainState) -> dict:
    return {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}


def _names(trees: dict[str, PyTree]) -> list[str]:
    """Returns a name for each leaf of trees, in the order of `trees`."""
    names = []
    for prefix, tree in trees.items():
        for path, _ in jax.tree_util.tree_leaves_with_path(tree):
            key = jax.tree_util.keystr(path, simple=True, separator="/")
            names.append(f"{prefix}/{key}" if key else prefix)
    return names


def read_kept_batches(directory: RunDirectory) -> dict[int, Batch]:
    """Reads the batches in `replay/` of a run directory, by step.

    A file that cannot be read is left out, with a warning.
    """
    folder, kept = directory.path / "replay", {}
    for file in sorted(folder.glob("*.npz")) if folder.exists() else ():
        try:
            kept |= read_batches(file)
        except UserError as error:
            print(f"warning: {error}", file=sys.stderr)
    return kept


def read_batches(path: str | Path) -> dict[int, Batch]:
    """Reads a file of batches that a run saved (experiment/train.py), by step.

    Raises:
      UserError: it is another file.
    """
    batches: dict[int, Batch] = {}
    try:
        with (
            resolve_path(path).open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            for key in arrays.files:
                step, _, name = key.partition("/")
                batches.setdefault(int(step), {})[name] = arrays[key]
    except NOT_BATCHES as error:
        raise UserError(f"{path} holds no batches of a run: {error}") from error
    return batches


def format_seconds(seconds: float) -> str:
    """Formats a duration with one unit, such as "12 min"."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
