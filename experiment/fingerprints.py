"""The observer of `every.fingerprint`, which writes digests of a step's inputs."""

from collections.abc import Callable

import jax
from jaxtyping import PyTree

from experiment.observe import ObservedRun, Program
from experiment.setup import TrainingSetup
from training.observe.fingerprint import (
    FILE,
    FingerprintFile,
    digest_tree,
    named_arrays,
)
from training.parallel.distributed import is_primary
from training.run_dir import RunDirectory


def make_fingerprint(run: ObservedRun) -> Callable[..., None]:
    """Returns the observer, which writes a file of each trial in its run directory."""
    shapes: dict[str, tuple] = {}

    def make(setup: TrainingSetup) -> Program:
        def program(state, carry, batch):
            inputs = step_inputs(setup, state, carry, batch)
            named = named_arrays(inputs).items()
            shapes.update({name: leaf.shape for name, leaf in named})
            return digest_tree(inputs)

        return program

    digest, files = run.compile(make, whole=True), {}

    def observe(step: int, *inputs: PyTree) -> None:
        found = digest(*inputs)
        if not is_primary():
            return
        for k, digests in found.items():
            if k not in files:
                files[k] = open_file(run.directories[k], step - 1)
            files[k].write(step, shapes, digests)

    return observe


def open_file(directory: RunDirectory, step: int) -> FingerprintFile:
    """Opens the fingerprints of a run, to continue after a step."""
    header = {
        "config": directory.read_json("config.json"),
        "about": directory.read_json("about.json"),
    }
    return FingerprintFile(directory.path / FILE, step, header)


def step_inputs(
    setup: TrainingSetup, state: PyTree, carry: PyTree, batch: PyTree
) -> dict[str, PyTree]:
    """Returns the inputs of a step in order of computation, without padding rows."""
    rows = setup.carry_batch_size
    carry = jax.tree.map(lambda leaf: leaf[:rows] if leaf.ndim else leaf, carry)
    inputs = {"batch": batch, "carry": carry, "params": state.params}
    return inputs | {"opt_state": state.opt_state, "ema": state.ema}
