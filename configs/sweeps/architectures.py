"""Comparison of the three architectures at equal numbers of parameters.

    python sweep.py --config=configs/cldr.py \
        --space=configs/sweeps/architectures.py --workdir=runs/architectures

Each has the same learning rates and seeds. The sizes are printed by
`python -m analysis.compare --config=configs/cldr.py --dry_run`, which without --dry_run
tunes each architecture in a space of its own, also at equal FLOPs, time or tokens.
The key "model" is the text after the colon of --config.
"""

from sweeps.search_space import Space, grid, listed, product, seeds

EQUAL = [  # the transformer has 1,055,208 parameters, the others within 0.3%
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
    """Returns 3 x 3 x 2 trials; the seed changes fastest."""
    rates = grid({"optim.lr": [1e-3, 2e-3, 4e-3]})
    return Space(product(listed(EQUAL), rates, seeds(2)))
