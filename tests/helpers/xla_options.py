"""Asks the installed XLA which of its compiler options it knows."""

import json
import os
import subprocess
import sys

# Compilation dominates the time of tests, and fusion emitters dominate compilation; a
# program in one part takes two thirds of the time of one in many.
FAST_COMPILATION = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}

# One compilation per option; XLA refuses an unknown one by an error with this text.
PROBE = """
import json, sys
import jax

lowered = jax.jit(lambda x: x).lower(0.0)
for name, value in json.loads(sys.argv[1]).items():
    try:
        lowered.compile({name: value})
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
    else:
        print(name)
"""


def known_options(options: dict) -> dict:
    """Returns the options that the installed XLA knows, with their values.

    Options come and go between releases of jaxlib, and a process ends without a
    traceback where XLA_FLAGS names an unknown one. They are probed in a subprocess,
    since XLA reads XLA_FLAGS only once, before it compiles anything.
    """
    probe = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(options)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    if probe.returncode:
        raise RuntimeError(f"JAX cannot compile here: {probe.stderr.strip()}")
    names = probe.stdout.split()
    return {name: options[name] for name in names}


def as_flags(options: dict) -> str:
    """Returns the options as XLA_FLAGS has them."""
    values = {name: str(value).lower() for name, value in options.items()}
    return " ".join(f"--{name}={value}" for name, value in values.items())
