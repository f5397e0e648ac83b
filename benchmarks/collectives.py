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
ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\w*\[([\d,]*)\]")
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

    operations: dict[str, int]
    results: dict[str, int]
    sent: dict[str, float]
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
    found = Collectives(
        dict.fromkeys(SENT, 0), dict.fromkeys(SENT, 0), dict.fromkeys(SENT, 0.0)
    )
    _add(found, bodies, entry, 1, devices)
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


def _add(found: Collectives, bodies, name: str, times: int, devices: int) -> None:
    """Adds the collectives of a computation that runs `times` times."""
    for line in bodies.get(name, ()):
        if operation := OPERATION.search(line):
            shape, kind, _ = operation.groups()
            size = bytes_of(shape, is_async=bool(operation[3])) * times
            found.operations[kind] += times
            found.results[kind] += size
            found.sent[kind] += size * SENT[kind](group_size(line, devices))
            continue
        inner = CALLED.findall(line)
        for listed in BRANCHES.findall(line):
            inner += [one.strip().lstrip("%") for one in listed.split(",")]
        turns = TURNS.search(line)
        loops = " while(" in line
        before = sum(found.operations.values())
        for one in inner:
            _add(found, bodies, one, times * (int(turns[1]) if turns else 1), devices)
        if loops and not turns and sum(found.operations.values()) > before:
            found.unknown_loops += 1


def bytes_of(shape: str, *, is_async: bool = False) -> int:
    """Returns the bytes of an array or a tuple of arrays in HLO syntax.

    Args:
      shape: the shape as HLO text.
      is_async: whether the first half of the tuple holds the operands.
    """
    arrays = ARRAY.findall(shape)
    if is_async and len(arrays) > 1:
        arrays = arrays[len(arrays) // 2 :]
    return sum(
        math.prod(map(int, filter(None, sides.split(",")))) * bits_of(kind) // 8
        for kind, sides in arrays
    )


def bits_of(kind: str) -> int:
    """Returns the bits of a dtype, such as 16 for bf16; a boolean takes a byte."""
    digits = re.search(r"\d+", kind)
    return int(digits[0]) if digits else 8


def group_size(line: str, devices: int) -> int:
    """Returns the number of participating devices."""
    group = GROUP.search(line)
    if not group:
        return devices
    return int(group[2]) if group[2] else max(1, len(group[1].split(",")))
