"""What generation remembers of its prefix.

What all hypotheses of a row share (a memory, a prompt) stands once a row and is only
read. What they have written since stands in caches that belong to families: G
hypotheses of a row that may go on from one another, each with a slot of its own at
each of L steps. Whose slots are a hypothesis's past is kept apart, so that a search
that goes on with other hypotheses moves no keys and no values. The price: a member's
query meets the slots of all its family (`kv_blocks.py`), of which the mask leaves
it one a step.

Keys stand turned here, as CPUs multiply them with few queries soonest.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from models.attention.decode_attention import View
from models.attention.kv_blocks import (
    Turned,
    Written,
    empty_blocks,
    num_slots,
    reached,
    repeated,
)
from models.attention.multi_head import Projected
from models.common.dtypes import DType


class Past(NamedTuple):
    """What stands before the first token that is generated.

    Attributes:
      kept: a layer's keys and values each.
      seen: which of their C slots hold something.
      places: of the first token that is generated, a row.
    """

    kept: tuple[Projected, ...]
    seen: Bool[Array, "B C"]
    places: Int[Array, "B"]

    def turned(self) -> "TurnedPast":
        """As generation reads it."""
        return TurnedPast(tuple(map(turned, self.kept)), self.seen, self.places)


class TurnedPast(NamedTuple):
    """The same with keys turned."""

    kept: tuple[Turned, ...]
    seen: Bool[Array, "B C"]
    places: Int[Array, "B"]

    @property
    def slots(self) -> int:
        """C."""
        return self.seen.shape[1]


def turned(projected: Projected) -> Turned:
    """Keys as [B, H, Dh, S], and values."""
    keys, values = projected
    return jnp.swapaxes(keys, 2, 3), values


def no_past(
    batch_size: int,
    layers: int,
    heads: int,
    head_dim: int,
    dtype: DType = jnp.float32,
) -> Past:
    """Where nothing stands before."""
    empty = jnp.zeros((batch_size, heads, 0, head_dim), dtype)
    seen = jnp.zeros((batch_size, 0), bool)
    return Past(((empty, empty),) * layers, seen, jnp.zeros(batch_size, jnp.int32))


class State(NamedTuple):
    """What N hypotheses a row have written, in families of G.

    Attributes:
      caches: a layer's keys and values each, of F families; the slots of a step stand
        side by side.
      lineage: which member of its family wrote a hypothesis's token at each step.
      step: the next one's number, of all rows.
    """

    caches: tuple[Written, ...]
    lineage: Int[Array, "B N L"]
    step: Int[Array, ""]

    @property
    def num_members(self) -> int:
        """G."""
        return num_slots(self.caches[0]) // self.lineage.shape[2]

    def widened(self, count: int, *, related: bool) -> "State":
        """One hypothesis a row as `count` equal ones: one family, or each its own."""
        caches = tuple(repeated(each, count, related=related) for each in self.caches)
        return State(caches, jnp.repeat(self.lineage, count, axis=1), self.step)

    def reordered(self, parents: Int[Array, "B K"]) -> "State":
        """With hypotheses that go on from others of a row.

        Raises ValueError where those of a row are several families.
        """
        if self.num_members != self.lineage.shape[1]:
            raise ValueError(
                "hypotheses that each are a family do not go on from one another: "
                "widen the state with related=True"
            )
        lineage = jnp.take_along_axis(self.lineage, parents[:, :, None], axis=1)
        return self._replace(lineage=lineage)

    def opened(self) -> "State":
        """With the step's slots given to those who write into them now."""
        num = self.lineage.shape[1]
        writers = jnp.arange(num, dtype=self.lineage.dtype) % self.num_members
        lineage = jax.lax.dynamic_update_index_in_dim(
            self.lineage,
            jnp.broadcast_to(writers, self.lineage.shape[:2]),
            self.step,
            axis=2,
        )
        return self._replace(lineage=lineage)

    def closed(self, caches: tuple[Written, ...]) -> "State":
        """After the step, which has written into the caches."""
        return self._replace(caches=caches, step=self.step + 1)


def empty_state(past: TurnedPast, max_steps: int) -> State:
    """One hypothesis a row that has written nothing yet, with room to."""
    rows = len(past.seen)
    lineage = jnp.zeros((rows, 1, max_steps), jnp.int32)
    caches = (empty_blocks(past.kept[0], max_steps),) * len(past.kept)
    return State(caches, lineage, jnp.zeros((), jnp.int32))


def views(
    past: TurnedPast, state: State, distances: tuple, window: Int[Array, ""]
) -> tuple[View, ...]:
    """What the token of each hypothesis sees that its slot was opened for, a layer.

    Args:
      distances: a layer's projected distances C + L - 1 to 0 each, or None.
      window: keys at this distance or farther are not seen.
    """
    num_before, max_steps = past.slots, state.lineage.shape[2]
    total = num_before + max_steps
    away = num_before + state.step - jnp.arange(total)
    near = (away >= 0) & (away < window)
    before, since = jnp.split(near, [num_before])
    own = own_slots(state) & jnp.repeat(since, state.num_members)
    before = jnp.broadcast_to(
        (past.seen & before)[:, None], (*own.shape[:2], num_before)
    )
    mask = jnp.concatenate([before, own], axis=-1)
    places = (past.places + state.step)[:, None]

    def falling(projected):
        if projected is None:
            return None
        later = jnp.pad(projected, ((0, max_steps - 1), (0, 0), (0, 0)))
        start = max_steps - 1 - state.step
        return jax.lax.dynamic_slice_in_dim(later, start, total)

    last = reached(state.step, max_steps)
    return tuple(
        View(mask, places, last, falling(projected)) for projected in distances
    )


def own_slots(state: State) -> Bool[Array, "B N S"]:
    """Which of its family's L G slots are a hypothesis's past, if they are filled."""
    own = state.lineage[..., None] == jnp.arange(state.num_members)
    return own.reshape(*state.lineage.shape[:2], -1)
