"""Choice of checkpoints and their parameters, for evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from training.checkpoint import CONTENT, Checkpoints, read_run_id, restore_args
from utils.errors import UserError


def resolve_steps(checkpoints: Checkpoints, which: str) -> tuple[int, ...]:
    """Returns the steps of "best", "last", a number, or "average:N", the newest N.

    Raises:
      UserError: there is no such checkpoint.
    """
    steps = checkpoints.steps()
    if not steps:
        raise UserError(
            f"{checkpoints.folder.parent} has no checkpoint yet: train it first"
        )
    if which == "last":
        return (steps[-1],)
    if which == "best":
        return (max(steps, key=lambda step: (checkpoints.score(step), step)),)
    name, _, number = which.rpartition(":")
    if name == "average" and number in map(str, range(1, len(steps) + 1)):
        return tuple(steps[-int(number) :])
    if which not in map(str, steps):
        raise UserError(
            f"Unknown checkpoint {which!r}; choose 'best', 'last', one of the "
            f"steps {', '.join(map(str, steps))}, or 'average:N' of the newest N "
            f"up to {len(steps)} (keep.last keeps more)"
        )
    return (int(which),)


def restore_params(checkpoints: Checkpoints, *steps: int) -> PyTree:
    """Returns the evaluation parameters of a step, or the mean of several.

    They are on the first device. Where an optimizer or `optim.ema_decay` keeps
    an average of the parameters, that is returned.

    Raises:
      UserError: a checkpoint is damaged.
    """
    all_params = [_restore_step(checkpoints, step) for step in steps]
    if len(all_params) == 1:
        return all_params[0]

    def mean(*leaves):
        total = np.mean([np.asarray(leaf, np.float64) for leaf in leaves], axis=0)
        return jnp.asarray(total, leaves[0].dtype)

    return jax.tree.map(mean, *all_params)


def _restore_step(checkpoints: Checkpoints, step: int) -> PyTree:
    corruption = checkpoints.find_corruption(step)
    if corruption:
        raise UserError(
            f"checkpoint {step} is damaged ({corruption}): choose another with "
            "--checkpoint, or resume training to write it again"
        )
    folder = checkpoints.folder / str(step)
    if (run_id := read_run_id(folder)) != checkpoints.run_id:
        raise UserError(
            f"{folder} is of another run: its run_id is {run_id!r}, and that of "
            f"about.json {checkpoints.run_id!r}"
        )
    folder /= CONTENT
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        stored = reader.metadata(folder).item_metadata["state"]

        def read(wanted):
            args = restore_args({"state": wanted}, is_part=True)
            return reader.restore(folder, args=args)["state"]

        if stored.get("ema"):
            return read({"ema": stored["ema"]})["ema"]
        optimizer = stored.get("opt_state")
        if isinstance(optimizer, dict) and "average" in optimizer:
            names = ("mean", "count")
            average = {name: optimizer["average"][name] for name in names}
            average = read({"opt_state": {"average": average}})
            average = average["opt_state"]["average"]
            if int(average["count"]):
                return average["mean"]
        return read({"params": stored["params"]})["params"]
