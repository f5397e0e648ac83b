"""The observer of `every.watch`, which writes lines of split "watch"."""

from collections.abc import Callable

from jaxtyping import PyTree

from experiment.activations import make_activation_statistics
from experiment.observe import ObservedRun, Program
from experiment.setup import TrainingSetup
from training.metric_writers import TensorBoard
from training.observe.histograms import write_histograms
from training.observe.watch import make_watch_program

SPLIT = "watch"


def make_watch(run: ObservedRun) -> Callable[..., None]:
    """Returns a function that writes what it sees of a step to the log of each trial.

    Numbers go to metrics.jsonl and TensorBoard, histograms to TensorBoard.
    """
    program = run.compile(make_program)

    def observe(step: int, *inputs: PyTree) -> None:
        for k, (numbers, histograms) in program(*inputs).items():
            record = run.records[k]
            record.write(step, SPLIT, {name: float(x) for name, x in numbers.items()})
            for writer in record.writers:
                if isinstance(writer, TensorBoard):
                    write_histograms(writer, step, SPLIT, histograms)

    return observe


def make_program(setup: TrainingSetup) -> Program:
    """Returns (state, carry, batch) -> numbers and histograms of the step."""
    cfg, axis_name = setup.experiment.cfg, setup.partitioner.axis_name
    return make_watch_program(
        setup.loss,
        setup.optimizer,
        make_activation_statistics(setup.experiment, axis_name=axis_name),
        cfg.seed,
        grad_accum_steps=cfg.grad_accum_steps,
        axis_name=axis_name,
    )
