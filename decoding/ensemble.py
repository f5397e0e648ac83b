"""Several models as one: their next-token distributions, averaged."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from decoding.hypotheses import Step

MEANS = ("probabilities", "log_probabilities")


def mean_log_prob(logits: list[Float[Array, "B N V"]], mean: str) -> Array:
    """The log of an ensemble's probabilities, up to what all tokens share.

    Args:
      mean: of "probabilities", a mixture of the models; of "log_probabilities",
        their normalised product, to which each model has a veto.

    Raises ValueError for another mean.
    """
    if mean not in MEANS:
        raise ValueError(f"{mean=}: there are {', '.join(MEANS)}")
    log_probs = jnp.stack([jax.nn.log_softmax(one) for one in logits])
    if mean == "log_probabilities":
        return log_probs.mean(axis=0)
    return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(logits))


def ensemble(steps: list[Step], mean: str = "probabilities") -> Step:
    """One step of several models that share a target vocabulary.

    Its context and state are tuples of the models'. Attention, where all steps
    give it, is averaged.
    """

    def step(context: tuple, state: tuple, token: Int[Array, "B N"]):
        found = [
            one(seen, before, token)
            for one, seen, before in zip(steps, context, state, strict=True)
        ]
        after, logits, *attention = zip(*found, strict=True)
        rest: list[PyTree] = [sum(seen) / len(steps) for seen in attention]
        return tuple(after), mean_log_prob(list(logits), mean), *rest

    return step
