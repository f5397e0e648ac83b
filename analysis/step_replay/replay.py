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

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from analysis.step_replay.batches import KeptBatches, read_batches, read_kept_batches
from analysis.step_replay.devices import make_setup, one_device_partitioner
from data.batching.base import Batch
from experiment.build import check_data, open_dataset
from experiment.init_from import InitialRun
from experiment.restore import open_experiment
from experiment.setup import TrainingSetup
from training.checkpoint import Checkpoints
from training.metric_writers import read_metrics
from training.metrics import TrainProgress, WeightedMetrics, compute
from training.optim.on_validation import on_validation
from training.run_dir import RunDirectory
from training.step import TrainState
from utils.errors import UserError

MAX_REPLAY_STEPS = 1000


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
        setup = make_setup(directory, experiment, dataset)
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
        partitioner = one_device_partitioner(self.directory, cfg)
        return dataclasses.replace(self.setup, partitioner=partitioner)


def format_seconds(seconds: float) -> str:
    """Formats a duration with one unit, such as "12 min"."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
