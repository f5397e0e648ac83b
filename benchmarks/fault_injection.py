"""Kills and resumes a run repeatedly and compares it with an undisturbed one.

python -m benchmarks.fault_injection --kills=30 --config=configs/cldr.py:rnn

Kills come at random in every phase: at start, while compiling, in a step, in a save, in
an evaluation. At some restarts the newest checkpoint is damaged or the disk is full.
`--without` omits a part of the restored state, to verify that the comparison notices.
The last line is a JSON object; the exit code is 1 if an interrupted run differs.
"""

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from analysis.diverge.records import checkpoint_steps, differences
from experiment import train
from training.checkpoint import Checkpoints
from training.checksums import checked_files
from training.loop import TrainLoop
from utils import cli

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.")

PHASES = ("start", "compile", "step", "save", "evaluation", "end")
HARMS = ("flip", "truncate", "remove")
EXITS = {0, 75, -signal.SIGKILL}
FULL = 20_000  # largest file when the disk is "full"
FORK = multiprocessing.get_context("fork")  # imports are most of a short process
PATIENCE = 600  # seconds until a process counts as hung


class Fault(Exception):
    """A process hung or ended with an unexpected exit code."""


class Phase:
    """Current phase of a process, in memory that its parent reads.

    Attributes:
      seconds: seconds of every past phase, by its name; of the process itself.
    """

    def __init__(self):
        # The number of changes x the number of phases + the index of the phase.
        self.shared = FORK.RawValue("q", 0)
        self.seconds = collections.defaultdict(list)
        self.begin = time.monotonic()

    def read(self) -> tuple[str, int]:
        """Returns the current phase and the number of changes."""
        count, index = divmod(self.shared.value, len(PHASES))
        return PHASES[index], count

    def become(self, name: str) -> str:
        """Changes the phase and returns the previous one."""
        (before, count), now = self.read(), time.monotonic()
        if name != before:
            self.seconds[before].append(now - self.begin)
            self.begin = now
            self.shared.value = (count + 1) * len(PHASES) + PHASES.index(name)
        return before

    @contextlib.contextmanager
    def during(self, name: str):
        """Sets a phase for the duration of the context."""
        before = self.become(name)
        yield
        self.become(before)


def report_phases(phase: Phase) -> None:
    """Patches saving, steps and validation of a run to report their phases."""
    train = TrainLoop.train

    def reporting(name, call):
        def report(*arguments):
            with phase.during(name):
                return call(*arguments)

        return report

    def training(self, state, carry):
        step, shapes = self.step, set()

        def stepping(state, carry, batch):
            shape = tuple(leaf.shape for leaf in batch.values())
            busy = self.records[0].checkpoints.manager.is_saving_in_progress()
            phase.become("save" if busy else "step" if shape in shapes else "compile")
            shapes.add(shape)
            return step(state, carry, batch)

        self.step = stepping
        self.validate = reporting("evaluation", self.validate)
        return train(self, state, carry)

    Checkpoints.save = reporting("save", Checkpoints.save)
    TrainLoop.train = training


def omit_from_restore(part: str) -> None:
    """Patches restoring so that a part keeps its initial value."""
    restore = Checkpoints.restore

    def restoring(self, step, like):
        content, progress = restore(self, step, like)
        if part == "carry":
            content = {**content, "carry": like["carry"]}
        elif part == "ema":
            state = content["state"].replace(ema=like["state"].ema)
            content = {**content, "state": state}
        elif part == "stopping":
            progress = {**progress, "best_score": None, "evals_since_best": 0}
        return content, progress

    Checkpoints.restore = restoring


