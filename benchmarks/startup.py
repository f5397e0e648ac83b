"""Time from the start of a process to the end of its first training step.

python -m benchmarks.startup --work=small

It includes imports, initialisation, compilation and the step: `cold` with an empty
compilation cache, `cached` with a filled one. Other systems do not compile. It prints a
JSON line per system.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time

from benchmarks.harness import cli, comparison
from benchmarks.harness.comparison import OURS
from benchmarks.harness.protocol import Missing, Process, spread
from benchmarks.harness.workloads import WORKS, select
from benchmarks.train_step import commands
from utils.cli import exit_with

CACHE_ALL = {  # caches every compiled program
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    parser = comparison.make_parser(__doc__, rounds=3)
    parser.add_argument("--work", type=cli.names_in(WORKS), default="small")
    parser.add_argument("--dtype", default="float32", help="of what ours computes")
    options = comparison.parse_options(parser, arguments)
    options.rounds = max(2, options.rounds)
    return options


def seconds(name: str, command: list[str], threads: int, folder: str) -> float:
    """Times a process up to the end of its first step. Raises Missing."""
    settings = CACHE_ALL | {"JAX_COMPILATION_CACHE_DIR": folder}
    begin = time.perf_counter()
    with contextlib.closing(Process(name, command, threads, settings)) as process:
        process.begin().ask("warm", 1)
        return time.perf_counter() - begin


def measure(name: str, command: list[str], threads: int) -> dict[str, float]:
    """Returns the seconds by state of the compilation cache. Raises Missing."""
    states = ("cold", "cached") if name == OURS else ("",)
    with tempfile.TemporaryDirectory() as folder:
        return {state: seconds(name, command, threads, folder) for state in states}


def main() -> int:
    """Prints JSON lines; exit code 1 if our system could not be measured."""
    options = parse(sys.argv[1:])
    exit_code = 0
    for work in options.work:
        systems = commands(select(WORKS, work, options.tiny), options)
        times: dict[str, list] = {name: [] for name in systems}
        missing = {}
        for _ in range(options.rounds):  # in turn, so that load affects all alike
            for name in [name for name in systems if name not in missing]:
                try:
                    times[name].append(measure(name, systems[name], options.threads))
                except Missing as error:
                    missing[name] = str(error)
        for name, rounds in times.items():
            about = {"benchmark": "startup", "work": work, "subject": name}
            if name in missing:
                print(json.dumps(about | {"missing": missing[name]}), flush=True)
                continue
            for state in rounds[0]:
                values = [one[state] for one in rounds]
                line = about | {"seconds": spread(values), "times": len(values)}
                line |= {"compiled_programs": state} if state else {}
                print(json.dumps(line | {"processors": os.cpu_count()}), flush=True)
        exit_code |= OURS in missing
    return exit_code


if __name__ == "__main__":
    exit_with(main)
