"""One experiment with five seeds, to measure the variation between seeds.

    python sweep.py --config=configs/cldr.py:rnn \
        --space=configs/sweeps/seeds.py --workdir=runs/seeds

`seed` sets parameters and dropout; all trials read the data in the same order.
"""

from sweeps.search_space import Space, seeds


def get_space() -> Space:
    """Returns 5 trials, one a seed."""
    return Space(seeds(5))
