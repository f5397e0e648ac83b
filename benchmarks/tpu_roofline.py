"""Roofline estimate of a training step on a TPU slice.

    compute       FLOPs per chip / peak FLOP/s
    update        bytes that the optimiser reads and writes / memory bandwidth
    collectives   bytes sent per chip / bandwidth of its links

Their sum is a step without overlap; the larger of compute + update and collectives is a
step with full overlap. Real steps are slower than both, since no program multiplies at
peak all the time: use it to choose a mesh, not to predict a rate.
"""

import dataclasses
import math

NUMBER = 4  # bytes of a parameter, a gradient and a moment: float32
ADAM = 7  # values per parameter: reads it, its gradient, two moments; writes three


@dataclasses.dataclass(frozen=True)
class Chip:
    """Figures of one TPU chip, from Google Cloud's documentation."""

    name: str
    flops: float  # bfloat16 FLOP/s; float32 is multiplied as bfloat16 by default
    memory: float  # bytes of HBM
    bandwidth: float  # bytes per second of HBM
    links: float  # bytes per second that all links send in one direction


CHIPS = (
    Chip("v5e", flops=197e12, memory=16e9, bandwidth=819e9, links=200e9),
    Chip("v6e", flops=918e12, memory=32e9, bandwidth=1640e9, links=400e9),
)
# Multiples of (n - 1) / n of the parameters' bytes sent on a ring of n: all-reduce of
# gradients for "data"; two all-gathers and a reduce-scatter for "fsdp".
ROUNDS = {"data": 2, "fsdp": 3}


def step_on(chip: Chip, count: int, mode: str, work: dict) -> dict:
    """Estimates a step on `count` chips.

    Args:
      mode: "data" or "fsdp".
      work: `flops` of a step, its `rows`, `tokens` and `parameters`.
    """
    rows = math.ceil(work["rows"] / count)  # of the chip with most rows
    flops = work["flops"] * rows / work["rows"]
    held = work["parameters"] / (count if mode == "fsdp" else 1)
    sent = ROUNDS[mode] * (count - 1) / count * work["parameters"] * NUMBER
    parts = {
        "compute": flops / chip.flops,
        "update": ADAM * held * NUMBER / chip.bandwidth,
        "collectives": sent / chip.links,
    }
    compute, update, collective = parts.values()
    seconds = {
        "nothing overlapped": compute + update + collective,
        "all overlapped": max(compute + update, collective),
    }
    whole_update = ADAM * work["parameters"] * NUMBER / chip.bandwidth
    alone = work["flops"] / chip.flops + whole_update  # on one chip, if it fits
    return {
        "rows_per_chip": rows,
        "flops_per_chip": flops,
        "bytes_sent_per_chip": sent,
        "seconds": parts | seconds,
        "tokens_per_second": {k: work["tokens"] / s for k, s in seconds.items()},
        "efficiency": {k: alone / (count * s) for k, s in seconds.items()},
    }


def predictions(config: str, work: dict, counts: tuple[int, ...]) -> list[dict]:
    """Returns a line for every chip, number of chips and mode."""
    return [
        {"predicted": config, "chip": dataclasses.asdict(chip), "chips": count}
        | {"mode": mode, "work": work}
        | step_on(chip, count, mode, work)
        for chip in CHIPS
        for count in counts
        for mode in ROUNDS
    ]
