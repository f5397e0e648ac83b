"""Bayesian optimisation by TPE with early stopping of bad trials.

    python sweep.py --config=configs/multi30k.py:transformer \
        --config.epochs=0 --config.steps=10_000 \
        --space=configs/sweeps/tpe.py --workdir=runs/tpe --trials=40

The tree-structured Parzen estimator (Bergstra et al. 2011) with Hyperband (Li et al.
2018), combined as in Falkner et al. (2018), after one trial with the config's own
values. The points depend on which trials have ended, thus on how many run at once.
"""

from sweeps.search_space import (
    Space,
    chained,
    hyperband,
    listed,
    log_uniform,
    tpe,
    uniform,
)


def get_space() -> Space:
    """Returns 20 trials, unless --trials gives another number."""
    ranges = {
        "optim.lr": log_uniform(1e-4, 1e-2),
        "model.dropout": uniform(0.0, 0.4),
        "label_smoothing": uniform(0.0, 0.2),
    }
    return Space(
        chained(listed([{}]), tpe(ranges)),
        trials=20,
        metric="loss",
        pruning=hyperband(),
    )
