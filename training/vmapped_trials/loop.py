"""The training loop of several trials that share one compiled step.

Each trial logs, is validated, saved and ended as in a run of its own.
"""

import dataclasses

import numpy as np

from training.loop import TrainLoop
from training.vmapped_trials.partitioner import VmappedPartitioner
from training.vmapped_trials.step import (
    needs_validation_loss,
    trial_mask,
    update_trials_on_validation,
)


@dataclasses.dataclass(kw_only=True)
class VmappedTrainLoop(TrainLoop):
    """Training of K trials, with leaves [K, ...] of state and carry.

    Attributes:
      step: compiled, (active, state, carry, batch) -> (state, carry, metrics).
      checkpoint_state: returns the content of one trial's checkpoint.
    """

    partitioner: VmappedPartitioner

    def __post_init__(self):
        super().__post_init__()
        self._masked, self._mask = None, None
        self._on_validation = self.partitioner.map(update_trials_on_validation)

    def _put_mask(self, trials):
        return self.partitioner.put(trial_mask(trials, len(self.records)))

    def _call_step(self, step, state, carry, batch):
        if self._masked != self.active:
            self._masked, self._mask = self.active, self._put_mask(self.active)
        return super()._call_step(step, self._mask, state, carry, batch)

    def _trial(self, tree, k):
        return self.partitioner.trial(tree, k)

    def _trial_metrics(self, metrics, k):
        return {
            name: (value[k], weight[k]) for name, (value, weight) in metrics.items()
        }

    def _update_on_validation(self, opt_state, losses):
        if not needs_validation_loss(opt_state):
            return opt_state
        by_trial = np.zeros(len(self.records), np.float32)
        by_trial[list(losses)] = list(losses.values())
        validated = self._put_mask(list(losses))
        return self._on_validation(opt_state, self.partitioner.put(by_trial), validated)
