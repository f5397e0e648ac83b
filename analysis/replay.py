"""Diagnosis of training batches whose loss or gradient was not finite.

python train.py --workdir=runs/rnn --replay=runs/rnn/replay/steps-12-21.npz

Data that has moved is named as in training, by --config and --config.data.dir or
--config.data.source_dir; other keys of the config are not used.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from experiment import setup
from experiment.restore import open_run
from training.checkpoint import Checkpoints
from training.gradients import Loss, gradients, total_loss
from training.optim.param_groups import named_leaves
from utils.errors import UserError
from utils.paths import DATA_PLACES, resolve_path


def format_diagnosis(workdir: str, path: str, overrides: dict | None = None) -> str:
    """Formats a line for each batch: loss, gradient norm, and non-finite arrays.

    Parameters and carry are those of the newest checkpoint, which the run saved when
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
    checkpoints = Checkpoints(run.directory.checkpoints, is_reader=True)
    restored = checkpoints.restore_newest(training.checkpoint_state(state, carry))
    checkpoints.close()
    if restored is None:
        raise UserError(f"--workdir={workdir} has no checkpoint")
    state, carry = training.from_checkpoint(restored[0], carry)
    lines = []
    for step, batch in load_batches(path).items():
        key = jax.random.fold_in(jax.random.key(cfg.seed), jnp.int32(step - 1))
        batch = training.partitioner.put_batch(batch)
        diagnosis = diagnose_batch(training.loss, state.params, carry, batch, key)
        lines.append(
            f"step {step}  loss {diagnosis['loss']:.6g}  "
            f"gradient norm {diagnosis['gradient_norm']:.6g}"
        )
        for kind in ("parameters", "gradients"):
            if names := diagnosis[kind]:
                lines.append(f"  non-finite {kind}: {', '.join(names)}")
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
    loss: Loss, params: PyTree, carry: PyTree, batch: PyTree, rng
) -> dict:
    """Returns loss, gradient norm, and non-finite "parameters" and "gradients"."""
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
    leaves = named_leaves(tree).items()
    return [name for name, leaf in leaves if not jnp.isfinite(leaf).all()]
