"""Random search (Bergstra and Bengio 2012), better than a grid if few keys matter.

    python sweep.py --config=configs/multi30k.py:transformer \
        --space=configs/sweeps/random.py --workdir=runs/random --trials=40

Trial n is the same in every sweep, so that a larger --trials extends a sweep.
"""

from sweeps.search_space import (
    Space,
    choice,
    integers,
    log_uniform,
    random,
    uniform,
)


def get_space() -> Space:
    """Returns 20 trials, unless --trials gives another number."""
    ranges = {
        "optim.lr": log_uniform(1e-4, 1e-2),
        "optim.warmup": integers(10, 1000, log=True),
        "optim.schedule": choice("cosine", "linear", "rsqrt"),
        "model.dropout": uniform(0.0, 0.4),
        "label_smoothing": uniform(0.0, 0.2),
    }
    return Space(random(ranges), trials=20)
