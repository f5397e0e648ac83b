"""What training had taken by each step, from what a run logged.

A line of the log tells tokens and FLOPs a second, and the seconds of training so far.
The counts are those rates times the seconds since the line before, summed; between
two lines they grow evenly.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

AXES = {  # what a learning curve may be drawn against: title, and of Spent
    "step": "steps",
    "tokens": "training tokens",
    "seconds": "seconds of training",
    "flops": "training FLOPs",
}


@dataclasses.dataclass(frozen=True)
class Spent:
    """Sums of a run by step, from 0 on.

    Attributes:
      flops: None where the log does not tell, as of devices of unknown speed.
    """

    step: tuple[float, ...]
    tokens: tuple[float, ...]
    seconds: tuple[float, ...]
    flops: tuple[float, ...] | None

    @classmethod
    def of(cls, lines: Sequence[dict]) -> "Spent | None":
        """Of the lines of the training split; None: there are none."""
        if not lines:
            return None
        seconds = np.asarray([0.0, *(line["seconds"] for line in lines)])
        laps = np.diff(seconds)

        def summed(name: str) -> tuple[float, ...]:
            rates = np.asarray([line[name] for line in lines], float)
            return (0.0, *np.cumsum(rates * laps).tolist())

        known = all(line.get("flops_per_second") is not None for line in lines)
        return cls(
            (0.0, *(float(line["step"]) for line in lines)),
            summed("tokens_per_second"),
            tuple(seconds.tolist()),
            summed("flops_per_second") if known else None,
        )

    def at(self, step: float, axis: str) -> float | None:
        """What had been spent by a step, of one of AXES; None: not known."""
        if axis == "step":
            return step
        values = getattr(self, axis)
        if values is None or step > self.step[-1]:
            return None
        return float(np.interp(step, self.step, values))
