"""What more devices cost: measured on virtual ones, predicted for slices of TPUs.

python -m benchmarks.scaling
python -m benchmarks.scaling --devices=1,8 --modes=data,tensor --predict=

Measured: one model, one global batch, on 1 to 8 virtual devices of this CPU, each
number in a process of its own. They share its cores, so a step cannot get faster:
what it takes longer than on one device is the cost of the way of spreading. With
each stands what its devices send each other, read off the program that ran
(benchmarks/collectives.py).

Predicted: a step of the configs in --predict on 8 to 256 chips, the batch as a whole
always the config's (the arithmetic is in tpu_roofline.py). What is sent follows
from the size of the parameters, each sent once. In the programs measured that is so,
but for a few numbers, under "pmap". Under "data" XLA for CPUs adds the gradient of a
table that is tied to the output layer up over devices once for each of its uses, and
inside the loop over the blocks of a loss, so once a block; "fsdp" there gathers in
that loop too. Predictions hold where a compiler moves such sums out of loops.
A JSON line each.
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

from analysis.plan.step import PlannedStep
from benchmarks.collectives import collectives
from benchmarks.harness.protocol import spread
from benchmarks.tpu_roofline import predictions
from configs import base
from experiment.build import is_language_modeling
from experiment.setup import TrainingSetup, num_parameters
from training.optim.optimizers import make_optimizer
from training.parallel.partitioning import make_partitioner
from training.profiling.environment import environment_info
from utils.allocator import tune_allocator
from utils.errors import UserError

ROOT = Path(__file__).parents[1]
MODES = {  # what `cfg.parallel` says of so many devices
    "data": lambda count: {"data": count},
    "fsdp": lambda count: {"data": 1, "fsdp": count},
    "tensor": lambda count: {"data": 1, "tensor": count},
    "pmap": lambda count: {"mode": "pmap", "data": count},
}
SIZES = {"layers": 4, "width": 256, "heads": 8, "feed_forward": 1024}
TINY = {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32}
STEP = "jit_(step|call)"  # what compiled steps are named, under jit and under pmap
PREDICTED = "wmt14:big,wikitext103:large"


class Batches:
    """Random tokens, the same in every batch.

    Attributes:
      shapes: one, as `compiled_step` asks for.
    """

    def __init__(self, step: PlannedStep):
        _, _, shapes = step.inputs(step.rows)
        draw = np.random.default_rng(0)
        size = step.cfg.data.vocab_size
        self.batch_size, self.shapes = step.rows, [(step.rows, step.length)]
        self.whole = {name: np.ones(x.shape, x.dtype) for name, x in shapes.items()}
        self.whole["reset"][:] = False
        for name in ("tokens", "source", "target_in", "labels"):
            if name in self.whole:
                drawn = draw.integers(4, size, self.whole[name].shape)
                self.whole[name] = drawn.astype(np.int32)

    def num_examples(self, k: int) -> int:
        """Of any batch."""
        del k
        return self.batch_size

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return self.partial_batch(k, slice(None))

    def partial_batch(self, k: int, rows: slice) -> dict[str, np.ndarray]:
        """Some rows of any batch."""
        del k
        return {name: leaf[rows] for name, leaf in self.whole.items()}


def training_of(mode: str, count: int, options: argparse.Namespace) -> TrainingSetup:
    """A Transformer-XL on so many devices."""
    cfg = base.get_config("transformer_xl")
    cfg.task, cfg.data.vocab_size = "language_modeling", options.vocabulary
    cfg.data.update(batch_size=options.rows, segment_length=options.length)
    cfg.model.update({**options.sizes, "memory_length": options.length})
    cfg.parallel.update(MODES[mode](count))
    step = PlannedStep.of(cfg)
    optimizer, schedule = make_optimizer(cfg.optim, cfg.steps, width=cfg.model.width)
    partitioner = make_partitioner(cfg.parallel)
    parts = step.built, partitioner, Batches(step), optimizer, schedule
    return TrainingSetup(*parts, cfg.steps)


def measure(mode: str, count: int, options: argparse.Namespace) -> dict:
    """The cost of a step in this process, which has so many devices."""
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
    """`measure` in a process with so many virtual devices, and what they sent.

    Raises UserError where that process does not end well.
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
            "JAX_ENABLE_COMPILATION_CACHE": "false",  # only what is compiled is told
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
            told = done.stderr.strip().splitlines() or ["no reason told"]
            raise UserError(f"{mode} on {count} devices: {told[-1]}")
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
    """The text of the step, the longest of what was compiled."""
    files = folder.glob("*after_optimizations.txt")
    return max((file.read_text(encoding="utf8") for file in files), key=len)


def work_of(config: str) -> dict:
    """What the arithmetic needs of configs/<file>.py:<model>."""
    file, _, model = config.partition(":")
    try:
        cfg = importlib.import_module(f"configs.{file}").get_config(model)
    except (ImportError, KeyError) as error:
        raise UserError(f"--predict={config}: there is no such config") from error
    step = PlannedStep.of(cfg)
    return {
        "flops": step.flops(),
        "rows": step.rows,
        "length": step.length,
        "tokens": step.tokens,
        "parameters": num_parameters(step.params),
        "padding": "none" if is_language_modeling(cfg) else "not counted",
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; argparse refuses what is none with exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="seconds, to see it work")
    parser.add_argument("--devices", default="1,2,4,8", help="virtual, of this CPU")
    parser.add_argument("--modes", default=",".join(MODES), help="ways of spreading")
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
            parser.error(f"--{name}={getattr(options, name)}: at least 1 is needed")
    if options.rounds < 2:
        parser.error(f"--rounds={options.rounds}: quartiles need at least 2")
    options.sizes = {name: getattr(options, name) for name in SIZES}
    return options


def lines(options: argparse.Namespace, arguments: list[str]):
    """A dict a line: all measurements, then all predictions."""
    about = environment_info()
    about = {key: about[key] for key in ("threads", "versions", "commit")}
    for mode in options.modes.split(","):
        for count in options.devices:
            yield measured_apart(mode, count, arguments) | about
    for config in filter(None, options.predict.split(",")):
        yield from predictions(config, work_of(config), options.chips)


def main() -> int:
    """A JSON object a line."""
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
