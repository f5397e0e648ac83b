"""Linear-chain conditional random field (Lafferty et al. 2001)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from models.common.dtypes import upcast_to_f32
from models.common.layers import zeros


class CRF(nn.Module):
    """Distribution over label sequences y of a sentence with emission scores e.

        log p(y) = start(y_1) + sum_t e_t(y_t) + sum_t A(y_t-1, y_t) + end(y_n) - log Z

    Z sums over all sequences (forward algorithm). A, start and end begin as zeros: a
    softmax at each position. Masks are True at the first n positions of a sentence. All
    is computed in float32. An empty sentence has log p = 0.

    Attributes:
      num_labels: number of labels (L).
    """

    num_labels: int

    def setup(self):
        shapes = {"start": 1, "end": 1, "transitions": 2}
        self.start, self.end, self.transitions = (
            self.param(
                name,
                nn.with_logical_partitioning(zeros, (None,) * axes),
                (self.num_labels,) * axes,
            )
            for name, axes in shapes.items()
        )

    def log_prob(
        self,
        emissions: Float[Array, "B N L"],
        labels: Int[Array, "B N"],
        mask: Bool[Array, "B N"],
    ) -> Float[Array, "B"]:
        """Computes the log probability of label sequences, in nats."""
        score = self.score(emissions, labels, mask)
        log_z = self.log_normalizer(emissions, mask)
        return jnp.where(mask.any(axis=1), score - log_z, 0.0)

    def score(
        self,
        emissions: Float[Array, "B N L"],
        labels: Int[Array, "B N"],
        mask: Bool[Array, "B N"],
    ) -> Float[Array, "B"]:
        """Computes log p(y) + log Z."""
        emissions = upcast_to_f32(emissions)
        chosen = jnp.take_along_axis(emissions, labels[..., None], axis=2)[..., 0]
        steps = self.transitions[labels[:, :-1], labels[:, 1:]]
        last = jnp.maximum(mask.sum(axis=1) - 1, 0)
        last_label = jnp.take_along_axis(labels, last[:, None], axis=1)[:, 0]
        total = jnp.where(mask, chosen, 0.0).sum(axis=1)
        total += jnp.where(mask[:, 1:], steps, 0.0).sum(axis=1)
        return total + self.start[labels[:, 0]] + self.end[last_label]

    def log_normalizer(
        self, emissions: Float[Array, "B N L"], mask: Bool[Array, "B N"]
    ) -> Float[Array, "B"]:
        """Computes log Z by the forward algorithm.

        The sum over previous labels is a matrix product of exponentials, each divided
        by its largest, many times faster than `logsumexp` of [B, L, L].
        """
        emissions = upcast_to_f32(emissions)
        smallest = jnp.finfo(emissions.dtype).tiny  # log 0 has no gradient
        largest = jax.lax.stop_gradient(self.transitions.max(axis=0))
        factors = jnp.exp(self.transitions - largest)

        def step(alpha, inputs):
            emission, is_word = inputs
            top = jax.lax.stop_gradient(alpha.max(axis=1, keepdims=True))
            total = jnp.maximum(jnp.exp(alpha - top) @ factors, smallest)
            following = jnp.log(total) + top + largest + emission
            return jnp.where(is_word[:, None], following, alpha), None

        rest = jnp.moveaxis(emissions[:, 1:], 1, 0), mask[:, 1:].T
        alpha, _ = jax.lax.scan(step, self.start + emissions[:, 0], rest)
        return jax.nn.logsumexp(alpha + self.end, axis=1)

    def decode(
        self,
        emissions: Float[Array, "B N L"],
        mask: Bool[Array, "B N"],
        forbidden: Bool[Array, "L1 L"] | None = None,
    ) -> tuple[Int[Array, "B N"], Float[Array, "B"]]:
        """Returns the most probable labels (Viterbi 1967) and their log probability.

        Args:
          forbidden: transitions not to choose, row L those from the start of a
            sentence; None: all may be chosen.
        """
        emissions = upcast_to_f32(emissions)
        transitions, start = self.transitions, self.start
        if forbidden is not None:
            transitions = jnp.where(forbidden[:-1], -jnp.inf, transitions)
            start = jnp.where(forbidden[-1], -jnp.inf, start)
        labels = viterbi(emissions, mask, transitions, start, self.end)
        return labels, self.log_prob(emissions, labels, mask)

    def marginals(
        self, emissions: Float[Array, "B N L"], mask: Bool[Array, "B N"]
    ) -> Float[Array, "B N L"]:
        """Computes p(y_t = l) at each position; 0 at padding.

        They are the gradient of log Z by the emissions.
        """
        emissions = upcast_to_f32(emissions)
        found = jax.grad(lambda e: self.log_normalizer(e, mask).sum())(emissions)
        return jnp.where(mask[..., None], found, 0.0)


def viterbi(
    emissions: Float[Array, "B N L"],
    mask: Bool[Array, "B N"],
    transitions: Float[Array, "L L"],
    start: Float[Array, "L"],
    end: Float[Array, "L"],
) -> Int[Array, "B N"]:
    """Returns the label sequences of highest score (Viterbi 1967), 0 at padding.

    Scores are those of `CRF`; a transition of -inf is never chosen.
    """
    stay = jnp.arange(emissions.shape[2])

    def step(best, inputs):
        emission, is_word = inputs
        scores = best[:, :, None] + transitions
        found = scores.max(axis=1) + emission
        previous = jnp.where(is_word[:, None], scores.argmax(axis=1), stay)
        return jnp.where(is_word[:, None], found, best), previous

    def follow(label, previous):
        return jnp.take_along_axis(previous, label[:, None], axis=1)[:, 0], label

    rest = jnp.moveaxis(emissions[:, 1:], 1, 0), mask[:, 1:].T
    best, previous = jax.lax.scan(step, start + emissions[:, 0], rest)
    last = (best + end).argmax(axis=1)
    first, others = jax.lax.scan(follow, last, previous, reverse=True)
    return jnp.where(mask, jnp.concatenate([first[None], others]).T, 0)
