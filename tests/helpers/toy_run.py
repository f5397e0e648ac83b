"""Training of a few numbers with noise and memory: the real loop in milliseconds.

The loss of a row is (x - y_b - 0.1 m_b + noise)^2; m is the carry, a running mean
of what a row has met.
"""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from training.checkpoint import Checkpoints
from training.loop import LoopSettings, RunRecord, TrainLoop
from training.metric_writers import open_writers, read_events
from training.metrics import TrainProgress
from training.signals import InterruptibleBatches
from training.step import make_state, make_step
from training.watchdog import Watchdog

ROWS, SIZE = 4, 3


def loss(variables, carry, batch, rng):
    noise = 0.1 * jax.random.normal(rng, batch["y"].shape)
    error = variables["params"]["x"] - batch["y"] - 0.1 * carry["mean"] + noise
    pairs = {"loss": ((error**2).mean(-1) @ batch["w"], batch["w"].sum())}
    return pairs, {"mean": 0.9 * carry["mean"] + 0.1 * batch["y"]}


def batch(k, broken=()):
    """Numbers of batch k; those `broken` hold a nan."""
    random = np.random.default_rng(k)
    values = random.normal(size=(ROWS, SIZE)).astype(np.float32)
    if k in broken:
        values[1, 2] = np.nan
    return {"y": values, "w": random.uniform(0.5, 1, ROWS).astype(np.float32)}


def settings(**changes):
    numbers = dict.fromkeys(("steps", "log_every", "eval_every", "save_every"), 0)
    options = {"patience": 0, "max_nonfinite_steps": 3, "metric": "loss"}
    return LoopSettings(**{**numbers, **options, "direction": "min", **changes})


@functools.cache
def compiled(ema):
    schedule = optax.cosine_decay_schedule(0.1, 100)
    adam = optax.with_extra_args_support(optax.adam(schedule))
    step = make_step(loss, adam, schedule, 0, ema_decay=ema)
    return jax.jit(step), adam


@dataclasses.dataclass
class Toy:
    """A run of the toy in a folder; `go` is one process of it."""

    folder: Path
    steps: int = 12
    ema: float = 0.9
    patience: int = 0
    max_nonfinite_steps: int = 3
    broken: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()  # of the validations; else those of x
    start: float = 0.0  # x before the first step
    save_minutes: float = 0.0
    stall_minutes: float = 0.0  # "stop" after them; 0: no watchdog

    def go(self, at=None, act=None):
        """Trains from where the folder is.

        Args:
          at: a moment, ("batch", k), ("step", k) or ("validation", k).
          act: what happens then.
        """
        step, optimizer = compiled(self.ema)
        state = make_state(
            {"x": jnp.full(SIZE, self.start)}, optimizer, ema_decay=self.ema
        )
        carry = {"mean": jnp.zeros((ROWS, SIZE))}
        checkpoints = Checkpoints(self.folder / "checkpoints")
        progress = TrainProgress()
        if found := checkpoints.restore_newest({"state": state, "carry": carry}):
            state, carry = found[0]["state"], found[0]["carry"]
            progress = TrainProgress(**found[1])
            progress.reset_nonfinite(self.max_nonfinite_steps, self.steps)

        def moment(kind, k):
            if (kind, k) == at:
                act()

        def stepping(state, carry, batch):
            moment("step", int(state.step))
            return step(state, carry, batch)

        def making(k):
            moment("batch", k)
            return batch(k, self.broken)

        def validate(state, stopped):
            moment("validation", int(state.step))
            InterruptibleBatches([None], stopped)[0]
            value = float(jnp.square(state.ema["x"] if self.ema else 0).sum())
            scores = dict(enumerate(self.scores, start=1))
            return {"loss": scores.get(int(state.step) // 3, value)}

        options = settings(
            steps=self.steps,
            log_every=2,
            eval_every=3,
            save_every=5,
            save_minutes=self.save_minutes,
            patience=self.patience,
            max_nonfinite_steps=self.max_nonfinite_steps,
        )
        last = {"train": progress.last_logged, "validation": progress.last_validated}
        writers = open_writers(self.folder, last, step=0, steps=self.steps)
        record = RunRecord(options, progress, writers, checkpoints, 1e9)
        statuses = []
        action = "stop" if self.stall_minutes else "off"
        watchdog = Watchdog(self.stall_minutes, action, checkpoints.newest_saved)
        loop = TrainLoop(
            settings=options,
            records=[record],
            step=stepping,
            batch=making,
            checkpoint_state=lambda state, carry: {"state": state, "carry": carry},
            validate=validate,
            flops=lambda k, batch: 1000 + k,
            waiting=watchdog.waiting,
            on_exit=lambda _, status: statuses.append(status),
        )
        try:
            with watchdog:
                return loop.train(state, carry), *statuses
        finally:
            checkpoints.manager.wait_until_finished()

    def left(self):
        """All that a finished run leaves, clocks excepted."""
        return {
            "checkpoints": self.stored(),
            "metrics": self.lines(),
            "events": self.events(),
        }

    def stored(self):
        """Content and progress of every checkpoint."""
        checkpoints = Checkpoints(self.folder / "checkpoints")
        found = {}
        for step in checkpoints.steps():
            manager = checkpoints.manager
            content = manager.restore(step)
            arrays = jax.tree.map(lambda x: np.asarray(x).tolist(), content["content"])
            numbers = {k: v for k, v in content["progress"].items() if k not in CLOCKS}
            found[step] = arrays, numbers, manager.metrics(step)
        checkpoints.close()
        return found

    def lines(self):
        text = (self.folder / "metrics.jsonl").read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        return [{k: v for k, v in row.items() if k not in CLOCKS} for row in rows]

    def events(self):
        """(step, tag, value) of all TensorBoard files."""
        files = sorted((self.folder / "tensorboard").glob("*tfevents*"))
        return sorted(
            (event.step, value.tag, value.simple_value)
            for file in files
            for _, event in read_events(file.read_bytes())
            for value in event.summary.value
            if value.tag.partition("/")[2] not in CLOCKS
        )


CLOCKS = (
    *("seconds", "window_seconds", "data_wait_fraction", "tokens_per_second"),
    *("flops_per_second", "mfu", "peak_memory_bytes"),
)
