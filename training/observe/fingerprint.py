"""Fingerprints of a run: digests of every array of its batch, carry and state.

A digest tells whether two arrays are equal to the bit, and from its projections about
how far apart they are. It depends on no device and no sharding, so that runs of two
machines can be compared by their fingerprints alone (analysis/diverge/).

fingerprints.jsonl   a line with config, environment and names of arrays for each start
                     of the run, and a line of digests for each fingerprint
"""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt32

from training.metric_writers import MetricsFile, parse_metrics_line
from utils.errors import UserError

FILE = "fingerprints.jsonl"
NUM_PROJECTIONS = 8
# Smallest relative distance that projections in float32 resolve.
RESOLUTION = 1e-6
HEADER, ROW = "header", "fingerprint"  # splits of the lines
ORDER = ("batch", "carry", "params", "opt_state", "ema")  # of computation


@dataclasses.dataclass(frozen=True)
class Digest:
    """Digest of one array.

    Attributes:
      checksums: wrapping sums of all elements as integers of 32 bits, each times an
        odd weight that depends on its position; in the second one with their bits in
        reverse order. Equal arrays have equal checksums.
      norm: L2 norm.
      projections: sums of all elements with random signs, in groups by the position
        modulo NUM_PROJECTIONS on the last axis (a count sketch, Charikar et al. 2002).
    """

    checksums: tuple[int, int]
    norm: float
    projections: tuple[float, ...]


def equals(first: Digest, second: Digest) -> bool:
    """Whether two arrays are equal to the bit, but for a chance of 2^-64."""
    return first.checksums == second.checksums


def relative_distance(first: Digest, second: Digest) -> float:
    """Estimates ||a - b|| / max(||a||, ||b||); inf where one has values not finite.

    The squares of all projections of a - b add up to ||a - b||^2 in the mean, so that
    the estimate is right within a factor of 2 or so. Arrays that differ by less than
    RESOLUTION are reported at that distance.
    """
    if equals(first, second):
        return 0.0
    pairs = zip(first.projections, second.projections, strict=True)
    distance = math.sqrt(sum((a - b) ** 2 for a, b in pairs))
    norm = max(first.norm, second.norm)
    if not math.isfinite(distance) or not math.isfinite(norm):
        return math.inf
    return max(distance / norm, RESOLUTION) if norm else math.inf


def locate_flipped_bit(
    first: Digest, second: Digest, size: int
) -> tuple[int, int] | None:
    """Finds the only bit in which two arrays differ, from their digests.

    A flip of bit b of element i changes the first checksum by +-2^b times the weight
    of i, which is odd, so that b is its number of trailing zeros. The second checksum
    changes by +-2^(31 - b) times another weight of i.

    Args:
      size: number of elements of either array.

    Returns:
      The linear index i and b; None where another number of bits differs.
    """
    index = np.arange(size, dtype=np.uint32)
    changes = [
        (after - before) % 2**32
        for before, after in zip(first.checksums, second.checksums, strict=True)
    ]
    if not all(changes):
        return None
    bit = (changes[0] & -changes[0]).bit_length() - 1
    found = []
    for sign in (1, 2**32 - 1):
        factors = [np.uint32(sign * 2**k % 2**32) for k in (bit, 31 - bit)]
        wanted = [
            weight * factor == np.uint32(change)
            for weight, factor, change in zip(
                _weights(_hash(index)), factors, changes, strict=True
            )
        ]
        found += np.flatnonzero(wanted[0] & wanted[1]).tolist()
    found = sorted(set(found))
    return (found[0], bit) if len(found) == 1 else None


def _hash(index):
    """Returns a hash of 32 bits for each index (lowbias32 of C. Wellons)."""
    index = (index ^ (index >> 16)) * np.uint32(0x7FEB352D)
    index = (index ^ (index >> 15)) * np.uint32(0x846CA68B)
    return index ^ (index >> 16)


def _weights(hashes):
    """Returns the odd weights of both checksums."""
    other = (hashes ^ (hashes << 13)) * np.uint32(0x9E3779B1)
    return hashes | 1, (other ^ (other >> 15)) | 1


def _linear_index(shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :])
        position = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        index += position * np.uint32(stride % 2**32)
    return index


def _bits(array: Array) -> UInt32[Array, "..."]:
    if array.dtype == bool:
        return array.astype(jnp.uint32)
    width = 8 * array.dtype.itemsize
    bits = jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{width}"))
    return bits.astype(jnp.uint32)


def _reversed_bits(bits):
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F)):
        mask = np.uint32(mask)
        bits = ((bits >> shift) & mask) | ((bits & mask) << shift)
    bits = ((bits >> 8) & np.uint32(0x00FF00FF)) | ((bits & np.uint32(0x00FF00FF)) << 8)
    return (bits >> 16) | (bits << 16)


