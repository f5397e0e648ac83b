"""The observer of `every.watch`, which writes lines of split "watch"."""

from collections.abc import Callable

from jaxtyping import PyTree

from experiment.observe import ObservedRun, Program
from experiment.setup import TrainingSetup
from training.observe.watch import make_norms


def make_watch(run: ObservedRun) -> Callable[..., None]:
    """Returns a function that writes the numbers of a step to the log of each trial."""
    program = run.compile(make_program)

    def observe(step: int, *inputs: PyTree) -> None:
        for k, numbers in program(*inputs).items():
            numbers = {name: float(x) for name, x in numbers.items()}
            run.records[k].write(step, "watch", numbers)

    return observe


def make_program(setup: TrainingSetup) -> Program:
    """Returns (state, carry, batch) -> numbers of the step of these inputs."""
    cfg = setup.experiment.cfg
    return make_norms(
        setup.loss,
        setup.optimizer,
        cfg.seed,
        grad_accum_steps=cfg.grad_accum_steps,
        axis_name=setup.partitioner.axis_name,
    )
