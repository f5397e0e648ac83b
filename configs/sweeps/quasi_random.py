"""Quasi-random search with early stopping of bad trials.

    python sweep.py --config=configs/multi30k.py:transformer \
        --space=configs/sweeps/quasi_random.py --workdir=runs/quasi

A scrambled Halton sequence covers the space more evenly than random.py. ASHA (Li et al.
2020) compares losses, since BLEU is not informative in the first steps.
"""

from sweeps.search_space import Space, asha, log_uniform, quasi_random, uniform


def get_space() -> Space:
    """Returns 20 trials, unless --trials gives another number."""
    ranges = {
        "optim.lr": log_uniform(1e-4, 1e-2),
        "model.dropout": uniform(0.0, 0.4),
        "label_smoothing": uniform(0.0, 0.2),
    }
    return Space(quasi_random(ranges), trials=20, pruning=asha(metric="loss"))
