"""Diagnosis of training batches whose loss, gradient or update was not finite.

python train.py --workdir=runs/rnn --replay=runs/rnn/replay/steps-12-21.npz

Data that has moved is named as in training, by --config and --config.data.dir or
--config.data.source_dir; other keys of the config are not used.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from experiment import setup
from experiment.restore import open_run
from training.checkpoint import Checkpoints
from training.gradients import Loss, gradients, total_loss
from training.optim.param_groups import named_leaves
from training.step import TrainState, apply_gradients
from utils.errors import UserError
from utils.paths import DATA_PLACES, resolve_path


def format_diagnosis(workdir: str, path: str, overrides: dict | None = None) -> str:
    """Formats a line for each batch: loss and norms, and lines of non-finite arrays.

    State and carry are those of the newest checkpoint, which the run saved when
    it stopped. Raises UserError for the batches of another run.

    Args:
      overrides: keys of the config, of which the folders of the data are used.
    """
    config, keys = overrides or {}, {f"data.{key}": key for key in DATA_PLACES}
    places = {keys[key]: value for key, value in config.items() if key in keys}
    run = open_run(workdir, "last", {"data": places})
    cfg = run.experiment.cfg
    training = setup.TrainingSetup.from_experiment(run.experiment, run.open_dataset())
    state, carry = training.partitioner.init(training.make_state), training.make_carry()
    checkpoints = Checkpoints(
        run.directory.checkpoints, run.directory.run_id, is_reader=True
    )
    restored = checkpoints.restore_newest(training.checkpoint_state(state, carry))
    checkpoints.close()
    if restored is None:
        raise UserError(f"--workdir={workdir} has no checkpoint")
    state, carry = training.from_checkpoint(restored[0], carry)
    lines = []
    for step, batch in load_batches(path).items():
        key = jax.random.fold_in(jax.random.key(cfg.seed), jnp.int32(step - 1))
        batch = training.partitioner.put_batch(batch)
        norms, names = diagnose_batch(
            training.loss,
            training.optimizer,
            state.replace(step=jnp.int32(step - 1)),
            carry,
            batch,
            key,
            ema_decay=cfg.optim.ema_decay,
        )
        values = (f"{name} {norm:.6g}" for name, norm in norms.items())
        lines.append("  ".join([f"step {step}", *values]))
        for kind, found in names.items():
            if found:
                lines.append(f"  non-finite {kind}: {', '.join(found)}")
    return "\n".join(lines)


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
    loss: Loss,
    optimizer: optax.GradientTransformationExtraArgs,
    state: TrainState,
    carry: PyTree,
    batch: PyTree,
    rng,
    *,
    ema_decay: float = 0.0,
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Returns loss and norms by name, and the names of non-finite arrays by kind.

    Arrays after the update are left out where they were not finite before it.
    """

    @jax.jit
    def compute(state, carry, batch):
        grads, metrics, new_carry = gradients(loss, state.params, carry, batch, rng)
        new = apply_gradients(state, grads, optimizer, ema_decay)
        update = jax.tree.map(jnp.subtract, new.params, state.params)
        norms = {
            "loss": total_loss(metrics),
            "gradient norm": optax.global_norm(grads),
            "update norm": optax.global_norm(update),
        }
        return norms, grads, new, new_carry

    norms, grads, new, new_carry = compute(state, carry, batch)
    names = {
        "parameters": nonfinite_names(state.params),
        "gradients": nonfinite_names(grads),
    }
    for kind, after, before in (
        ("parameters", new.params, state.params),
        ("optimizer state", new.opt_state, state.opt_state),
        ("average", new.ema, state.ema),
        ("carry", new_carry, carry),
    ):
        known = nonfinite_names(before)
        found = [name for name in nonfinite_names(after) if name not in known]
        names[f"{kind} after the update"] = found
    return {name: float(norm) for name, norm in norms.items()}, names


def nonfinite_names(tree: PyTree) -> list[str]:
    """Returns the names of leaves with infinite values or nan."""
    leaves = named_leaves(tree).items()
    return [name for name, leaf in leaves if not jnp.isfinite(leaf).all()]
