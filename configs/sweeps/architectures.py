"""The three architectures, each with the same learning rates and seeds.

    python sweep.py --config=configs/cldr.py \
        --space=configs/sweeps/architectures.py --workdir=runs/architectures

The key "model" is what follows the colon of --config in a single run.
"""

from sweeps.spaces import Space, grid, product, seeds

MODELS = ["rnn", "transformer", "transformer_xl"]


def get_space() -> Space:
    """3 x 3 x 2 trials; the seed changes fastest."""
    rates = grid({"optim.lr": [1e-3, 2e-3, 4e-3]})
    return Space(product(grid({"model": MODELS}), rates, seeds(2)))
