"""Kills and resumes a run repeatedly and compares it with an undisturbed one.

python -m benchmarks.fault_injection --kills=30 --config=configs/cldr.py:rnn

Kills come at random in every phase: at start, while compiling, in a step, in a save, in
an evaluation. At some restarts the newest checkpoint is damaged or the disk is full.
The last line is a JSON object; the exit code is 1 if an interrupted run differs.
"""

import argparse
import collections
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

from analysis.compare_bitwise import checkpoint_steps, differences
from benchmarks import faulty_run
from training.checkpoint import checked_files
from utils import cli

MOMENTS = ("start", "compile", "step", "save", "evaluation")
HARMS = ("flip", "truncate", "remove")
EXITS = {0, 75, -signal.SIGKILL}
FULL = 20_000  # largest file when the disk is "full"
FORK = multiprocessing.get_context("fork")  # imports are most of a short process
PATIENCE = 600  # seconds until a process counts as hung


class Fault(Exception):
    """A process hung or ended with an unexpected exit code."""


class Harness:
    """Runs of one config that are killed until the requested number of kills.

    Attributes:
      kills: number of kills in each phase.
      damages: number of damages of each kind.
    """

    def __init__(self, options: argparse.Namespace, config: list[str], folder: Path):
        self.options, self.config, self.folder = options, config, folder
        self.random = random.Random(options.seed)
        self.kills = collections.Counter(dict.fromkeys(MOMENTS, 0))
        self.damages: collections.Counter = collections.Counter()
        self.restarts = 0
        self.seconds: dict[str, list[float]] = {}

    def reference(self) -> Path:
        """Trains the undisturbed run and reads the durations of its phases."""
        process = self.start("whole")
        if self.finished(process) != 0:
            raise Fault(f"the undisturbed run failed: {self.last_log_line()}")
        self.seconds = json.loads((self.folder / "moment.json").read_text())
        return self.folder / "whole"

    def start(self, name: str, *, full: bool = False) -> BaseProcess:
        """Starts a process of a run; with `full` it cannot write large files."""
        flags = [
            *self.config,
            f"--workdir={self.folder / name}",
            f"--moment={self.folder / 'moment'}",
        ]
        if self.options.without and name != "whole":
            flags.append(f"--without={self.options.without}")
        (self.folder / "moment").unlink(missing_ok=True)
        log = self.folder / "log"
        process = FORK.Process(target=train, args=(flags, log, full))
        process.start()
        return process

    def finished(self, process: BaseProcess) -> int:
        """Waits for a process and returns its exit code."""
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            raise Fault(f"no end after {PATIENCE} seconds")
        return process.exitcode

    def compare(self, first: Path, second: Path) -> list[str]:
        """Returns the differences of two runs, found in a separate process."""
        path = self.folder / "differences.json"
        process = FORK.Process(target=write_differences, args=(first, second, path))
        process.start()
        if self.finished(process):
            raise Fault("the runs could not be compared")
        return json.loads(path.read_text())

    def last_log_line(self) -> str:
        """Returns the last line that a process wrote."""
        return (self.folder / "log").read_text().strip().rpartition("\n")[2]

    def moment(self) -> tuple[str, int]:
        """Returns the current phase of the process and the number of changes."""
        try:
            name, count = (self.folder / "moment").read_text().split()
        except (OSError, ValueError):
            return "start", 0
        return name, int(count)

    def run(self, name: str) -> Path:
        """Runs to the end, with kills until their number is reached."""
        while True:
            missing = self.options.kills - self.kills.total()
            process = self.start(name)
            killed = self.kill(process) if missing > 0 else None
            code = self.finished(process)
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
        target = min(MOMENTS, key=lambda kind: (self.kills[kind], self.random.random()))
        usual = self.seconds.get(target, [1.0])
        occasion = self.random.randint(1, max(1, len(usual) // 2))
        count_in_phase, last = 0, None
        while process.is_alive():
            name, count = self.moment()
            if (name, count) != last:
                last = name, count
                count_in_phase += name == target
                if name == target and count_in_phase == occasion:
                    time.sleep(self.random.random() * self.random.choice(usual))
                    break
            time.sleep(0.0005)
        moment, _ = self.moment()
        if moment == "end" or not process.is_alive():
            return None
        os.kill(process.pid, self.signal())
        self.kills[moment] += 1
        return moment

    def signal(self) -> signal.Signals:
        """Returns the signal that `--signal` selects."""
        kinds = {"kill": [signal.SIGKILL], "term": [signal.SIGTERM]}
        both = [signal.SIGKILL, signal.SIGTERM]
        return self.random.choice(kinds.get(self.options.signal, both))

    def harm(self, run: Path) -> None:
        """Damages the newest checkpoint, or fills the disk for one process."""
        steps = checkpoint_steps(run)
        harm = self.random.choice([*HARMS, "full"])
        if harm == "full":
            code = self.finished(self.start(run.name, full=True))
            if code not in {0, 2}:
                raise Fault(f"exit code {code} with a full disk")
        elif steps:
            damage(run / "checkpoints" / str(steps[-1]), harm, self.random)
        self.damages[harm] += 1


def train(flags: list[str], log: Path, full: bool) -> None:
    """Trains in a forked process; its output goes to a log file."""
    with Path(os.devnull if full else log).open("a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    if full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, FULL))
    sys.argv = ["faulty_run", *flags]
    cli.run_main(faulty_run.main)


def write_differences(first: Path, second: Path, path: Path) -> None:
    """Compares two runs in a process that may use devices."""
    path.write_text(json.dumps(differences(first, second)))


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
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--signal", choices=["kill", "term", "mixed"], default="mixed")
    parser.add_argument(
        "--damage", type=float, default=0.2, help="fraction of restarts with damage"
    )
    parser.add_argument("--without", default="", help="carry, ema or stopping")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the runs' files")
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
    sys.exit(main())
