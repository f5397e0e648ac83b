"""What all tests share: one compilation cache, and no GPU memory grabbed."""

from pathlib import Path

import jax

ROOT = Path(__file__).parent.parent

jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_disable_most_optimizations", True)  # compiling is the cost here
