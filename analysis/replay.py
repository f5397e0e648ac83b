"""Diagnosis of training batches whose loss or gradient was not finite.

python train.py --workdir=runs/rnn --replay=runs/rnn/replay/steps-12-21.npz
"""

import jax
import jax.numpy as jnp

from data.dataset import open_dataset
from experiment import setup
from experiment.restore import open_run
from training.checkpoint import Checkpoints
from training.replay import diagnose_batch, load_batches
from utils.errors import UserError


def format_diagnosis(workdir: str, path: str) -> str:
    """Formats a line for each batch: loss, gradient norm, and non-finite arrays.

    Parameters and carry are those of the newest checkpoint, which the run saved when
    it stopped. Raises UserError for the batches of another run.
    """
    run = open_run(workdir, "last")
    cfg = run.experiment.cfg
    dataset = open_dataset(cfg.data, run.experiment.tokenizers)
    training = setup.TrainingSetup.from_experiment(run.experiment, dataset)
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
