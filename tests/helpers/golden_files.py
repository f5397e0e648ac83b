"""The files of tests/goldens/, and how far we are from them."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

FOLDER = Path(__file__).parents[1] / "goldens"


class Golden:
    """One file: its arrays by group, as tests/goldens/README.md names them."""

    def __init__(self, name: str):
        self.name = name
        with np.load(FOLDER / f"{name}.npz") as file:
            self.arrays = dict(file)
        self.sizes = {key: x.tolist() for key, x in self.group("sizes").items()}

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """What stands below a name."""
        prefix += "/"
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }


golden = functools.cache(Golden)


class Distances:
    """The largest difference of each quantity of a file."""

    def __init__(self):
        self.largest = {}

    def add(self, quantity: str, ours, theirs) -> None:
        """Of arrays or trees of the same structure and shapes."""
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
    """Largest differences by quantity.

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
