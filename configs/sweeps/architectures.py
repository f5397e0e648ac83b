"""The three architectures with as many parameters, learning rates and seeds each.

    python sweep.py --config=configs/cldr.py \
        --space=configs/sweeps/architectures.py --workdir=runs/architectures

The sizes are those of `python -m analysis.budget --config=configs/cldr.py`, whose
--output makes a space of any config, also of equal FLOPs or equal time; `make compare`
does all of it. The key "model" is what follows the colon of --config in a single run.
"""

from sweeps.search_space import Space, grid, listed, product, seeds

EQUAL = [  # 1,055,208 parameters of the transformer, the others within 0.3%
    {"model": "transformer", "model.width": 128, "model.feed_forward": 512},
    {
        "model": "rnn",
        "model.width": 178,
        "model.embedding_width": 142,
        "model.attention_width": 142,
    },
    {"model": "transformer_xl", "model.width": 124, "model.feed_forward": 496},
]


def get_space() -> Space:
    """3 x 3 x 2 trials; the seed changes fastest."""
    rates = grid({"optim.lr": [1e-3, 2e-3, 4e-3]})
    return Space(product(listed(EQUAL), rates, seeds(2)))
