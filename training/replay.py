"""Examination of batches without a finite loss, which a run saved."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from training.gradients import Loss, gradients, total_loss
from training.optim.param_groups import names_of
from utils.errors import UserError
from utils.paths import resolve_path


def load_batches(path: str | Path) -> dict[int, dict[str, np.ndarray]]:
    """Reads the batches that a run saved (experiment/train.py), by step.

    Raises:
      UserError: it is another file.
    """
    batches: dict[int, dict[str, np.ndarray]] = {}
    try:
        with (
            resolve_path(path).open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            for key in arrays.files:
                step, _, name = key.partition("/")
                batches.setdefault(int(step), {})[name] = arrays[key]
    except (OSError, ValueError) as error:
        raise UserError(f"--replay={path} holds no batches: {error}") from error
    return batches


def diagnose_batch(
    loss: Loss, params: PyTree, carry: PyTree, batch: PyTree, rng
) -> dict:
    """Returns a batch's loss, gradient norm, and the names of non-finite leaves.

    The names are under "parameters" and "gradients".
    """
    compiled = jax.jit(lambda *inputs: gradients(loss, *inputs))
    grads, metrics, _ = compiled(params, carry, batch, rng)
    squares = [jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(grads)]
    return {
        "loss": float(total_loss(metrics)),
        "gradient_norm": float(jnp.sqrt(sum(squares))),
        "parameters": nonfinite_names(params),
        "gradients": nonfinite_names(grads),
    }


def nonfinite_names(tree: PyTree) -> list[str]:
    """Returns the names of leaves with infinite values or nan."""
    leaves = zip(names_of(tree), jax.tree.leaves(tree), strict=True)
    return [name for name, leaf in leaves if not jnp.isfinite(leaf).all()]
