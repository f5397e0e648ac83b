"""Protocol between the measuring and the measured processes: JSON lines.

    -> warm 3                 <- [5.1, 0.7, 0.7]     seconds; the first compiles
    -> go 4                   <- [0.7, 0.7, 0.7, 0.7]
    -> products               <- seconds of each of the work's matrix products
    -> facts                  <- {"peak_bytes": ..., "device": ..., ...}

All processes live at once and one computes at a time. Standard library only, since
other libraries run in an environment without JAX.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Protocol

from benchmarks.harness.workloads import CORPORA, Corpus, Product, select

ROOT = Path(__file__).parents[2]
TRIES = 5  # measurements of a product; the shortest counts
SHORT = 2e8  # FLOPs below which a product is repeated in a measurement


class Subject(Protocol):
    """Interface of a measured system."""

    products: list[Product]

    def step(self) -> None:
        """Runs one timed step and returns when it is done."""

    def multiplier(self, product: Product, times: int) -> Callable[[], None]:
        """Returns a call that computes a product `times` times."""

    def facts(self) -> dict:
        """Returns device, versions, number of compilations and so on."""


def serve(make: Callable[[], Subject]) -> None:
    """Answers commands until the input ends.

    Output of libraries is redirected to standard error. A missing module is reported as
    {"missing": message}.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    imported = peak_bytes()
    try:
        subject = make()
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=answers)
        return
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        found = answer(subject, *line.split())
        if isinstance(found, dict):  # facts: what a process has before any work
            found["imported_bytes"] = imported
        print(json.dumps(found), file=answers)


class BatchMaker:
    """Measured process whose step makes some batches.

    Attributes:
      package: package whose version is reported.
    """

    products = ()

    def __init__(self, batches: Iterator[dict], count: int, package: str):
        self.batches, self.count, self.package = batches, count, package

    def step(self) -> None:
        """Makes the next batches and counts their target tokens."""
        made = itertools.islice(self.batches, self.count)
        self.tokens = int(sum(float(batch["weights"].sum()) for batch in made))

    def facts(self) -> dict:
        """Returns the facts; `tokens` counts target tokens of the last step."""
        versions = {self.package: metadata.version(self.package)}
        return {"device": "cpu", "versions": versions, "tokens": self.tokens}


def serve_batches(
    package: str, makers: dict[str, Callable[[Corpus], Iterator[dict]]]
) -> None:
    """Serves a maker of endless batches, selected on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=makers, required=True)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    corpus = select(CORPORA, options.kind, options.tiny)
    make_batches = makers[options.kind]
    serve(lambda: BatchMaker(make_batches(corpus), corpus.batches, package))


def answer(subject: Subject, command: str, count: str = "1") -> list | dict:
    """Returns the answer to one command."""
    if command in ("warm", "go"):
        return [seconds_of(subject.step) for _ in range(int(count))]
    if command == "products":
        return [product_seconds(subject, one) for one in subject.products]
    if command == "facts":
        return {"peak_bytes": peak_bytes(), **subject.facts()}
    raise ValueError(f"no such command: {command}")


def seconds_of(call: Callable[[], None]) -> float:
    """Returns the seconds that a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def product_seconds(subject: Subject, product: Product) -> float:
    """Returns the shortest seconds of a product, times its count."""
    one = product.flops / product.count
    times = min(product.count, max(1, int(SHORT / one)))
    call = subject.multiplier(product, times)
    call()
    fastest = min(seconds_of(call) for _ in range(TRIES))
    return fastest / times * product.count


def peak_bytes() -> int:
    """Returns the peak resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


class Missing(Exception):
    """A system that is not installed or failed; the text says why."""


class Process:
    """A measured process, seen from the measuring one.

    Attributes:
      name: name of the system.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        threads: int,
        environment: dict[str, str] | None = None,
    ):
        """Starts the process. Raises Missing if its program does not exist."""
        self.name = name
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115, as long as the process
        settings = {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # other processes need memory too
            "TOKENIZERS_PARALLELISM": "false",
            **(environment or {}),
        }
        try:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | settings,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.stderr,
                text=True,
            )
        except OSError as error:
            raise Missing(f"{command[0]}: {error.strerror}") from error

    @property
    def pid(self) -> int:
        """Process id of the measured process."""
        return self.process.pid

    def begin(self) -> "Process":
        """Waits until the process is ready. Raises Missing if it fails."""
        self._read()
        return self

    def ask(self, *words) -> list | dict:
        """Sends a command and returns the answer. Raises Missing if there is none."""
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise Missing(self._last_error_line()) from error
        return self._read()

    def close(self) -> None:
        """Ends the measured process."""
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.stderr.close()

    def _read(self) -> list | dict:
        line = self.process.stdout.readline()
        if not line:
            raise Missing(self._last_error_line())
        found = json.loads(line)
        if isinstance(found, dict) and "missing" in found:
            raise Missing(found["missing"])
        return found

    def _last_error_line(self) -> str:
        self.process.wait()
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.returncode}"


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the median and the quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}
