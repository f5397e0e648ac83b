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
import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from analysis.plan.aot_compile import CompiledStep, out_of_memory_reason
from analysis.plan.memory import partitioner_for
from analysis.plan.step import StepSpec, dummy_tokenizers
from experiment.validate import validate_config
from models.attention.dispatch import IMPLEMENTATIONS, is_supported
from training.optim.optimizers import make_optimizer
from training.profiling.environment import environment_info
from training.profiling.peak_flops import measure_matmul
from training.step import make_state
from utils.allocator import tune_allocator
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
    "model.layers": 1,
    "model.width": 32,
    "model.heads": 2,
    "model.head_dim": 16,
    "model.feed_forward": 32,
    "model.embedding_width": 32,
    "model.attention_width": 16,
    "model.maxout_width": 16,
    "model.attention_window": 4,
    "model.memory_length": 4,
    "model.cutoffs": (),
    "data.vocab_size": 64,
    "data.batch_size": 2,
    "data.tokens_per_batch": 16,
    "data.segment_length": 8,
    "data.max_length": 8,
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
        for key, size in TINY.items():
            section, _, name = key.partition(".")
            if name in cfg[section]:
                cfg[section][name] = size
    return cfg


class Timed:
    """Compiled training step with random parameters and a random batch."""

    def __init__(self, cfg: ConfigDict):
        self.step = step = StepSpec.from_config(cfg)
        partitioner = partitioner_for(cfg, jax.devices()[:1])
        self.compiled = CompiledStep.compile(step, partitioner)
        optimizer, _ = make_optimizer(cfg.optim, cfg.steps, width=cfg.model.width)
        params, rows = partitioner.sharded_shapes(step.params), step.batch_size
        random = np.random.default_rng(0)
        sizes = dummy_tokenizers(cfg)

        def drawn(leaf):
            values = 0.02 * random.standard_normal(leaf.shape, np.float32)
            return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

        start = jax.tree.map(drawn, params)
        self.state = jax.jit(
            lambda params: make_state(params, optimizer, ema_decay=cfg.optim.ema_decay)
        )(start)
        self.carry = partitioner.init_carry(step.carry, rows)
        _, _, shapes = step.input_shapes(rows)
        smallest = min(tokenizer.vocab_size for tokenizer in sizes.values())
        self.batch = partitioner.put_batch(
            {name: full(leaf, smallest, random) for name, leaf in shapes.items()}
        )

    def seconds(self) -> float:
        """Runs one step and returns its seconds."""
        begin = time.perf_counter()
        found = self.compiled.program(self.state, self.carry, self.batch)
        self.state, self.carry, self.pairs = jax.block_until_ready(found)
        return time.perf_counter() - begin


def full(leaf: jax.ShapeDtypeStruct, vocabulary: int, random) -> np.ndarray:
    """Returns random values of a batch array without padding and resets."""
    if leaf.dtype == jnp.int32:
        return random.integers(5, vocabulary, leaf.shape, np.int32)
    return np.full(leaf.shape, leaf.ndim > 1, leaf.dtype)


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
        subject.seconds()
    laps = [subject.seconds() for _ in range(options.steps)]
    quartiles = np.quantile(laps, (0.25, 0.75)).tolist()
    second, flops = statistics.median(laps), subject.step.flops()
    top = measure_matmul(options.dtype)
    found = {
        "seconds": second,
        "quartiles": quartiles,
        TOKENS: subject.step.tokens / second,
        "tokens": subject.step.tokens,
        "flops": flops,
        "flops_per_second": flops / second,
        "peak_matmul_flops_per_second": top,
        SHARE: flops / second / top,
        "held_bytes": subject.compiled.state_bytes,
        "working_bytes": subject.compiled.working_bytes,
        "compile_seconds": subject.compiled.seconds,
        "nonfinite_steps": float(subject.pairs["nonfinite_steps"][0]),
    }
    as_meant = options.dtype == "bfloat16" and options.dropout and not options.tiny
    if work.goal and as_meant and "H200" in jax.devices()[0].device_kind:
        key, least = work.goal
        found |= {"goal": {key: least}, "met": found[key] >= least}
    return found


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--works", default="big,xl_base,xl_large,rnnsearch")
    parser.add_argument("--kernels", default="xla", help=", ".join(IMPLEMENTATIONS))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--warm", type=int, default=3, help="steps before any counts")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed")
    parser.add_argument(
        "--no-attention-dropout",
        dest="dropout",
        action="store_false",
        help="cuDNN does not support it",
    )
    parser.add_argument("--tiny", action="store_true", help="small models, for tests")
    options = parser.parse_args(arguments)
    for key, known in (("works", WORKS), ("kernels", IMPLEMENTATIONS)):
        chosen = getattr(options, key).split(",")
        if unknown := [name for name in chosen if name not in known]:
            parser.error(f"--{key}={unknown[0]}: there are {', '.join(known)}")
        setattr(options, key, chosen)
    if options.steps < 1:
        parser.error(f"--steps={options.steps} must be at least 1")
    return options


def main() -> int:
    """Prints a JSON line per workload and attention implementation."""
    options = parse(sys.argv[1:])
    about = environment_info()
    for name in options.works:
        has_kernels = WORKS[name].model != "rnnsearch50"
        for kernel in options.kernels if has_kernels else [None]:
            print(json.dumps(line(name, kernel, options) | about), flush=True)
    return 0


if __name__ == "__main__":
    tune_allocator()
    sys.exit(main())