def digest_array(
    array: Array,
) -> tuple[UInt32[Array, "2"], Float[Array, "1+NUM_PROJECTIONS"]]:
    """Returns the checksums of an array; its norm and projections.

    Rows of zeros at its end change nothing: a batch that is padded for its devices
    has the digest of the batch. Elements have 32 bits at most.
    """
    hashes, bits = _hash(_linear_index(array.shape)), _bits(array)
    weights = _weights(hashes)
    checksums = [
        (values * weight).sum(dtype=jnp.uint32)
        for values, weight in zip((bits, _reversed_bits(bits)), weights, strict=True)
    ]
    values = array.astype(jnp.float32)
    largest = jnp.abs(values).max(initial=0)
    scale = jnp.where(largest > 0, largest, 1)  # squares may under- or overflow
    norm = scale * jnp.sqrt(jnp.square(values / scale).sum())
    signed = jnp.where(hashes >> 31, values, -values)
    sums = signed.sum(axis=tuple(range(array.ndim - 1))).reshape(-1)
    groups = jnp.pad(sums, (0, -len(sums) % NUM_PROJECTIONS))
    projections = groups.reshape(-1, NUM_PROJECTIONS).sum(0)
    return jnp.stack(checksums), jnp.stack([norm, *projections])


def digest_tree(
    tree: PyTree,
) -> tuple[UInt32[Array, "N 2"], Float[Array, "N 1+NUM_PROJECTIONS"]]:
    """Returns the digests of all N leaves, in the order of `named_arrays`."""
    digests = [digest_array(leaf) for leaf in named_arrays(tree).values()]
    checksums, values = zip(*digests, strict=True)
    return jnp.stack(checksums), jnp.stack(values)


def named_arrays(tree: PyTree) -> dict[str, Array]:
    """Returns all arrays by name, such as "params/encoder/layers_0/query/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves
    ]
    return dict(zip(names, (leaf for _, leaf in leaves), strict=True))


def in_order(names: Iterable[str]) -> list[str]:
    """Sorts names of arrays by the order of computation; unknown ones come last."""

    def rank(name):
        group = name.partition("/")[0]
        return ORDER.index(group) if group in ORDER else len(ORDER)

    return sorted(names, key=rank)


def digests_by_name(
    names: Iterable[str], checksums: np.ndarray, values: np.ndarray
) -> dict[str, Digest]:
    """Returns digests by name, from arrays of `digest_tree` on the host."""
    return {
        name: Digest(tuple(map(int, pair)), float(norm), tuple(map(float, rest)))
        for name, pair, (norm, *rest) in zip(names, checksums, values, strict=True)
    }


class FingerprintFile:
    """The file of fingerprints of a run, each step once.

    A fingerprint of step k, counted from 1, is one of its inputs: of the batch of step
    k and of carry and state after step k - 1.
    """

    def __init__(self, path: Path, step: int, header: dict):
        """Drops the fingerprints of steps after a step, from which training continues.

        Args:
          header: a JSON object that describes the run.
        """
        self._file = MetricsFile(path, {HEADER: step, ROW: step})
        self._header, self._first = header, step + 1
        self._has_header = False

    def write(
        self, step: int, shapes: dict[str, tuple], digests: tuple[Array, Array]
    ) -> None:
        """Adds the fingerprint of a step.

        Args:
          shapes: shape of each array, by name.
          digests: result of `digest_tree` for the arrays.
        """
        if not self._has_header:
            self._has_header = True
            header = {**self._header, "arrays": shapes}
            self._file.write(self._first, HEADER, header)
        checksums, values = map(np.asarray, digests)
        row = {
            "checksums": [f"{first:08x}{second:08x}" for first, second in checksums],
            "values": [[float(f"{x:.8g}") for x in row] for row in values],
        }
        self._file.write(step, ROW, row)


HEADER_KEYS = {"arrays", "config", "about"}


@dataclasses.dataclass(frozen=True)
class Fingerprints:
    """Content of a file of fingerprints.

    Attributes:
      header: that of the first start of the run.
      rows: what the file has for each step.
    """

    header: dict
    rows: dict[int, dict]

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of an array; for part of a batch, that of the first one."""
        return tuple(self.header["arrays"][name])

    def digests(self, step: int) -> dict[str, Digest]:
        """Returns the digests of the inputs of a step, in order of computation."""
        row = self.rows[step]
        checksums = [
            (int(text[:8], 16), int(text[8:], 16)) for text in row["checksums"]
        ]
        values = [
            [math.nan if value is None else value for value in values]
            for values in row["values"]
        ]
        digests = digests_by_name(self.header["arrays"], checksums, values)
        return {name: digests[name] for name in in_order(digests)}


def read_fingerprints(path: Path) -> Fingerprints:
    """Reads a file of fingerprints.

    Raises:
      UserError: it is another file, or has no fingerprint.
    """
    try:
        lines = path.read_text(encoding="utf8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    found = [row for row in map(parse_metrics_line, lines) if row]
    headers = [
        row for row in found if row["split"] == HEADER and row.keys() >= HEADER_KEYS
    ]
    count = len(headers[0]["arrays"]) if headers else 0
    rows = {
        row["step"]: row
        for row in found
        if row["split"] == ROW
        and count == len(row.get("checksums", ())) == len(row.get("values", ()))
    }
    if not headers or not rows:
        raise UserError(
            f"{path} has no fingerprints: name a run directory, or the file {FILE} of "
            "one that was trained with every.fingerprint"
        )
    return Fingerprints(headers[0], dict(sorted(rows.items())))
