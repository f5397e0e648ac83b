"""A step as a traced program, with a name for each of its inputs and outputs."""

import dataclasses

import jax
import optax
from jax.extend.core import ClosedJaxpr
from jaxtyping import PyTree

from analysis.step_replay.replay import StepInputs
from experiment.setup import TrainingSetup
from training.gradients import gradients
from training.metrics import WeightedMetrics
from training.step import TrainState, apply_gradients, step_key


@dataclasses.dataclass(frozen=True)
class Program:
    """A step as a traced program, with a name for each of its inputs and outputs.

    Names of inputs begin with params/, opt_state/, ema/, carry/ or batch/; names of
    outputs also with gradients/ or metrics/, whose pairs are sum (0) and weight (1).
    """

    jaxpr: ClosedJaxpr
    args: list[jax.Array]
    input_names: list[str]
    output_names: list[str]


def step_gradients(
    setup: TrainingSetup, state: TrainState, carry: PyTree, batch: PyTree
) -> tuple[PyTree, WeightedMetrics, PyTree]:
    """Returns gradients, metrics and the next carry of a step of a run."""
    cfg = setup.experiment.cfg
    return gradients(
        setup.loss,
        state.params,
        carry,
        batch,
        step_key(cfg.seed, state.step),
        num_microbatches=cfg.grad_accum_steps,
        axis_name=setup.partitioner.axis_name,
    )


def step_program(setup: TrainingSetup, inputs: StepInputs) -> Program:
    """Traces loss, gradient and update of a step for its inputs on one device.

    The update is as it would be without the check that all is finite. Operations of
    the optimizer have the scope "optimizer".
    """
    cfg = setup.experiment.cfg

    def compute(state, carry, batch):
        grads, metrics, new_carry = step_gradients(setup, state, carry, batch)
        with jax.named_scope("optimizer"):
            norm = optax.global_norm(grads)
            new = apply_gradients(state, grads, setup.optimizer, cfg.optim.ema_decay)
        return new, new_carry, {"gradients": grads, "metrics": metrics, "norm": norm}

    step = setup.partitioner.wrap(compute, inputs.carry)
    args = inputs.state, inputs.carry, inputs.batch
    jaxpr, shapes = jax.make_jaxpr(step, return_shape=True)(*args)
    state, carry, rest = shapes
    return Program(
        jaxpr,
        jax.tree.leaves(args),
        _names({**_parts(inputs.state), "carry": inputs.carry, "batch": inputs.batch}),
        _names({**_parts(state), "carry": carry, **rest}),
    )


def _parts(state: TrainState) -> dict:
    return {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}


def _names(trees: dict[str, PyTree]) -> list[str]:
    """Returns a name for each leaf of trees, in the order of `trees`."""
    names = []
    for prefix, tree in trees.items():
        for path, _ in jax.tree_util.tree_leaves_with_path(tree):
            key = jax.tree_util.keystr(path, simple=True, separator="/")
            names.append(f"{prefix}/{key}" if key else prefix)
    return names
