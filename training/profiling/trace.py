"""A trace of some steps, which TensorBoard and Perfetto open.

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
    """FROM and TO of "FROM:TO". Raises UserError for anything else."""
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(
            f"--profile={text}: give the first and the last step, such as 11:13"
        )
    return int(found[1]), int(found[2])


class Profile:
    """Traces the steps it is asked for; to be used by `with`.

    Attributes:
      steps: the first and the last, counted from 1; None: no step.
      folder: where the trace goes.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: Path):
        """Raises UserError for a folder that is not of this machine."""
        if steps and is_remote(folder):
            raise UserError(f"--profile writes to a local disk, and {folder} is none")
        self.steps, self.folder = steps, folder
        self._runs = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *error) -> None:
        self._stop()

    def around(self, step: Step, done: int) -> Step:
        """The step, traced while its number is one of `steps`.

        Args:
          done: steps before the next.
        """
        if self.steps is None:
            return step

        def traced(state, carry, batch):
            nonlocal done
            done += 1
            if done == self.steps[0]:
                jax.block_until_ready(state)
                jax.profiler.start_trace(self.folder, create_perfetto_trace=True)
                self._runs = True
            with jax.profiler.StepTraceAnnotation("train", step_num=done):
                found = step(state, carry, batch)
            if done == self.steps[1]:
                jax.block_until_ready(found)
                self._stop()
            return found

        return traced

    def _stop(self) -> None:
        if self._runs:
            self._runs = False
            jax.profiler.stop_trace()
            print(f"the trace is in {self.folder}", file=sys.stderr)