class Harness:
    """Runs of one config that are killed until the requested number of kills.

    Attributes:
      kills: number of kills in each phase.
      damages: number of damages of each kind.
    """

    def __init__(self, options: argparse.Namespace, config: list[str], folder: Path):
        self.options, self.config, self.folder = options, config, folder
        self.random = random.Random(options.seed)
        self.kills = collections.Counter(dict.fromkeys(PHASES[:-1], 0))
        self.damages: collections.Counter = collections.Counter()
        self.restarts = 0
        self.seconds: dict[str, list[float]] = {}

    def reference(self) -> Path:
        """Trains the undisturbed run and reads the durations of its phases."""
        if self.exit_code(self.start("whole")) != 0:
            raise Fault(f"the undisturbed run failed: {self.last_log_line()}")
        self.seconds = json.loads((self.folder / "seconds.json").read_text())
        return self.folder / "whole"

    def start(self, name: str, *, full: bool = False) -> BaseProcess:
        """Starts a process of a run; with `full` it cannot write large files."""
        self.phase = Phase()
        process = FORK.Process(target=self.train, args=(name, full))
        process.start()
        return process

    def train(self, name: str, full: bool) -> None:
        """Trains in this forked process; its output goes to a log file."""
        with Path(os.devnull if full else self.folder / "log").open("a") as file:
            os.dup2(file.fileno(), sys.stdout.fileno())
            os.dup2(file.fileno(), sys.stderr.fileno())
        if full:
            resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, FULL))
        report_phases(self.phase)
        if name != "whole":
            omit_from_restore(self.options.without)
        sys.argv = ["train", *self.config, f"--workdir={self.folder / name}"]

        def main() -> int:
            exit_code = train.train(CONFIG.value, WORKDIR.value)
            self.phase.become("end")
            if name == "whole":
                seconds = json.dumps(self.phase.seconds)
                (self.folder / "seconds.json").write_text(seconds)
            return exit_code

        cli.run_main(main)

    def exit_code(self, process: BaseProcess) -> int:
        """Waits for a process and returns its exit code."""
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            raise Fault(f"no end after {PATIENCE} seconds")
        return process.exitcode

    def compare(self, first: Path, second: Path) -> list[str]:
        """Returns the differences of two runs, found in a process that uses devices."""
        path = self.folder / "differences.json"
        process = FORK.Process(
            target=lambda: path.write_text(json.dumps(differences(first, second)))
        )
        process.start()
        if self.exit_code(process):
            raise Fault("the runs could not be compared")
        return json.loads(path.read_text())

    def last_log_line(self) -> str:
        """Returns the last line that a process wrote."""
        return (self.folder / "log").read_text().strip().rpartition("\n")[2]

    def run(self, name: str) -> Path:
        """Runs to the end, with kills until their number is reached."""
        while True:
            missing = self.options.kills - self.kills.total()
            process = self.start(name)
            killed = self.kill(process) if missing > 0 else None
            code = self.exit_code(process)
            if killed is None and code == 0:
                return self.folder / name
            # Before its signal handlers are installed a process has nothing to save.
            expected = EXITS | ({-signal.SIGTERM} if killed == "start" else set())
            if killed is None or code not in expected:
                raise Fault(f"exit code {code}: {self.last_log_line()}")
            self.restarts += 1
            if self.random.random() < self.options.damage:
                self.harm(self.folder / name)

    def kill(self, process: BaseProcess) -> str | None:
        """Waits for a random moment of the rarest phase, then sends a signal.

        Returns the phase in which the signal was sent; None if the run ended before.
        """
        target = min(
            self.kills, key=lambda name: (self.kills[name], self.random.random())
        )
        usual = self.seconds.get(target, [1.0])
        occasion = self.random.randint(1, max(1, len(usual) // 2))
        count_in_phase, last = 0, None
        while process.is_alive():
            now = self.phase.read()
            if now != last:
                last = now
                count_in_phase += now[0] == target
                if now[0] == target and count_in_phase == occasion:
                    time.sleep(self.random.random() * self.random.choice(usual))
                    break
            time.sleep(0.0005)
        phase, _ = self.phase.read()
        if phase == "end" or not process.is_alive():
            return None
        kinds = {"kill": [signal.SIGKILL], "term": [signal.SIGTERM]}
        both = [signal.SIGKILL, signal.SIGTERM]
        os.kill(process.pid, self.random.choice(kinds.get(self.options.signal, both)))
        self.kills[phase] += 1
        return phase

    def harm(self, run: Path) -> None:
        """Damages the newest checkpoint, or fills the disk for one process."""
        steps = checkpoint_steps(run)
        harm = self.random.choice([*HARMS, "full"])
        if harm == "full":
            code = self.exit_code(self.start(run.name, full=True))
            if code not in {0, 2}:
                raise Fault(f"exit code {code} with a full disk")
        elif steps:
            damage(run / "checkpoints" / str(steps[-1]), harm, self.random)
        self.damages[harm] += 1


def damage(checkpoint: Path, harm: str, chance: random.Random) -> None:
    """Damages one file of a checkpoint."""
    path = chance.choice([p for p in checked_files(checkpoint) if p.stat().st_size])
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    if harm == "flip":
        content[place] ^= 1 << chance.randrange(8)
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:place] if harm == "truncate" else content)


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Parses our options and those of the config."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, parts = parser.add_argument, ["", "carry", "ema", "stopping"]
    add("--kills", type=int, default=30)
    add("--signal", choices=["kill", "term", "mixed"], default="mixed")
    add("--damage", type=float, default=0.2, help="fraction of restarts with damage")
    add("--without", choices=parts, default="", help="part that is not restored")
    add("--seed", type=int, default=0)
    add("--keep", action="store_true", help="keep the runs' files")
    options, config = parser.parse_known_args()
    if not any(flag.startswith("--config=") for flag in config):
        parser.error("--config=configs/DATA.py:MODEL is missing")
    if options.without == "stopping":  # needs a score that does not improve
        config += ["--config.optim.lr=0", "--config.optim.ema_decay=0"]
    return options, config


def main() -> int:
    """Returns 1 if an interrupted run differs from the undisturbed one."""
    options, config = parse()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    harness = Harness(options, config, folder)
    begin = time.monotonic()
    found: list[str] = []
    runs = 0
    try:
        whole = harness.reference()
        while harness.kills.total() < options.kills:
            harmed = harness.run(f"harmed-{runs}")
            runs += 1
            found += harness.compare(whole, harmed)
    except Fault as fault:
        found.append(str(fault))
        options.keep = True
    for line in found:
        print(line)
    for kind, count in harness.kills.items():
        print(f"{kind:10} {'#' * count} {count}")
    result = {
        "config": config,
        "kills": harness.kills.total(),
        "moments": dict(harness.kills),
        "restarts": harness.restarts,
        "damaged": dict(harness.damages),
        "runs": runs,
        "differences": len(found),
        "seconds": round(time.monotonic() - begin),
    }
    if options.keep:
        result["files"] = str(folder)
    else:
        shutil.rmtree(folder)
    print(json.dumps(result))
    return 1 if found else 0


if __name__ == "__main__":
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    cli.exit_with(main)
