"""Grid search over the learning rate, from 3e-4 to 1e-2 in factors of about 2.

    python sweep.py --config=configs/cldr.py:rnn \
        --space=configs/sweeps/learning_rate.py --workdir=runs/lr

Tune it first, since the best values of other hyper-parameters depend on it.
"""

from sweeps.search_space import Space, grid


def get_space() -> Space:
    """Returns 6 trials, one a learning rate."""
    return Space(grid({"optim.lr": [3e-4, 6e-4, 1.2e-3, 2.5e-3, 5e-3, 1e-2]}))
