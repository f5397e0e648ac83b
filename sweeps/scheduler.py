"""Selection of the next trials of a worker: the first open ones in order.

Trials that train as one program (a population) must share all settings but those that
training/vmapped_trials/step.py can vary.
"""

import dataclasses
import json
import threading
from collections.abc import Callable, Sequence

from sweeps import trial_state
from sweeps.search_space import Point
from sweeps.storage import Storage, run_name
from sweeps.study import CPU, Claim, Study
from sweeps.trial_configs import TrialConfigs, check_population
from training.checksums import CHECKSUMS
from training.run_dir import RunDirectory
from utils.errors import UserError


def claim_next(
    study: Study,
    fits: Callable[[int, Point], bool] | None = None,
    devices: dict = CPU,
) -> Claim | None:
    """Claims the first open trial that `fits` accepts; None if there is none."""
    for trial in study.trials():
        if trial.state == trial_state.OPEN and (
            claim := study.claim(trial, fits, devices)
        ):
            return claim
    return None


@dataclasses.dataclass(frozen=True)
class Scheduler:
    """Selects the trials that a worker starts together.

    Attributes:
      stopped: event after which no trial is to start.
      population: number of trials that a worker trains as one program.
    """

    study: Study
    configs: TrialConfigs
    stopped: threading.Event
    population: int

    def next_trials(self, devices: dict) -> list[Claim]:
        """Claims the next trials of a worker; empty if there are none.

        A trial whose config is invalid, or whose directory has a run of another
        config, fails here, so that it does not end the others.
        """
        claims: list[Claim] = []
        while len(claims) < self.population and not self.stopped.is_set():
            fits = self._fits(claims) if claims else None
            claim = claim_next(self.study, fits, devices)
            if claim is None:
                break
            try:
                self._check_config(claim)
            except UserError as error:
                self.study.finish(claim, trial_state.FAILED, error=str(error))
            else:
                claims.append(claim)
        return claims

    def _check_config(self, claim: Claim) -> None:
        cfg = self.configs.config(claim.point)  # the model may lack a key of the space
        run = RunDirectory(self.study.storage.path / run_name(claim.trial))
        if run.exists:
            run.check_config(json.loads(cfg.to_json_best_effort()))
        if self.population > 1:
            from experiment import validate  # takes seconds to import

            validate.validate_config(cfg, has_devices=False)
            check_population(cfg)

    def _fits(self, claims: Sequence[Claim]) -> Callable[[int, Point], bool]:
        """Returns whether a trial can train together with the given claims."""
        storage, wanted = self.study.storage, common_part(claims[0].point)
        steps = [checkpoint_steps(storage, claim.trial) for claim in claims]

        def fits(trial: int, point: Point) -> bool:
            return common_part(point) == wanted and can_resume_together(
                *steps, checkpoint_steps(storage, trial)
            )

        return fits


def checkpoint_steps(storage: Storage, trial: int) -> set[int]:
    """Returns the steps of a trial's checkpoints that are complete."""
    folder = f"{run_name(trial)}/checkpoints"
    names = storage.list(folder)
    steps = [name.split("/")[3] for name in names if name.endswith(f"/{CHECKSUMS}")]
    return {int(step) for step in steps if step.isdigit()}


def can_resume_together(*steps: set[int]) -> bool:
    """Whether trials with checkpoints of these steps may resume together.

    All have a step in common; or one was killed before its first checkpoint was
    complete, so that the others lose no more than their own first.
    """
    if set.intersection(*steps):
        return True
    return not all(steps) and len(set.union(*steps)) < 2


def common_part(point: Point) -> dict:
    """Returns the settings of a point that the trials of a population must share.

    As JSON, as a storage returns points: tuples are lists there.
    """
    from training.vmapped_trials.step import shared_part  # takes seconds to import

    return json.loads(json.dumps(shared_part(point)))
