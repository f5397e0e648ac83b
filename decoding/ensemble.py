"""Ensembles: several trained models as one, their distributions averaged."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from decoding.beam_axis import StepFn

MEANS = ("probabilities", "log_probabilities")


def mean_log_prob(logits: list[Float[Array, "... V"]], mean: str) -> Array:
    """Returns the log of the averaged distribution, up to a constant.

    Args:
      mean: "probabilities", a mixture of the models; or "log_probabilities", their
        product, in which each model has a veto.

    Raises:
      ValueError: unknown mean.
    """
    if mean not in MEANS:
        raise ValueError(f"Unknown mean {mean!r}; choose one of {', '.join(MEANS)}")
    log_probs = jnp.stack([jax.nn.log_softmax(one) for one in logits])
    if mean == "log_probabilities":
        return log_probs.mean(axis=0)
    return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(logits))


def ensemble_step(step_fns: list[StepFn], mean: str = "probabilities") -> StepFn:
    """Combines the decoding steps of models that share a target vocabulary.

    Context and state of the combined step are tuples of those of the models.
    Attention is averaged where all steps return it.
    """

    def step_fn(context: tuple, state: tuple, token: Int[Array, "B N"]):
        outputs = [
            one(one_context, one_state, token)
            for one, one_context, one_state in zip(
                step_fns, context, state, strict=True
            )
        ]
        states, logits, *attention = zip(*outputs, strict=True)
        averaged = [sum(each) / len(step_fns) for each in attention]
        return tuple(states), mean_log_prob(list(logits), mean), *averaged

    return step_fn


class Ensemble(nn.Module):
    """A model whose next-token distribution is the mean of those of its members.

    Its variables are the members' under "members_0" and so on, see
    `ensemble_variables`; its carry, hidden states, context and state are tuples of
    theirs. It implements the whole contract of a model but label smoothing.

    Attributes:
      members: models of one task and target vocabulary, of any architectures.
      mean: one of MEANS.
    """

    members: tuple[nn.Module, ...]
    mean: str = "probabilities"

    @property
    def config(self):
        """Config of the first member."""
        return self.members[0].config

    def initial_carry(self, batch_size: int, **options) -> tuple:
        """Returns the initial carry of each member."""
        return tuple(one.initial_carry(batch_size, **options) for one in self.members)

    def initial_eval_carry(self, *sizes) -> tuple:
        """Returns the initial carry of each member for an evaluation."""
        return tuple(one.initial_eval_carry(*sizes) for one in self.members)

    def precompute(self, carry: tuple) -> dict:
        """Returns no variables: nothing is precomputed for an ensemble."""
        return {}

    def __call__(self, *inputs, train: bool) -> tuple[tuple, tuple]:
        """Returns hidden states and the next carry of each member."""
        *tokens, carries = inputs
        outputs = [
            one(*tokens, carry, train=train)
            for one, carry in zip(self.members, carries, strict=True)
        ]
        hidden, carries = zip(*outputs, strict=True)
        return hidden, carries

    def logits(self, hidden: tuple) -> Float[Array, "... V"]:
        """Returns log probabilities of the next token, up to a constant."""
        pairs = zip(self.members, hidden, strict=True)
        return mean_log_prob([one.logits(part) for one, part in pairs], self.mean)

    def log_prob(
        self, hidden: tuple, labels: Int[Array, "B T"], *, smoothing: float = 0.0
    ) -> Float[Array, "B T"]:
        """Returns log probabilities of the labels in nats, without smoothing.

        A mean of log probabilities must be normalised over the vocabulary, which
        stores [B T V].
        """
        if self.mean == "log_probabilities":
            log_probs = jax.nn.log_softmax(self.logits(hidden))
            return jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
        pairs = zip(self.members, hidden, strict=True)
        each = jnp.stack([one.log_prob(part, labels) for one, part in pairs])
        return jax.nn.logsumexp(each, axis=0) - jnp.log(len(self.members))

    def start(self, *inputs, max_steps: int) -> tuple[tuple, tuple]:
        """Returns the decoding context and state of each member."""
        *tokens, carries = inputs
        outputs = [
            one.start(*tokens, carry, max_steps=max_steps)
            for one, carry in zip(self.members, carries, strict=True)
        ]
        contexts, states = zip(*outputs, strict=True)
        return contexts, states

    def step(self, context: tuple, state: tuple, token: Int[Array, "B N"]):
        """Feeds a token to each hypothesis of each member and scores the next."""
        step_fn = ensemble_step([one.step for one in self.members], self.mean)
        return step_fn(context, state, token)

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
