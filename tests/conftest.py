"""What all tests share: one compilation cache, and programs compiled in haste."""

import os
from pathlib import Path

# Compiling is the cost here, and fusion emitters are most of it; a program in one part
# takes two thirds of the time of one in many. Entry points that tests start as programs
# of their own inherit the flags.
HASTE = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {HASTE}".strip()

import jax  # noqa: E402

ROOT = Path(__file__).parent.parent

jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_disable_most_optimizations", True)
