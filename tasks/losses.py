"""What every task minimises: a negative log likelihood and a model's own losses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float, Num, PyTree

WeightedMetrics = dict[str, tuple[jax.Array, jax.Array]]


def likelihood_loss(
    model: nn.Module,
    variables: PyTree,
    inputs: tuple,
    batch: dict,
    rng: jax.Array | None,
    *,
    smoothing: float,
    z_loss: float = 0.0,
    train: bool,
) -> tuple[WeightedMetrics, PyTree]:
    """Metrics as (sum, weight) and the next carry.

    `loss` is the negative log likelihood of the labels in nats, smoothed as is asked
    for, and nothing else.
    What a model sows in "losses" while it trains stands beside it under
    auxiliary/<name>, as does, under auxiliary/z_loss, z log^2 Z of each token
    (Chowdhery et al. 2022, section 5), which keeps the softmax's normaliser Z near 1.

    Args:
      inputs: what the model is called with.
      z_loss: z; 0: none.
    """

    def predict(model):
        hidden, after = model(*inputs, train=train)
        score = model.log_prob_and_log_z if z_loss else model.log_prob
        return score(hidden, batch["labels"], smoothing=smoothing), after

    rngs = {"dropout": rng} if train else {}
    call = nn.apply(predict, model, mutable=["losses"] if train else False)
    found = call(variables, rngs=rngs)
    (log_prob, after), kept = found if train else (found, {})
    log_prob, log_z = log_prob if z_loss else (log_prob, None)
    weights = batch["weights"]
    pairs = {"loss": (-(log_prob * weights).sum(), weights.sum())}
    if z_loss:
        total = z_loss * (jnp.square(log_z) * weights).sum()
        pairs["auxiliary/z_loss"] = (total, weights.sum())
    return pairs | auxiliary_losses(kept.get("losses", {}), weights), after


def token_losses(
    model: nn.Module, variables: PyTree, inputs: tuple, batch: dict
) -> tuple[Float[Array, "B T"], PyTree]:
    """Negative log likelihood of each label in nats, 0 for padding; the next carry."""

    def predict(model):
        hidden, after = model(*inputs, train=False)
        return model.log_prob(hidden, batch["labels"]), after

    log_prob, after = nn.apply(predict, model)(variables)
    # Not a product, for where nothing counts there may be anything.
    return jnp.where(batch["weights"] > 0, -log_prob, 0.0), after


def auxiliary_losses(sown: PyTree, weights: Num[Array, "B T"]) -> WeightedMetrics:
    """The losses a model sowed, each a (sum, weight) a row, [B] and [B].

    Rows in which nothing is weighed are padding and do not count.
    """
    there = weights.any(axis=1)
    pairs: WeightedMetrics = {}
    for path, losses in flatten_dict(sown).items():
        name = f"auxiliary/{path[-1]}"
        for parts in losses:
            total, weight = (jnp.where(there, part, 0).sum() for part in parts)
            before = pairs.get(name, (0, 0))
            pairs[name] = (before[0] + total, before[1] + weight)
    return pairs
