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
from collections.abc import Iterator
from pathlib import Path

import jax

from analysis.plan.step import StepSpec
from benchmarks.collectives import collectives
from benchmarks.harness import cli
from benchmarks.harness.protocol import seconds_of, spread
from benchmarks.harness.training import TrainingStep, random_training
from benchmarks.tpu_roofline import predictions
from configs import base
from experiment.build import is_language_modeling
from experiment.setup import num_parameters
from training.profiling.environment import environment_info
from utils.allocator import tune_allocator
from utils.cli import exit_with
from utils.errors import UserError

ROOT = Path(__file__).parents[1]
MODES = {  # `cfg.parallel` for a number of devices
    "data": lambda count: {"data": count},
    "fsdp": lambda count: {"data": 1, "fsdp": count},
    "tensor": lambda count: {"data": 1, "tensor": count},
    "pmap": lambda count: {"mode": "pmap", "data": count},
}
SIZES = {"layers": 4, "width": 256, "heads": 8, "feed_forward": 1024}
STEP = "jit_(step|call)"  # names of compiled steps under jit and pmap


def measure(mode: str, count: int, options: argparse.Namespace) -> dict:
    """Measures the training step of a Transformer-XL in this process."""
    cfg = base.get_config("transformer_xl")
    sizes = {name: getattr(options, name) for name in SIZES}
    cfg.task, cfg.data.vocab_size = "language_modeling", options.vocabulary
    cfg.data.update(batch_size=options.rows, segment_length=options.length)
    cfg.model.update({**sizes, "memory_length": options.length})
    cfg.parallel.update(MODES[mode](count))
    _, training = random_training(cfg)
    subject = TrainingStep(training)
    first, *seconds = (seconds_of(subject.step) for _ in range(options.rounds + 1))
    seconds = spread(seconds)
    loss, weight = subject.metrics["loss"]
    return {
        "mode": mode,
        "devices": jax.device_count(),
        "seconds_per_step": seconds,
        "tokens_per_second": options.rows * options.length / seconds["median"],
        "first_step_seconds": first,
        "loss": float(loss) / float(weight),
        "parameter_bytes": num_parameters(subject.state.params) * 4,
        "model": sizes | {"vocabulary": options.vocabulary},
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
        files = Path(folder).glob("*after_optimizations.txt")
        program = max((file.read_text(encoding="utf8") for file in files), key=len)
    sent = collectives(program, count)
    line = json.loads(done.stdout.splitlines()[-1])
    return line | {
        "collectives": {
            "operations": sent.operations,
            "result_bytes": sent.results,
            "bytes_sent_by_each": sent.bytes_sent,
            "loops_of_unknown_length": sent.unknown_loops,
        }
    }


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
        "tokens": step.num_predicted,
        "parameters": num_parameters(step.params),
        "padding": "none" if is_language_modeling(cfg) else "not counted",
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    batch = {"vocabulary": 8000, "rows": 16, "length": 128}  # rows over all devices
    parser = cli.make_parser(__doc__, **SIZES, **batch)
    add = parser.add_argument
    add("--devices", type=cli.positives, default="1,2,4,8", help="virtual, of this CPU")
    names = ",".join(MODES)
    add("--modes", type=cli.names_in(MODES), default=names, help="of parallelism")
    add("--chips", type=cli.positives, default="8,16,32,64,128,256", help="of a slice")
    add("--predict", default="wmt14:big,wikitext103:large", help="configs; or empty")
    add("--rounds", type=cli.at_least(2), default=5, help="steps that are timed")
    add("--only", default="", help="MODE:COUNT, in this process")
    small = {"devices": [2], "modes": ["data"], "chips": [8], "vocabulary": 50}
    small |= {"rows": 4, "length": 8, "rounds": 2, "predict": "cldr:rnn"}
    return cli.parse_options(parser, arguments, **small, **cli.TINY)


def lines(options: argparse.Namespace, arguments: list[str]) -> Iterator[dict]:
    """Yields all measurements, then all estimates."""
    if options.only:
        mode, _, count = options.only.partition(":")
        yield measure(mode, int(count), options)
        return
    about = environment_info()
    about = {key: about[key] for key in ("threads", "versions", "commit")}
    for mode in options.modes:
        for count in options.devices:
            yield measured_apart(mode, count, arguments) | about
    for config in filter(None, options.predict.split(",")):
        yield from predictions(config, work_of(config), options.chips)


def main() -> int:
    """Prints one JSON line per measurement or estimate."""
    arguments = sys.argv[1:]
    return cli.print_lines(lines(parse(arguments), arguments))


if __name__ == "__main__":
    tune_allocator()
    exit_with(main)
