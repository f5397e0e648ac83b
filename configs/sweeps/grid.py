"""Grid search over label smoothing, dropout and learning rate.

    python sweep.py --config=configs/multi30k.py:transformer \
        --space=configs/sweeps/grid.py --workdir=runs/grid
"""

from sweeps.search_space import Space, grid


def get_space() -> Space:
    """Returns 2 x 3 x 2 trials; the last key changes fastest."""
    return Space(
        grid(
            {
                "label_smoothing": [0.0, 0.1],
                "model.dropout": [0.1, 0.2, 0.3],
                "optim.lr": [5e-4, 1e-3],
            }
        )
    )
