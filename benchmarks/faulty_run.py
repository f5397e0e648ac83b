"""A training process that reports its phase to `benchmarks.fault_injection`.

The current phase is one word in a memory-mapped file. `--without` omits a part of the
restored state, to verify that the comparison notices.
"""

import contextlib
import json
import mmap
import time
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiment import train
from training import checkpoint, loop
from utils import cli

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.")
MOMENT = flags.DEFINE_string("moment", None, "File that the moment is written to.")
WITHOUT = flags.DEFINE_enum(
    "without",
    "",
    ["", "carry", "ema", "stopping"],
    "Part of the state that restoring omits.",
)

SIZE = 64  # bytes of the file


class Moment:
    """Current phase of the process and the seconds of each phase."""

    def __init__(self, path: Path):
        path.write_bytes(b" " * SIZE)
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), SIZE)
        self.seconds: dict[str, list[float]] = {}
        self.name, self.count, self.begin = "start", 0, time.monotonic()
        self.write()

    def write(self) -> None:
        """Writes the phase and the number of changes to the file."""
        self.memory[:] = f"{self.name} {self.count}".ljust(SIZE).encode()

    def become(self, name: str) -> str:
        """Changes the phase and returns the previous one."""
        before, now = self.name, time.monotonic()
        if name != before:
            self.seconds.setdefault(before, []).append(now - self.begin)
            self.name, self.begin = name, now
            self.count += 1
            self.write()
        return before

    @contextlib.contextmanager
    def of(self, name: str):
        """Sets a phase for the duration of the context."""
        before = self.become(name)
        yield
        self.become(before)


def report_phases(moment: Moment) -> None:
    """Patches saving, steps and validation of a run to report their phases."""
    save, train = checkpoint.Checkpoints.save, loop.TrainLoop.train

    def saving(self, *arguments):
        with moment.of("save"):
            save(self, *arguments)

    def training(self, state, carry):
        step, validate, shapes = self.step, self.validate, set()

        def stepping(state, carry, batch):
            shape = tuple(leaf.shape for leaf in batch.values())
            busy = self.record.checkpoints.manager.is_saving_in_progress()
            name = "save" if busy else "step" if shape in shapes else "compile"
            shapes.add(shape)
            moment.become(name)
            return step(state, carry, batch)

        def validating(*arguments):
            with moment.of("evaluation"):
                return validate(*arguments)

        self.step, self.validate = stepping, validating
        return train(self, state, carry)

    checkpoint.Checkpoints.save, loop.TrainLoop.train = saving, training


def omit_from_restore(what: str) -> None:
    """Patches restoring so that a part keeps its initial value."""
    restore = checkpoint.Checkpoints.restore

    def restoring(self, step, like):
        content, progress = restore(self, step, like)
        if what == "carry":
            content = {**content, "carry": like["carry"]}
        elif what == "ema":
            state = content["state"].replace(ema=like["state"].ema)
            content = {**content, "state": state}
        elif what == "stopping":
            progress = {**progress, "best_score": None, "evals_since_best": 0}
        return content, progress

    checkpoint.Checkpoints.restore = restoring


def main() -> int:
    """Trains, and writes the seconds of each phase beside the phase file."""
    moment = Moment(Path(MOMENT.value))
    report_phases(moment)
    if WITHOUT.value:
        omit_from_restore(WITHOUT.value)
    ending = train.train(CONFIG.value, WORKDIR.value)
    moment.become("end")
    Path(f"{MOMENT.value}.json").write_text(json.dumps(moment.seconds))
    return ending


if __name__ == "__main__":
    cli.run_main(main)
