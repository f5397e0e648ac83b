"""Reproduces the runs of one corpus: trains, scores and compares them.

python -m benchmarks.reproduce multi30k --corpora=DIR
python -m benchmarks.reproduce multi30k --corpora=DIR --slot=600 --only=rnn --seeds=3
python -m benchmarks.reproduce multi30k --corpora=DIR -- --config.steps=2000

With --slot the current run is saved when the time is over and the exit code is 75: run
the same command to resume. Progress is printed every minute. Flags after `--` are
passed to train.py. Runs are in --runs/RUNG/NAME, or NAME-SEED for several seeds.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.reproduce_rungs import RUNGS, Entry, Rung

ROOT = Path(__file__).parents[1]
STOPPED = 75  # exit code: the same command resumes
MINUTE = 60.0
GRACE = 120.0  # seconds that a run may take to save


class Slot:
    """Time limit of this call."""

    def __init__(self, seconds: float | None):
        self.end = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return float("inf") if self.end is None else self.end - time.monotonic()


def main() -> int:
    """Returns 0 when the rung is complete, 75 when the time was over before."""
    options, training = parse(sys.argv[1:])
    rung, slot = RUNGS[options.rung], Slot(options.slot)
    paths = []
    for entry, seed in runs_of(rung, options):
        path = run_dir(entry, seed, options)
        paths.append(path)
        flags = (*training_flags(rung, entry, seed, options), *training)
        if code := run_entry(path, flags, rung.scoring, slot):
            return code
    report = Path(options.runs).absolute() / options.rung / "report"
    outputs = ",".join(f"{report}.{kind}" for kind in ("html", "md", "json"))
    runs = ",".join(map(str, paths))
    return run("report.py", f"--runs={runs}", f"--output={outputs}")


def run_entry(
    path: Path, flags: Sequence[str], scoring: Sequence[str], slot: Slot
) -> int | None:
    """Trains and scores one run, unless done; returns an exit code on failure."""
    if not (path / "trained").exists():
        if slot.left <= 0:
            return STOPPED
        if code := train(path, flags, slot):
            return code
        (path / "trained").touch()
    if not list(path.glob("eval/test-*.json")):
        return run("eval.py", f"--workdir={path}", "--split=test", *scoring) or None
    return None


def train(path: Path, flags: Sequence[str], slot: Slot) -> int:
    """Trains until the run is done or the time is over; returns its exit code."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "train.py", f"--workdir={path}", *flags],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None and slot.left > 0:
                wait(process, min(MINUTE, max(slot.left, 0.1)))
                print(f"{path}: {newest_line(path / 'metrics.jsonl')}", flush=True)
        finally:  # also when this process is interrupted
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                wait(process, GRACE)
    if process.poll() is None:
        process.kill()
    code = process.wait()
    if code not in (0, STOPPED):
        print(f"{path}: train.py ended with {code}; see {path.with_suffix('.log')}")
    return code


def wait(process: subprocess.Popen, seconds: float) -> None:
    """Waits for a process, at most `seconds`."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def newest_line(metrics: Path) -> str:
    """Returns the last logged metrics as one line."""
    lines = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
    if not lines:
        return "nothing logged yet"
    logged = json.loads(lines[-1])
    names = ("step", "split", "loss", "bleu", "tokens_per_second")
    return " ".join(f"{name} {short(logged[name])}" for name in names if name in logged)


def short(value) -> str:
    """Formats a number with few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def runs_of(rung: Rung, options: argparse.Namespace) -> Iterator[tuple[Entry, int]]:
    """Yields entries and seeds; seeds change slowest."""
    only = options.only.split(",") if options.only else [e.name for e in rung.entries]
    for seed in range(options.seeds):
        for entry in rung.entries:
            if entry.name in only:
                yield entry, seed


def run_dir(entry: Entry, seed: int, options: argparse.Namespace) -> Path:
    """Returns the directory of a run."""
    name = f"{entry.name}-{seed}" if options.seeds > 1 else entry.name
    return Path(options.runs).absolute() / options.rung / name


def training_flags(
    rung: Rung, entry: Entry, seed: int, options: argparse.Namespace
) -> Iterator[str]:
    """Yields the flags of train.py for a run."""
    yield f"--config={entry.config}"
    yield f"--config.seed={seed}"
    yield from rung.training
    if rung.folder:
        yield f"--config.data.source_dir={Path(options.corpora) / rung.folder}"
    if options.data:
        yield f"--config.data.dir={options.data}"


def run(program: str, *flags: str) -> int:
    """Runs an entry point and returns its exit code."""
    command = [sys.executable, program, *flags]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options and train.py's; argparse refuses what is none with exit code 2."""
    rungs = [
        f"{name:14} {rung.takes}: " + ", ".join(entry.name for entry in rung.entries)
        for name, rung in RUNGS.items()
    ]
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(["rungs:", *rungs]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rung", choices=RUNGS, metavar="RUNG")
    parser.add_argument("--corpora", help="folder with a folder a corpus")
    parser.add_argument("--data", help="cfg.data.dir: where corpora are prepared")
    parser.add_argument("--runs", default="runs/ladder", help="where runs lie")
    parser.add_argument("--slot", type=float, help="seconds; else until it is done")
    parser.add_argument("--only", default="", help="runs, such as rnn,transformer")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each")
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:split])
    names = [entry.name for entry in RUNGS[options.rung].entries]
    for name in filter(None, options.only.split(",")):
        if name not in names:
            parser.error(f"--only={options.only}: there are {', '.join(names)}")
    if RUNGS[options.rung].folder and not options.corpora:
        parser.error("--corpora=DIR is missing: the folder with the corpus's folder")
    if options.corpora:
        options.corpora = str(Path(options.corpora).absolute())
    if options.seeds < 1:
        parser.error(f"--seeds={options.seeds}: at least 1")
    return options, arguments[split + 1 :]


if __name__ == "__main__":
    for kind in (signal.SIGTERM, signal.SIGINT):  # the run in hand saves itself first
        signal.signal(kind, lambda *_: sys.exit(STOPPED))
    sys.exit(main())
