"""Training steps of published models at their sizes, on this machine's accelerator.

python -m benchmarks.published --works=big,xl_large,rnnsearch --kernels=xla,blockwise

One JSON line per workload and attention implementation: tokens per second, model
FLOP/s, their fraction of the rate of a large matrix product, memory by the compiler,
and on an H200 in bfloat16 whether the goal is reached. Parameters and tokens are
random; batches are for one device, without padding.
"""

import argparse
import dataclasses
import importlib
import sys

import jax
import numpy as np
from ml_collections import ConfigDict

from analysis.plan.aot_compile import CompiledStep, out_of_memory_reason
from benchmarks.harness import cli
from benchmarks.harness.protocol import seconds_of
from benchmarks.harness.training import TrainingStep, random_training
from experiment.validate import validate_config
from models.attention.dispatch import IMPLEMENTATIONS, is_supported
from training.profiling.environment import environment_info
from training.profiling.peak_flops import measure_matmul
from utils.allocator import tune_allocator
from utils.cli import exit_with
from utils.errors import UserError

SHARE, TOKENS = "fraction_of_peak", "tokens_per_second"


@dataclasses.dataclass(frozen=True)
class Published:
    """A published config, its batch for one device, and the goal of a step."""

    config: str
    model: str
    batch: dict
    goal: tuple[str, float] | None = None


WORKS = {
    "base": Published("wmt14", "base", {"tokens_per_batch": 12_800}),
    "big": Published("wmt14", "big", {"tokens_per_batch": 12_800}, (SHARE, 0.5)),
    "xl_base": Published(
        "wikitext103", "standard", {"batch_size": 60}, (TOKENS, 180_000)
    ),
    "xl_large": Published("wikitext103", "large", {"batch_size": 16}, (SHARE, 0.5)),
    "rnnsearch": Published("wmt14", "rnnsearch50", {}),
}
TINY = {
    "model": {
        **dict.fromkeys(("width", "feed_forward", "embedding_width"), 32),
        **dict.fromkeys(("head_dim", "attention_width", "maxout_width"), 16),
        **dict.fromkeys(("attention_window", "memory_length"), 4),
        "layers": 1,
        "heads": 2,
        "cutoffs": (),
    },
    "data": {
        **dict.fromkeys(("segment_length", "max_length"), 8),
        "vocab_size": 64,
        "batch_size": 2,
        "tokens_per_batch": 16,
    },
}


def config(
    work: Published, kernel: str | None, options: argparse.Namespace
) -> ConfigDict:
    """Returns the config whose step is timed."""
    module = importlib.import_module(f"configs.{work.config}")
    cfg = module.get_config(work.model)
    cfg.data.update(work.batch)
    cfg.model.dtype = options.dtype
    if "attention_impl" in cfg.model:
        cfg.model.attention_impl = kernel
    if not options.dropout and "attention_dropout" in cfg.model:
        cfg.model.attention_dropout = 0.0
    if options.tiny:
        for section, sizes in TINY.items():
            known = {key: sizes[key] for key in sizes if key in cfg[section]}
            cfg[section].update(known)
    return cfg


class Timed(TrainingStep):
    """Compiled training step with random parameters and a random batch."""

    def __init__(self, cfg: ConfigDict):
        self.spec, training = random_training(cfg, jax.devices()[:1])
        self.program = CompiledStep.compile(self.spec, training.partitioner)
        super().__init__(training)
        self.compiled = self.program.program


def line(name: str, kernel: str | None, options: argparse.Namespace) -> dict:
    """Returns the JSON line of a workload, or the reason why there is none."""
    about = {"benchmark": "published", "work": name, "kernel": kernel}
    about |= {"dtype": options.dtype, "attention_dropout": options.dropout}
    if kernel and not is_supported(kernel):
        return about | {"refused": f"{kernel} does not support this device"}
    cfg = config(WORKS[name], kernel, options)
    try:
        validate_config(cfg)
        return about | timed(WORKS[name], Timed(cfg), options)
    except (UserError, MemoryError) as error:
        return about | {"refused": str(error)}
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return about | {"refused": out_of_memory_reason(str(error))}


def timed(work: Published, subject: Timed, options: argparse.Namespace) -> dict:
    """Times the steps of a workload."""
    for _ in range(options.warm):
        subject.step()
    laps = [seconds_of(subject.step) for _ in range(options.steps)]
    low, second, high = np.quantile(laps, (0.25, 0.5, 0.75)).tolist()
    flops, tokens = subject.spec.flops(), subject.spec.num_predicted
    peak = measure_matmul(options.dtype)
    found = {
        "seconds": second,
        "quartiles": [low, high],
        TOKENS: tokens / second,
        "tokens": tokens,
        "flops": flops,
        "flops_per_second": flops / second,
        "peak_matmul_flops_per_second": peak,
        SHARE: flops / second / peak,
        "held_bytes": subject.program.state_bytes,
        "working_bytes": subject.program.working_bytes,
        "compile_seconds": subject.program.seconds,
        "nonfinite_steps": float(subject.metrics["nonfinite_steps"][0]),
    }
    as_meant = options.dtype == "bfloat16" and options.dropout and not options.tiny
    if work.goal and as_meant and "H200" in jax.devices()[0].device_kind:
        key, least = work.goal
        found |= {"goal": {key: least}, "met": found[key] >= least}
    return found


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    parser = cli.make_parser(__doc__)
    add, names = parser.add_argument, "big,xl_base,xl_large,rnnsearch"
    add("--works", type=cli.names_in(WORKS), default=names, help=", ".join(WORKS))
    known = ", ".join(IMPLEMENTATIONS)
    add("--kernels", type=cli.names_in(IMPLEMENTATIONS), default="xla", help=known)
    add("--dtype", default="bfloat16")
    add("--warm", type=cli.at_least(0), default=3, help="steps before any counts")
    add("--steps", type=cli.positive, default=20, help="steps that are timed")
    off, reason = "--no-attention-dropout", "cuDNN does not support it"
    add(off, dest="dropout", action="store_false", help=reason)
    return cli.parse_options(parser, arguments)


def main() -> int:
    """Prints a JSON line per workload and attention implementation."""
    options, about = parse(sys.argv[1:]), environment_info()
    return cli.print_lines(
        line(name, kernel, options) | about
        for name in options.works
        for kernel in (options.kernels if name != "rnnsearch" else [None])
    )


if __name__ == "__main__":
    tune_allocator()
    exit_with(main)
