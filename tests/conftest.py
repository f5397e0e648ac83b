"""What all tests share: one compilation cache, and programs compiled in haste."""

import gc
import os
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Compiling is the cost here, and fusion emitters are most of it; a program in one part
# takes two thirds of the time of one in many. Small programs are kept too: there are
# hundreds, and each process needs them anew. By the environment, so that what tests
# start as programs of their own inherits it.
HASTE = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {HASTE}".strip()
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"

import jax  # noqa: E402, F401

# Tracing makes many objects and little garbage.
gc.freeze()
gc.set_threshold(100_000)
