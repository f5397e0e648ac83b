"""Bytes that a compiled program sends between devices, read from its HLO text.

A collective operation counts the bytes of its result on one device, times the number of
iterations of its loop. On a ring of n devices each device sends (Thakur et al. 2005):

    all-reduce          2 (n - 1) / n  of the result
    all-gather            (n - 1) / n  of the result
    reduce-scatter        (n - 1)      of the result, which is a shard
    all-to-all            (n - 1) / n  of the result
    collective-permute    all of it
"""

import dataclasses
import math
import re
from collections import Counter

SENT = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}
KINDS = "|".join(SENT)
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
OPERATION = re.compile(rf" = (\(.*?\)|\S+) ({KINDS})(-start)?\(")
ARRAY = re.compile(r"\b(?:pred|[a-z]+(\d+))\w*\[([\d,]*)\]")  # bits, none: a byte
CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
GROUP = re.compile(r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\]<=)")


@dataclasses.dataclass
class Collectives:
    """Collective operations of one device, by kind.

    Attributes:
      operations: number of operations, every loop iteration counted.
      results: bytes of their results.
      sent: bytes sent on a ring.
      unknown_loops: loops with collectives whose number of iterations is unknown; they
        are counted once.
    """

    operations: Counter = dataclasses.field(default_factory=Counter)
    results: Counter = dataclasses.field(default_factory=Counter)
    sent: Counter = dataclasses.field(default_factory=Counter)
    unknown_loops: int = 0

    @property
    def bytes_sent(self) -> float:
        """Bytes sent by all kinds together."""
        return sum(self.sent.values())


def collectives(text: str, devices: int) -> Collectives:
    """Counts the collectives of a compiled program.

    Args:
      text: optimised HLO.
      devices: number of devices; a group without a list has all of them.
    """
    bodies, entry = computations(text)
    found = Collectives()

    def add(name: str, times: int) -> None:
        """Adds the collectives of a computation that runs `times` times."""
        for line in bodies.get(name, ()):
            if operation := OPERATION.search(line):
                shape, kind, start = operation.groups()
                size = bytes_of(shape, is_async=bool(start)) * times
                found.operations[kind] += times
                found.results[kind] += size
                found.sent[kind] += size * SENT[kind](group_size(line, devices))
                continue
            called = CALLED.findall(line)
            for branches in BRANCHES.findall(line):
                called += [branch.strip().lstrip("%") for branch in branches.split(",")]
            turns = TURNS.search(line)
            before = sum(found.operations.values())
            for name in called:
                add(name, times * (int(turns[1]) if turns else 1))
            has_collectives = sum(found.operations.values()) > before
            found.unknown_loops += " while(" in line and not turns and has_collectives

    add(entry, 1)
    return found


def computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Returns the lines of every computation and the name of the entry computation."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if header := COMPUTATION.match(line):
            lines = bodies[header[2]] = []
            entry = header[2] if header[1] else entry
        else:
            lines.append(line)
    return bodies, entry


def bytes_of(shape: str, *, is_async: bool = False) -> int:
    """Returns the bytes of an array or a tuple of arrays in HLO syntax.

    Args:
      is_async: whether the first half of the tuple holds the operands.
    """
    arrays = ARRAY.findall(shape)
    if is_async and len(arrays) > 1:
        arrays = arrays[len(arrays) // 2 :]
    return sum(
        math.prod(map(int, filter(None, sides.split(",")))) * int(bits or 8) // 8
        for bits, sides in arrays
    )


def group_size(line: str, devices: int) -> int:
    """Returns the number of participating devices."""
    group = GROUP.search(line)
    if not group:
        return devices
    return int(group[2]) if group[2] else max(1, len(group[1].split(",")))
