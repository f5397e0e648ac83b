"""What a training step takes on a slice of TPUs, by arithmetic and nothing else.

    compute       FLOPs of a chip / its peak
    update        bytes that the optimiser reads and writes / memory's bandwidth
    collectives   bytes that a chip sends / what its links send

Taken one after another these are a step in which nothing overlaps; the longer of
compute + update and collectives is one in which all of it does. Real steps lie above
both, because no program multiplies at the peak all the time: it is an upper bound of
speed, for choosing a mesh and not for promising a rate.
"""

import dataclasses
import math

NUMBER = 4  # bytes of a parameter, a gradient and a moment: float32
ADAM = 7  # numbers a parameter: reads it, its gradient and two moments; writes three


@dataclasses.dataclass(frozen=True)
class Chip:
    """Figures of Google Cloud's pages of each version, a chip.

    Attributes:
      flops: a second, bfloat16; float32 is multiplied as bfloat16 by default.
      memory: bytes.
      bandwidth: bytes a second, of that memory.
      links: bytes a second that all links send, half of what is printed for both
        directions. A slice whose torus has open ends has less.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    links: float


CHIPS = (
    Chip("v5e", flops=197e12, memory=16e9, bandwidth=819e9, links=200e9),
    Chip("v6e", flops=918e12, memory=32e9, bandwidth=1640e9, links=400e9),
)
# How often (n - 1) / n of the parameters' bytes are sent in a ring of n: gradients are
# added up and handed round; or, where each chip keeps a part, parameters are gathered
# for both passes and gradients added up in parts.
ROUNDS = {"data": 2, "fsdp": 3}


def step_on(chip: Chip, count: int, mode: str, work: dict) -> dict:
    """Seconds of a step and what becomes of them, on so many chips.

    Args:
      work: `flops` of a step, its `rows`, `tokens` and the model's `parameters`.
    """
    rows = math.ceil(work["rows"] / count)  # the fullest chip's
    flops = work["flops"] * rows / work["rows"]
    held = work["parameters"] / (count if mode == "fsdp" else 1)
    sent = ROUNDS[mode] * (count - 1) / count * work["parameters"] * NUMBER
    compute, update = flops / chip.flops, ADAM * held * NUMBER / chip.bandwidth
    collective = sent / chip.links
    seconds = {
        "nothing overlapped": compute + update + collective,
        "all overlapped": max(compute + update, collective),
    }
    whole_update = ADAM * work["parameters"] * NUMBER / chip.bandwidth
    alone = work["flops"] / chip.flops + whole_update  # on one chip, if it fitted
    return {
        "rows_per_chip": rows,
        "flops_per_chip": flops,
        "bytes_sent_per_chip": sent,
        "seconds": {
            "compute": compute,
            "update": update,
            "collectives": collective,
            **seconds,
        },
        "tokens_per_second": {k: work["tokens"] / s for k, s in seconds.items()},
        "efficiency": {k: alone / (count * s) for k, s in seconds.items()},
    }


def predictions(config: str, work: dict, counts: tuple[int, ...]) -> list[dict]:
    """A line for every chip, number of chips and mode, from 1 chip's work."""
    return [
        {"predicted": config, "chip": dataclasses.asdict(chip), "chips": count}
        | {"mode": mode, "work": work}
        | step_on(chip, count, mode, work)
        for chip in CHIPS
        for count in counts
        for mode in ROUNDS
    ]
