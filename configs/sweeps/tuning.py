"""Search spaces of the three architectures, for comparisons at equal budgets.

    python -m analysis.compare --config=configs/cldr.py \
        --space=configs/sweeps/tuning.py --workdir=runs/compare --trials=16

Each model is tuned in a space of its own; one of them alone is a sweep:

    python sweep.py --config=configs/cldr.py:transformer \
        --space=configs/sweeps/tuning.py --workdir=runs/tuning

Only numbers vary that trials of one population may differ in. Learning rates span a
factor of 30 around those of the configs; dropout goes up to that of the recipes.
"""

from sweeps.search_space import Space, integers, log_uniform, random, uniform

SHARED = {"optim.warmup": integers(10, 300, log=True)}
RANGES = {
    # Adam at 1e-3 to 3e-3; recipes of words and labels have a dropout of 0.4 to 0.5.
    "rnn": {
        "optim.lr": log_uniform(3e-4, 1e-2),
        "model.dropout": uniform(0.0, 0.5),
    },
    # Vaswani et al. (2017): 7e-4 and dropout of 0.1 to 0.3; small models up to 2e-3.
    "transformer": {
        "optim.lr": log_uniform(1e-4, 5e-3),
        "model.dropout": uniform(0.0, 0.4),
    },
    # Dai et al. (2019): 2.5e-4 and dropout of 0.1 to 0.2; small models up to 1.5e-3.
    "transformer_xl": {
        "optim.lr": log_uniform(1e-4, 5e-3),
        "model.dropout": uniform(0.0, 0.4),
    },
}


def get_space(model: str = "transformer") -> Space:
    """Returns 16 random trials of a model, unless --trials gives another number.

    Args:
      model: what follows the colon of --config, one of RANGES or a variant of it.
    """
    names = sorted(RANGES, key=len, reverse=True)  # transformer_xl before transformer
    name = next((name for name in names if model.startswith(name)), None)
    if name is None:
        raise ValueError(f"no ranges for {model!r}; there are {', '.join(RANGES)}")
    return Space(random({**RANGES[name], **SHARED}), trials=16)
