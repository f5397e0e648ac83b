"""Batches that a run keeps, and what follows a spike of its loss (`cfg.on_spike`).

replay/steps-<first>-<last>.npz   batches of non-finite steps that ended the run
replay/spike-<step>.npz           the batch of a spike
replay/skipped/<step>-<n>.npz     batch n, which is left out: it spiked in that step
"""

import sys

from jaxtyping import PyTree

from experiment import train
from experiment.setup import TrainingSetup
from training.loop import TrainLoop
from training.parallel.distributed import is_primary
from training.run_dir import RunDirectory
from training.spikes import SpikeMonitor
from training.step import TrainState

CONSEQUENCES = {
    "keep": "",
    "skip": " and left out; going back to the newest checkpoint",
    "stop": ". Training ends, and saves nothing after its newest checkpoint; "
    "--config.on_spike=keep or another --config.spike_threshold continues from there",
}


def keep_batches(
    directory: RunDirectory, setup: TrainingSetup, name: str, steps: list[int]
) -> None:
    """Saves the batches of steps as `<step>/<array>` in a file of `replay/`."""
    arrays = {
        f"{step}/{key}": array
        for step in steps
        for key, array in setup.batches[step - 1].items()
    }
    directory.write_arrays(f"replay/{name}.npz", arrays)


def monitor_spikes(setup: TrainingSetup, directory: RunDirectory) -> SpikeMonitor:
    """Returns what finds spikes of a run; the first process keeps their batches."""
    cfg = setup.experiment.cfg

    def report(step: int, spike: dict, action: str) -> None:
        if not is_primary():
            return
        name = f"spike-{step}"
        if cfg.on_spike == "skip":
            name = f"skipped/{step}-{spike['batch']}"
        keep_batches(directory, setup, name, [step])
        print(
            f"step {step}: loss {spike['loss']:.4g} is a spike, above "
            f"{spike['limit']:.4g}; batch {spike['batch']} is kept in "
            f"{directory.path / 'replay' / name}.npz{CONSEQUENCES[action]}",
            file=sys.stderr,
        )

    return SpikeMonitor(
        cfg.on_spike,
        cfg.spike_threshold,
        cfg.max_skips,
        batch_number=lambda step: setup.batches.number(step - 1),
        report=report,
    )


def rewind(
    loop: TrainLoop, setup: TrainingSetup, directory: RunDirectory
) -> tuple[TrainState, PyTree]:
    """Returns state and carry of the newest checkpoint, where a spike takes a run back.

    The record of the loop continues from there; the log loses what came after.
    """
    (record,) = loop.records
    state = setup.partitioner.init(setup.make_state)
    checkpoints = setup.open_checkpoints(directory)
    state, carry, progress = train.resume_or_begin(
        setup, checkpoints, state, setup.make_carry()
    )
    progress.skips = record.progress.skips
    setup.batches.skip(progress.skipped_batches)
    step = int(state.step)
    loop.records[0] = setup.open_record(directory, progress, checkpoints, step=step)
    loop.records[0].writers[-1:] = record.writers[-1:]  # the same console
    return state, carry
