"""How long it takes from the start of a process to its first training step.

python -m benchmarks.startup --work=small

Imports, parameters, compilation and the step itself: `cold` with an empty folder for
compiled programs, `cached` with one that the process before has filled. Peers compile
nothing, so theirs is one figure. A JSON line a subject.
"""

import argparse
import json
import os
import sys
import tempfile
import time

from benchmarks.harness.comparison import OURS, add_options, checked, choices
from benchmarks.harness.protocol import Missing, Process, spread
from benchmarks.harness.workloads import WORKS
from benchmarks.train_step import commands

KEPT = {  # what a folder holds: all that compiles
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; argparse refuses what is none with exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default="small")
    parser.add_argument("--dtype", default="float32", help="of what ours computes")
    add_options(parser, rounds=3)
    options = checked(parser, arguments)
    options.work = choices(parser, "work", options.work, list(WORKS))
    options.rounds = max(2, options.rounds if not options.tiny else 2)
    return options


def seconds(name: str, command: list[str], threads: int, folder: str) -> float:
    """From the start of a process to the end of its first step. Raises Missing."""
    settings = KEPT | {"JAX_COMPILATION_CACHE_DIR": folder}
    begin = time.perf_counter()
    process = Process(name, command, threads, settings)
    try:
        process.begin().ask("warm", 1)
        return time.perf_counter() - begin
    finally:
        process.close()


def measure(work: str, options: argparse.Namespace) -> dict[tuple, list[float]]:
    """Seconds by subject and state of the folder; peers are named where missing."""
    size = WORKS[work].shrunk() if options.tiny else WORKS[work]
    found: dict[tuple, list[float]] = {}
    missing = set()
    for _ in range(options.rounds):  # in turn, so that a busy moment meets all
        for name, command in commands(size, options).items():
            if name in missing:
                continue
            with tempfile.TemporaryDirectory() as folder:
                for state in ("cold", "cached") if name == OURS else ("",):
                    try:
                        took = seconds(name, command, options.threads, folder)
                    except Missing as error:
                        missing.add(name)
                        told = {"benchmark": "startup", "work": work, "subject": name}
                        print(json.dumps(told | {"missing": str(error)}), flush=True)
                        break
                    found.setdefault((name, state), []).append(took)
    return found


def main() -> int:
    """JSON lines; exit code 1 where ours could not be measured."""
    options = parse(sys.argv[1:])
    ending = 0
    for work in options.work:
        found = measure(work, options)
        for (name, state), values in found.items():
            about = {"benchmark": "startup", "work": work, "subject": name}
            line = about | {"seconds": spread(values), "times": len(values)}
            if state:
                line["compiled_programs"] = state
            print(json.dumps(line | {"processors": os.cpu_count()}), flush=True)
        ending |= (OURS, "cold") not in found
    return ending


if __name__ == "__main__":
    sys.exit(main())
