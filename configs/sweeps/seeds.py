"""The same experiment five times: how much of a difference is chance?

    python sweep.py --config=configs/cldr.py:rnn \
        --space=configs/sweeps/seeds.py --workdir=runs/seeds

`seed` is of parameters and dropout; the order of sentences is the same for all.
"""

from sweeps.search_space import Space, seeds


def get_space() -> Space:
    """5 trials."""
    return Space(seeds(5))
