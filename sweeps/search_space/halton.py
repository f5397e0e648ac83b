"""Halton's sequence with permuted digits: points that fill a cube evenly.

Halton (1960); random digit permutations as in Owen (2017, "A randomized Halton
algorithm in R"), without which high dimensions are correlated.
"""

import functools

import numpy as np

DIGITS = 32  # in base 2 as many as a share needs; more in larger bases do no harm


def halton_point(number: int, dimensions: int, seed: int) -> list[float]:
    """Point `number` of the sequence, in [0, 1): it depends on its arguments alone."""
    return [_radical_inverse(number, base, seed) for base in first_primes(dimensions)]


def _radical_inverse(number: int, base: int, seed: int) -> float:
    """The digits of a number, permuted and mirrored at the point."""
    share, place = 0.0, 1.0
    for permutation in _permutations(base, seed):
        number, digit = divmod(number, base)
        place /= base
        share += place * permutation[digit]
    return min(share, 1 - 2**-53)


@functools.cache
def _permutations(base: int, seed: int) -> list[list[int]]:
    """One of the digits of a base for each place, as many as a double can tell."""
    random = np.random.default_rng([seed, base])
    places = max(int(DIGITS / np.log2(base)), 8)
    return [random.permutation(base).tolist() for _ in range(places)]


def first_primes(count: int) -> list[int]:
    """2, 3, 5, ..."""
    primes: list[int] = []
    candidate = 2
    while len(primes) < count:
        if all(candidate % prime for prime in primes):
            primes.append(candidate)
        candidate += 1
    return primes
