"""Cost of parallelism: measured on virtual CPU devices, estimated for TPU slices.

python -m benchmarks.scaling
python -m benchmarks.scaling --devices=1,8 --modes=data,tensor --predict=

Measured: one model and one global batch on 1 to 8 virtual devices of this CPU, each
number in a process of its own. The devices share the cores, so a step cannot get
faster; the additional time is the cost of the parallelism. The bytes sent are read from
the compiled program (benchmarks/collectives.py).

Estimated: a step of the configs in --predict on 8 to 256 chips with the global batch of
the config (tpu_roofline.py). Each parameter is assumed to be sent once. In the measured
programs that holds for "pmap". For "data" XLA on CPUs sums the gradient of a tied table
once per use and once per chunk of the loss; "fsdp" also gathers in that loop. The
estimates hold if the compiler moves these sums out of loops. It prints JSON lines.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from analysis.plan.step import StepSpec
from benchmarks.collectives import collectives
from benchmarks.harness.protocol import spread
from benchmarks.tpu_roofline import predictions
from configs import base
from experiment.build import is_language_modeling
from experiment.setup import TrainingSetup, num_parameters
from training.optim.optimizers import make_optimizer
from training.parallel.partitioner import make_partitioner
from training.profiling.environment import environment_info
from utils.allocator import tune_allocator
from utils.errors import UserError

ROOT = Path(__file__).parents[1]
MODES = {  # `cfg.parallel` for a number of devices
    "data": lambda count: {"data": count},
    "fsdp": lambda count: {"data": 1, "fsdp": count},
    "tensor": lambda count: {"data": 1, "tensor": count},
    "pmap": lambda count: {"mode": "pmap", "data": count},
}
SIZES = {"layers": 4, "width": 256, "heads": 8, "feed_forward": 1024}
TINY = {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32}
STEP = "jit_(step|call)"  # names of compiled steps under jit and pmap
PREDICTED = "wmt14:big,wikitext103:large"


class Batches:
    """Random tokens, equal in every batch.

    Attributes:
      shapes: the batch shape, for `compiled_step`.
    """

    def __init__(self, step: StepSpec):
        _, _, shapes = step.input_shapes(step.batch_size)
        draw = np.random.default_rng(0)
        size = step.cfg.data.vocab_size
        self.batch_size, self.shapes = step.batch_size, [(step.batch_size, step.length)]
        self.whole = {name: np.ones(x.shape, x.dtype) for name, x in shapes.items()}
        self.whole["reset"][:] = False
        for name in ("tokens", "source", "target_in", "labels"):
            if name in self.whole:
                drawn = draw.integers(4, size, self.whole[name].shape)
                self.whole[name] = drawn.astype(np.int32)

    def num_examples(self, k: int) -> int:
        """Returns the batch size."""
        del k
        return self.batch_size

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return self.partial_batch(k, slice(None))

    def partial_batch(self, k: int, rows: slice) -> dict[str, np.ndarray]:
        """Returns some rows of the batch."""
        del k
        return {name: leaf[rows] for name, leaf in self.whole.items()}


def training_of(mode: str, count: int, options: argparse.Namespace) -> TrainingSetup:
    """Sets up training of a Transformer-XL on `count` devices."""
    cfg = base.get_config("transformer_xl")
    cfg.task, cfg.data.vocab_size = "language_modeling", options.vocabulary
    cfg.data.update(batch_size=options.rows, segment_length=options.length)
    cfg.model.update({**options.sizes, "memory_length": options.length})
    cfg.parallel.update(MODES[mode](count))
    step = StepSpec.from_config(cfg)
    optimizer, schedule = make_optimizer(cfg.optim, cfg.steps, width=cfg.model.width)
    partitioner = make_partitioner(cfg.parallel)
    parts = step.experiment, partitioner, Batches(step), optimizer, schedule
    return TrainingSetup(*parts, cfg.steps)


def measure(mode: str, count: int, options: argparse.Namespace) -> dict:
    """Measures the training step in this process."""
    training = training_of(mode, count, options)
    state = training.partitioner.init(training.make_state)
    carry = training.make_carry()
    weights = num_parameters(state.params) * 4
    step = training.compiled_step(state, carry)
    begin, seconds = time.perf_counter(), []
    for k in range(options.rounds + 1):
        state, carry, pairs = step(state, carry, training.batch(k))
        jax.block_until_ready(pairs)
        seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
    found = spread(seconds[1:])
    return {
        "mode": mode,
        "devices": jax.device_count(),
        "seconds_per_step": found,
        "tokens_per_second": options.rows * options.length / found["median"],
        "first_step_seconds": seconds[0],
        "loss": float(pairs["loss"][0]) / float(pairs["loss"][1]),
        "parameter_bytes": weights,
        "model": options.sizes | {"vocabulary": options.vocabulary},
        "batch": [options.rows, options.length],
        "rounds": options.rounds,
    }


def measured_apart(mode: str, count: int, arguments: list[str]) -> dict:
    """Runs `measure` in a process with `count` virtual devices and adds bytes sent.

    Raises:
      UserError: the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        flags = (
            f"--xla_force_host_platform_device_count={count} "
            f"--xla_dump_to={folder} --xla_dump_hlo_as_text "
            f"--xla_dump_hlo_module_re={STEP}"
        )
        environment = {
            **os.environ,
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_COMPILATION_CACHE": "false",  # the HLO dump needs compilation
        }
        command = [sys.executable, "-m", "benchmarks.scaling", *arguments]
        done = subprocess.run(
            [*command, f"--only={mode}:{count}"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reasons = done.stderr.strip().splitlines() or ["no error output"]
            raise UserError(f"{mode} on {count} devices: {reasons[-1]}")
        sent = collectives(program(Path(folder)), count)
    line = json.loads(done.stdout.splitlines()[-1])
    return line | {
        "collectives": {
            "operations": {kind: n for kind, n in sent.operations.items() if n},
            "result_bytes": {kind: n for kind, n in sent.results.items() if n},
            "bytes_sent_by_each": sent.bytes_sent,
            "loops_of_unknown_length": sent.unknown_loops,
        }
    }


def program(folder: Path) -> str:
    """Returns the HLO text of the step: the longest dumped program."""
    files = folder.glob("*after_optimizations.txt")
    return max((file.read_text(encoding="utf8") for file in files), key=len)


def work_of(config: str) -> dict:
    """Returns FLOPs, sizes and parameters of configs/<file>.py:<model>."""
    file, _, model = config.partition(":")
    try:
        cfg = importlib.import_module(f"configs.{file}").get_config(model)
    except (ImportError, KeyError) as error:
        raise UserError(f"--predict={config}: unknown config") from error
    step = StepSpec.from_config(cfg)
    return {
        "flops": step.flops(),
        "rows": step.batch_size,
        "length": step.length,
        "tokens": step.tokens,
        "parameters": num_parameters(step.params),
        "padding": "none" if is_language_modeling(cfg) else "not counted",
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny run, for tests")
    parser.add_argument("--devices", default="1,2,4,8", help="virtual, of this CPU")
    parser.add_argument("--modes", default=",".join(MODES), help="kinds of parallelism")
    parser.add_argument("--chips", default="8,16,32,64,128,256", help="of a slice")
    parser.add_argument("--predict", default=PREDICTED, help="configs; may be empty")
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--rows", type=int, default=16, help="of a batch, all devices")
    parser.add_argument("--length", type=int, default=128, help="of a row, in tokens")
    parser.add_argument("--rounds", type=int, default=5, help="steps that are timed")
    parser.add_argument("--only", default="", help="MODE:COUNT, in this process")
    options = parser.parse_args(arguments)
    if options.tiny:
        small = {"devices": "2", "modes": "data", "chips": "8", "vocabulary": 50}
        small |= {"rows": 4, "length": 8, "rounds": 2, "predict": "cldr:rnn"}
        vars(options).update(small, **TINY)
    for name in ("devices", "chips"):
        given = getattr(options, name)
        numbers = given.split(",")
        if not all(number.isdecimal() and int(number) for number in numbers):
            parser.error(f"--{name}={given}: whole numbers from 1 are needed")
        setattr(options, name, tuple(int(number) for number in numbers))
    if unknown := set(options.modes.split(",")) - MODES.keys():
        parser.error(f"--modes={min(unknown)}: there are {', '.join(MODES)}")
    for name in ("vocabulary", "rows", "length"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}={getattr(options, name)} must be at least 1")
    if options.rounds < 2:
        parser.error(f"--rounds={options.rounds}: at least 2 are needed for quartiles")
    options.sizes = {name: getattr(options, name) for name in SIZES}
    return options


def lines(options: argparse.Namespace, arguments: list[str]):
    """Yields all measurements, then all estimates."""
    about = environment_info()
    about = {key: about[key] for key in ("threads", "versions", "commit")}
    for mode in options.modes.split(","):
        for count in options.devices:
            yield measured_apart(mode, count, arguments) | about
    for config in filter(None, options.predict.split(",")):
        yield from predictions(config, work_of(config), options.chips)


def main() -> int:
    """Prints one JSON line per measurement or estimate."""
    arguments = sys.argv[1:]
    options = parse(arguments)
    try:
        if options.only:
            mode, _, count = options.only.partition(":")
            print(json.dumps(measure(mode, int(count), options)))
            return 0
        for line in lines(options, arguments):
            print(json.dumps(line), flush=True)
    except UserError as error:  # such as a width that heads do not divide
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    tune_allocator()
    sys.exit(main())
