"""Trees that optimisers move, and how far, for their tests."""

import functools

import jax
import numpy as np
import optax

from configs import base
from training.optim.optimizers import make_optimizer
from training.optim.param_groups import named_leaves

SHAPES = {
    "embedding": {"table": (5, 4)},
    "attention": {
        "query": {"kernel": (4, 2, 3), "bias": (2, 3)},
        "output": {"kernel": (2, 3, 4), "bias": (4,)},
    },
    "score": {"kernel": (7, 1)},
    "cell": {"recurrent": (4, 12)},
}


LR, DECAY, B1, B2, EPS, RHO, MU = 0.1, 0.3, 0.8, 0.95, 1e-3, 0.9, 0.7


UPDATES = 3


def optim(**changes):
    cfg = base.get_config().optim
    cfg.update({"schedule": "constant"} | changes)
    return cfg


def random_tree(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.normal(size=shape).astype(np.float32),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


PARAMS = random_tree(0)


GRADS = [random_tree(1 + k) for k in range(UPDATES)]


def by_name(tree):
    return named_leaves(tree)


@functools.cache
def updates_of(name, **changes):
    """The parameters after each of the GRADS, at rates that fall."""
    numbers = {"b1": B1, "b2": B2, "eps": EPS, "rho": RHO, "lr": LR}
    numbers |= {"momentum": MU, "muon_momentum": MU, "weight_decay": DECAY}
    cfg = optim(name=name, clip_norm=0.0, **numbers | {"schedule": "linear"} | changes)
    optimizer, _ = make_optimizer(cfg, 10)
    update = jax.jit(optimizer.update)
    params, state, found = PARAMS, optimizer.init(PARAMS), []
    for k, grads in enumerate(GRADS):
        updates, state = update(grads, state, params, step=k)
        params = optax.apply_updates(params, updates)
        found.append(params)
    return found, state
