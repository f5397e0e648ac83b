"""A rung of the ladder: trains, scores and compares its runs, in slots of time.

python -m benchmarks.reproduce multi30k --corpora=DIR
python -m benchmarks.reproduce multi30k --corpora=DIR --slot=600 --only=rnn --seeds=3
python -m benchmarks.reproduce multi30k --corpora=DIR -- --config.steps=2000

Where a slot ends before the rung the run in hand saves itself and the exit code is 75:
the same command again goes on. A line a minute says how far it is. Flags behind `--`
are train.py's. Runs lie in --runs/RUNG/NAME, or NAME-SEED where seeds are several.
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
STOPPED = 75  # exit code: the same command goes on
MINUTE = 60.0
GRACE = 120.0  # seconds that a run may take to save itself


class Slot:
    """The time that a call may take."""

    def __init__(self, seconds: float | None):
        self.end = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until it ends."""
        return float("inf") if self.end is None else self.end - time.monotonic()


def main() -> int:
    """Exit code 0 when the rung is done, 75 when the slot was over before."""
    options, training = parse(sys.argv[1:])
    rung, slot = RUNGS[options.rung], Slot(options.slot)
    paths = []
    for entry, seed in runs_of(rung, options):
        path = place_of(entry, seed, options)
        paths.append(path)
        flags = (*training_flags(rung, entry, seed, options), *training)
        if code := climb(path, flags, rung.scoring, slot):
            return code
    report = Path(options.runs).absolute() / options.rung / "report"
    outputs = ",".join(f"{report}.{kind}" for kind in ("html", "md", "json"))
    runs = ",".join(map(str, paths))
    return run("report.py", f"--runs={runs}", f"--output={outputs}")


def climb(
    path: Path, flags: Sequence[str], scoring: Sequence[str], slot: Slot
) -> int | None:
    """Trains and scores one run, unless that was done; an exit code to end with."""
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
    """Until it is done or the slot is over; its exit code."""
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
        finally:  # also where we are stopped ourselves
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
    """For its end, at most so long."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def newest_line(metrics: Path) -> str:
    """What was logged last."""
    lines = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
    if not lines:
        return "nothing logged yet"
    told = json.loads(lines[-1])
    names = ("step", "split", "loss", "bleu", "tokens_per_second")
    return " ".join(f"{name} {short(told[name])}" for name in names if name in told)


def short(value) -> str:
    """A number in few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def runs_of(rung: Rung, options: argparse.Namespace) -> Iterator[tuple[Entry, int]]:
    """Entries and seeds; seeds change slowest, so that all is there once soonest."""
    only = options.only.split(",") if options.only else [e.name for e in rung.entries]
    for seed in range(options.seeds):
        for entry in rung.entries:
            if entry.name in only:
                yield entry, seed


def place_of(entry: Entry, seed: int, options: argparse.Namespace) -> Path:
    """A run's directory."""
    name = f"{entry.name}-{seed}" if options.seeds > 1 else entry.name
    return Path(options.runs).absolute() / options.rung / name


def training_flags(
    rung: Rung, entry: Entry, seed: int, options: argparse.Namespace
) -> Iterator[str]:
    """Of train.py."""
    yield f"--config={entry.config}"
    yield f"--config.seed={seed}"
    yield from rung.training
    if rung.folder:
        yield f"--config.data.source_dir={Path(options.corpora) / rung.folder}"
    if options.data:
        yield f"--config.data.dir={options.data}"


def run(program: str, *flags: str) -> int:
    """An entry point's exit code."""
    command = [sys.executable, program, *flags]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options and train.py's; argparse refuses what is none with exit code 2."""
    told = [
        f"{name:14} {rung.takes}: " + ", ".join(entry.name for entry in rung.entries)
        for name, rung in RUNGS.items()
    ]
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(["rungs:", *told]),
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
