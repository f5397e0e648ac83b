"""Profiler traces of selected steps, for TensorBoard and Perfetto.

<workdir>/profile/plugins/profile/<time>/    for TensorBoard's profile plugin, and
perfetto_trace.json.gz in it                 for ui.perfetto.dev
"""

import re
import sys
from pathlib import Path

import jax

from training.step import Step
from utils.errors import UserError
from utils.paths import is_remote


def parse_steps(text: str) -> tuple[int, int]:
    """Parses "FROM:TO"; raises UserError for anything else."""
    found = re.fullmatch("([0-9]{1,9}):([0-9]{1,9})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(
            f"--profile={text} must be FROM:TO, the first and last step, such as 11:13"
        )
    return int(found[1]), int(found[2])


class Profile:
    """Context manager that traces selected steps.

    Attributes:
      steps: first and last step to trace, counted from 1.
      folder: directory of the trace.
    """

    def __init__(self, steps: tuple[int, int], folder: Path):
        """Raises UserError for a folder that is not on a local disk."""
        if is_remote(folder):
            raise UserError(f"--profile needs a local directory, not {folder}")
        self.steps, self.folder = steps, folder
        self._is_tracing = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *error) -> None:
        self._stop()

    def around(self, step: Step, done: int) -> Step:
        """Returns a compiled step, traced while its number is in `steps`.

        Args:
          done: number of steps completed so far.
        """

        def traced(state, carry, batch):
            nonlocal done
            done += 1
            if done == self.steps[0]:
                jax.block_until_ready(state)
                jax.profiler.start_trace(self.folder, create_perfetto_trace=True)
                self._is_tracing = True
            with jax.profiler.StepTraceAnnotation("train", step_num=done):
                found = step(state, carry, batch)
            if done == self.steps[1]:
                jax.block_until_ready(found)
                self._stop()
            return found

        return traced

    def _stop(self) -> None:
        if self._is_tracing:
            self._is_tracing = False
            jax.profiler.stop_trace()
            print(f"Trace written to {self.folder}", file=sys.stderr)


def open_profile(steps: str, folder: Path) -> Profile:
    """Returns the profile of the steps "FROM:TO"; UserError if they are no steps."""
    return Profile(parse_steps(steps), folder)
