"""The learning rate alone: every factor of about 2 from 3e-4 to 1e-2.

    python sweep.py --config=configs/cldr.py:rnn \
        --space=configs/sweeps/learning_rate.py --workdir=runs/lr

The first thing to tune, and the one that others depend on.
"""

from sweeps.search_space import Space, grid


def get_space() -> Space:
    """6 trials."""
    return Space(grid({"optim.lr": [3e-4, 6e-4, 1.2e-3, 2.5e-3, 5e-3, 1e-2]}))
