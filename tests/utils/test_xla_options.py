import os
import subprocess
import sys

import pytest

from helpers.xla_options import FAST_COMPILATION, as_flags, known_options

KNOWN = {"xla_backend_optimization_level": 1, "xla_llvm_disable_expensive_passes": True}


def test_an_option_that_xla_does_not_know_is_left_out():
    assert known_options({"xla_of_another_release": True, **KNOWN}) == KNOWN


def test_a_value_that_xla_does_not_accept_is_an_error():
    with pytest.raises(RuntimeError, match="not a valid"):
        known_options({"xla_backend_optimization_level": "high"})


def test_flags_are_written_as_xla_reads_them():
    expected = (
        "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
    )
    assert as_flags(KNOWN) == expected


def test_xla_starts_with_the_flags_that_tests_set():
    """Unlike with an unknown one, which ends the process."""
    run = [sys.executable, "-c", "import jax; jax.devices()"]
    flags = os.environ["XLA_FLAGS"]
    subprocess.run(run, env=os.environ | {"XLA_FLAGS": flags}, check=True)
    assert as_flags(known_options(FAST_COMPILATION)) in flags
    unknown = f"{flags} --xla_of_another_release=true"
    ended = subprocess.run(run, env=os.environ | {"XLA_FLAGS": unknown})
    assert ended.returncode
