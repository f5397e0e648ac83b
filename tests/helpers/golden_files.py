"""Files of tests/goldens/, and comparison with their arrays."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

FOLDER = Path(__file__).parents[1] / "goldens"


class Golden:
    """Arrays of a golden file by group, named as in tests/goldens/README.md."""

    def __init__(self, name: str):
        self.name = name
        with np.load(FOLDER / f"{name}.npz") as file:
            self.arrays = dict(file)
        self.sizes = {key: x.tolist() for key, x in self.group("sizes").items()}

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Returns the arrays of a group."""
        prefix += "/"
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }


golden = functools.cache(Golden)


class Distances:
    """Largest difference of each quantity of a golden file."""

    def __init__(self):
        self.largest = {}

    def add(self, quantity: str, ours, theirs) -> None:
        """Adds arrays, or trees of the same structure and shapes."""
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        ours, theirs = (
            [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
            for tree in (ours, theirs)
        )
        assert max(np.abs(leaf).max() for leaf in theirs) > 0.01, "zeros prove nothing"
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.shape == other.shape, quantity
            largest = float(np.abs(mine - other).max())
            assert np.isfinite(largest), quantity
            self.largest[quantity] = max(self.largest.get(quantity, 0.0), largest)


def compare(file: Golden, loss: Callable, convert: Callable, inputs: dict) -> dict:
    """Returns the largest differences by quantity.

    Args:
      loss: of parameters and inputs gives the loss and all other outputs.
      convert: gives a group's parameters, or their gradients, as ours.
    """
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (total, found), gradients = run(convert("parameters"), inputs)
    theirs, far = file.group("outputs"), Distances()
    far.add("loss", total, theirs.pop("loss"))
    far.add("outputs", found, theirs)
    slopes = convert("gradients"), file.group("gradients/inputs")
    far.add("gradients", gradients, slopes)
    return far.largest
