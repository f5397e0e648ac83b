"""Training objectives: negative log likelihood, z-loss and auxiliary losses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float, Num, PyTree

WeightedMetrics = dict[str, tuple[jax.Array, jax.Array]]  # name: (sum, weight)


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
    """Returns metrics as (sum, weight), and the next carry.

    "loss" is the negative log likelihood of the labels in nats, with label smoothing.
    Losses that the model sows in "losses" while it trains follow as
    "auxiliary/<name>". "auxiliary/z_loss" is z log^2 Z of each token (Chowdhery et al.
    2022, section 5), which keeps the normaliser Z of the softmax near 1.

    Args:
      inputs: arguments of the model.
      smoothing: probability mass of label smoothing.
      z_loss: coefficient z; 0 leaves the z-loss out.
    """

    def predict(model):
        hidden, carry = model(*inputs, train=train)
        log_prob = model.log_prob_and_log_z if z_loss else model.log_prob
        return log_prob(hidden, batch["labels"], smoothing=smoothing), carry

    rngs = {"dropout": rng} if train else {}
    apply = nn.apply(predict, model, mutable=["losses"] if train else False)
    outputs = apply(variables, rngs=rngs)
    (log_prob, carry), sown = outputs if train else (outputs, {})
    log_prob, log_z = log_prob if z_loss else (log_prob, None)
    weights = batch["weights"]
    metrics = {"loss": (-(log_prob * weights).sum(), weights.sum())}
    if z_loss:
        total = z_loss * (jnp.square(log_z) * weights).sum()
        metrics["auxiliary/z_loss"] = (total, weights.sum())
    return metrics | auxiliary_losses(sown.get("losses", {}), weights), carry


def token_losses(
    model: nn.Module, variables: PyTree, inputs: tuple, batch: dict
) -> tuple[Float[Array, "B T"], PyTree]:
    """Returns the negative log likelihood of each label, 0 for padding, and the carry.

    Args:
      inputs: arguments of the model.
    """

    def predict(model):
        hidden, carry = model(*inputs, train=False)
        return model.log_prob(hidden, batch["labels"]), carry

    log_prob, carry = nn.apply(predict, model)(variables)
    # Not a product with the weights: losses of padding may be infinite.
    return jnp.where(batch["weights"] > 0, -log_prob, 0.0), carry


def auxiliary_losses(sown: PyTree, weights: Num[Array, "B T"]) -> WeightedMetrics:
    """Returns the losses that a model has sown, each a (sum [B], weight [B]).

    Examples whose weights are all 0 are padding and do not count.
    """
    is_valid = weights.any(axis=1)
    metrics: WeightedMetrics = {}
    for path, losses in flatten_dict(sown).items():
        name = f"auxiliary/{path[-1]}"
        for parts in losses:
            total, weight = (jnp.where(is_valid, part, 0).sum() for part in parts)
            previous = metrics.get(name, (0, 0))
            metrics[name] = (previous[0] + total, previous[1] + weight)
    return metrics
