"""Ensembles: several trained models as one, their distributions averaged."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


def mean_log_prob(logits: list[Float[Array, "... V"]]) -> Float[Array, "... V"]:
    """Returns the log of the mean of the models' distributions."""
    log_probs = jnp.stack([jax.nn.log_softmax(one) for one in logits])
    return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(logits))


class Ensemble(nn.Module):
    """A model whose next-token distribution is the mean of those of its members.

    Its variables are the members' under "members_0" and so on, see
    `ensemble_variables`; its carry, hidden states, context and state are tuples of
    theirs. It implements the whole contract of a model (models/api.py) but label
    smoothing.

    Attributes:
      members: models of one task and target vocabulary, of any architectures.
    """

    members: tuple[nn.Module, ...]

    @property
    def config(self):
        """Config of the first member."""
        return self.members[0].config

    def initial_carry(self, batch_size: int, **options) -> tuple:
        return tuple(one.initial_carry(batch_size, **options) for one in self.members)

    def initial_eval_carry(self, *sizes) -> tuple:
        return tuple(one.initial_eval_carry(*sizes) for one in self.members)

    def precompute(self, carry: tuple) -> dict:
        """Returns no variables: nothing is precomputed for an ensemble."""
        return {}

    def __call__(self, *inputs, train: bool) -> tuple[tuple, tuple]:
        *tokens, carries = inputs
        outputs = [
            one(*tokens, carry, train=train)
            for one, carry in zip(self.members, carries, strict=True)
        ]
        hidden, carries = zip(*outputs, strict=True)
        return hidden, carries

    def logits(self, hidden: tuple) -> Float[Array, "... V"]:
        pairs = zip(self.members, hidden, strict=True)
        return mean_log_prob([one.logits(part) for one, part in pairs])

    def log_prob(
        self, hidden: tuple, labels: Int[Array, "B T"], *, smoothing: float = 0.0
    ) -> Float[Array, "B T"]:
        """Returns log probabilities of the labels in nats, without smoothing."""
        pairs = zip(self.members, hidden, strict=True)
        each = jnp.stack([one.log_prob(part, labels) for one, part in pairs])
        return jax.nn.logsumexp(each, axis=0) - jnp.log(len(self.members))

    def start(self, *inputs, max_steps: int) -> tuple[tuple, tuple]:
        *tokens, carries = inputs
        outputs = [
            one.start(*tokens, carry, max_steps=max_steps)
            for one, carry in zip(self.members, carries, strict=True)
        ]
        contexts, states = zip(*outputs, strict=True)
        return contexts, states

    def step(self, context: tuple, state: tuple, token: Int[Array, "B N"]):
        members = zip(self.members, context, state, strict=True)
        outputs = [one.step(part, own, token) for one, part, own in members]
        states, logits = zip(*outputs, strict=True)
        return states, mean_log_prob(list(logits))

    def alignment(self, intermediates: dict) -> Float[Array, "..."]:
        """Returns the mean of the members' attention to the source."""
        each = [
            one.alignment(intermediates[f"members_{index}"])
            for index, one in enumerate(self.members)
        ]
        return sum(each) / len(each)


def ensemble_variables(variables: list[PyTree]) -> PyTree:
    """Combines the variables of members into those of their ensemble."""
    collections = {name for one in variables for name in one}
    return {
        name: {
            f"members_{index}": one[name]
            for index, one in enumerate(variables)
            if name in one
        }
        for name in collections
    }
