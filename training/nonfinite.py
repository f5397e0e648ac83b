"""The batches that gave no finite loss, kept to look at them again."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from training.gradients import Loss, gradients, total_loss
from training.optim.param_groups import names_of
from utils.errors import UserError
from utils.paths import resolve_path


def save_batches(path: Path, batches: dict[int, dict[str, np.ndarray]]) -> Path:
    """Writes batches by the number of the step that met them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{step}/{name}": value
        for step, batch in batches.items()
        for name, value in batch.items()
    }
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def load_batches(path: str | Path) -> dict[int, dict[str, np.ndarray]]:
    """What `save_batches` wrote. Raises UserError for another file."""
    found: dict[int, dict[str, np.ndarray]] = {}
    try:
        with (
            resolve_path(path).open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            for key in arrays.files:
                step, _, name = key.partition("/")
                found.setdefault(int(step), {})[name] = arrays[key]
    except (OSError, ValueError) as error:
        raise UserError(f"--replay={path} holds no batches: {error}") from error
    return found


def diagnose_batch(
    loss: Loss, params: PyTree, carry: PyTree, batch: PyTree, rng
) -> dict:
    """What a batch makes of parameters.

    Returns its loss, the norm of its gradient, and the names of parameters and of
    gradients that are not finite.
    """
    compiled = jax.jit(lambda *inputs: gradients(loss, *inputs))
    grads, pairs, _ = compiled(params, carry, batch, rng)
    squares = [jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(grads)]
    return {
        "loss": float(total_loss(pairs)),
        "gradient_norm": float(jnp.sqrt(sum(squares))),
        "parameters": not_finite(params),
        "gradients": not_finite(grads),
    }


def not_finite(tree: PyTree) -> list[str]:
    """Names of leaves that hold anything but finite numbers."""
    leaves = zip(names_of(tree), jax.tree.leaves(tree), strict=True)
    return [name for name, leaf in leaves if not jnp.isfinite(leaf).all()]
