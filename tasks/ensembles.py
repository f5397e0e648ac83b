"""Several trained models as one, for any task."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from decoding.ensemble import ensemble, mean_log_prob


class Ensemble(nn.Module):
    """A model whose next-token distribution is the mean of its members'.

    Its variables are the members' under "members_0" and so on, see
    `ensemble_variables`; its carry, hidden states, context and state are tuples of
    theirs. It keeps the contract of a model in README.md but for smoothing.

    Attributes:
      members: models of one task and target vocabulary, of any architectures.
      mean: one of `decoding.ensemble.MEANS`.
    """

    members: tuple[nn.Module, ...]
    mean: str = "probabilities"

    @property
    def config(self):
        """The first member's, for a protocol."""
        return self.members[0].config

    def initial_carry(self, batch_size: int, **options) -> tuple:
        """What each member finds first."""
        return tuple(one.initial_carry(batch_size, **options) for one in self.members)

    def initial_eval_carry(self, *sizes) -> tuple:
        """What each member finds first in an evaluation."""
        return tuple(one.initial_eval_carry(*sizes) for one in self.members)

    def precompute(self, carry: tuple) -> dict:
        """Nothing: members read what they are given."""
        return {}

    def __call__(self, *inputs, train: bool) -> tuple[tuple, tuple]:
        """Each member's hidden states and next carry."""
        *texts, carries = inputs
        found = [
            one(*texts, carry, train=train)
            for one, carry in zip(self.members, carries, strict=True)
        ]
        hidden, after = zip(*found, strict=True)
        return hidden, after

    def logits(self, hidden: tuple) -> jax.Array:
        """Log probabilities of the next token, [... V]."""
        pairs = zip(self.members, hidden, strict=True)
        return mean_log_prob([one.logits(part) for one, part in pairs], self.mean)

    def log_prob(self, hidden: tuple, labels: jax.Array, *, smoothing: float = 0.0):
        """Log probability of the labels in nats, [B T].

        A product of distributions has to be normalised over the vocabulary, so for
        "log_probabilities" [B T V] is stored.
        """
        if self.mean == "log_probabilities":
            likely = jax.nn.log_softmax(self.logits(hidden))
            return jnp.take_along_axis(likely, labels[..., None], axis=-1)[..., 0]
        pairs = zip(self.members, hidden, strict=True)
        each = jnp.stack([one.log_prob(part, labels) for one, part in pairs])
        return jax.nn.logsumexp(each, axis=0) - jnp.log(len(self.members))

    def start(self, *inputs, max_steps: int) -> tuple[tuple, tuple]:
        """Each member's context and state."""
        *texts, carries = inputs
        found = [
            one.start(*texts, carry, max_steps=max_steps)
            for one, carry in zip(self.members, carries, strict=True)
        ]
        contexts, states = zip(*found, strict=True)
        return contexts, states

    def step(self, context: tuple, state: tuple, token: jax.Array):
        """Feeds a token to each hypothesis of each member and scores the next."""
        together = ensemble([one.step for one in self.members], self.mean)
        return together(context, state, token)

    def alignment(self, intermediates: dict) -> jax.Array:
        """The mean of the members' attention to the source."""
        each = [
            one.alignment(intermediates[f"members_{number}"])
            for number, one in enumerate(self.members)
        ]
        return sum(each) / len(each)


def ensemble_variables(variables: list[PyTree]) -> PyTree:
    """The members' variables as an ensemble's."""
    names = {name for one in variables for name in one}
    return {
        name: {
            f"members_{number}": one[name]
            for number, one in enumerate(variables)
            if name in one
        }
        for name in names
    }
