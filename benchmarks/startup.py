"""Time from the start of a process to the end of its first training step.

python -m benchmarks.startup --work=small

It includes imports, initialisation, compilation and the step: `cold` with an empty
compilation cache, `cached` with a filled one. Other systems do not compile. It prints a
JSON line per system.
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

CACHE_ALL = {  # caches every compiled program
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default="small")
    parser.add_argument("--dtype", default="float32", help="of what ours computes")
    add_options(parser, rounds=3)
    options = checked(parser, arguments)
    options.work = choices(parser, "work", options.work, list(WORKS))
    options.rounds = max(2, options.rounds if not options.tiny else 2)
    return options


def seconds(name: str, command: list[str], threads: int, folder: str) -> float:
    """Times a process up to the end of its first step. Raises Missing."""
    settings = CACHE_ALL | {"JAX_COMPILATION_CACHE_DIR": folder}
    begin = time.perf_counter()
    process = Process(name, command, threads, settings)
    try:
        process.begin().ask("warm", 1)
        return time.perf_counter() - begin
    finally:
        process.close()


def measure(work: str, options: argparse.Namespace) -> dict[tuple, list[float]]:
    """Returns the seconds by system and cache state; prints missing systems."""
    size = WORKS[work].shrunk() if options.tiny else WORKS[work]
    found: dict[tuple, list[float]] = {}
    missing = set()
    for _ in range(options.rounds):  # in turn, so that load affects all alike
        for name, command in commands(size, options).items():
            if name in missing:
                continue
            with tempfile.TemporaryDirectory() as folder:
                for state in ("cold", "cached") if name == OURS else ("",):
                    try:
                        took = seconds(name, command, options.threads, folder)
                    except Missing as error:
                        missing.add(name)
                        line = {"benchmark": "startup", "work": work, "subject": name}
                        print(json.dumps(line | {"missing": str(error)}), flush=True)
                        break
                    found.setdefault((name, state), []).append(took)
    return found


def main() -> int:
    """Prints JSON lines; exit code 1 if our system could not be measured."""
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
