"""Statistics of activations and of attention, collected while a loss is computed.

Models have no code for it: calls of modules are intercepted
(`flax.linen.intercept_methods`), and each sows its statistics.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.scope import union_filters
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Bool, Float, PyTree

from experiment.build import Experiment
from models.attention.dot_product import attention_logits
from models.attention.multi_head import MultiHeadAttention
from models.common.dropout import Dropout
from models.common.masks import masked_softmax
from models.rnn.attention import SingleHeadAttention
from training.gradients import split_microbatches
from training.observe.watch import Numbers, group_name

# The second is for values of loops over time (`nn.scan`), which models lift it into.
COLLECTIONS = ("statistics", "intermediates")
# Names of sown values: a maximum, a maximum, and a pair (sum, weight).
ACTIVATION_MAX = "activation_max"
LOGIT_MAX = "attention_logit_max"
ENTROPY = "attention_entropy"


class CollectingModel:
    """A model whose modules may sow statistics while a task applies it.

    Attributes:
      model: a module, whose other attributes this object has, too.
    """

    def __init__(self, model: nn.Module):
        self.model, self._scopes = model, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def clone(self, *, parent, **options) -> nn.Module:
        """Returns the model bound to a scope, which it makes mutable."""
        parent.mutable = union_filters(parent.mutable, COLLECTIONS)
        self._scopes.append(parent)
        return self.model.clone(parent=parent, **options)

    def apply(self, variables: PyTree, *inputs: PyTree, rngs: dict, **options):
        """Calls the model, as `flax.linen.Module.apply` does."""
        call = nn.apply(lambda model: model(*inputs, **options), self)
        return call(variables, rngs=rngs)

    def sown(self) -> list[tuple[tuple[str, ...], Any]]:
        """Returns (path and name, value) of all values that were sown."""
        return [
            (path, value)
            for scope in self._scopes
            for collection in COLLECTIONS
            for path, values in flatten_dict(
                scope.variables().get(collection, {})
            ).items()
            if path[-1] in (ACTIVATION_MAX, LOGIT_MAX, ENTROPY)
            for value in values
        ]


def make_activation_statistics(
    experiment: Experiment, *, axis_name: str | None = None
) -> Callable[[PyTree, PyTree, PyTree, jax.Array], Numbers]:
    """Returns (params, carry, batch, rng) -> numbers of a forward pass.

    They are, by layer, the largest magnitude of an output of a module in it
    (`activation_max/<group>`); and by attention its largest scaled logit
    (`attention_logit_max/<path>`) and the entropy of its weights in nats, averaged
    over heads and queries (`attention_entropy/<path>`).

    Args:
      axis_name: see `training.gradients.gradients`.
    """
    task, num_microbatches = experiment.task, experiment.cfg.grad_accum_steps

    def forward(params, carry, batch, rng):
        model = CollectingModel(experiment.model)
        weights = batch["weights"]
        is_example = (weights > 0).any(axis=range(1, weights.ndim))
        with nn.intercept_methods(sow_statistics(is_example)):
            task.loss(model, {"params": params}, carry, batch, rng, train=True)
        return _merge(model.sown())

    def statistics(params, carry, batch, rng):
        if axis_name is not None:
            rng = jax.random.fold_in(rng, jax.lax.axis_index(axis_name))
        if num_microbatches == 1:
            maxima, sums = forward(params, carry, batch, rng)
        else:
            microbatches = (
                jnp.arange(num_microbatches),
                split_microbatches(carry, num_microbatches),
                split_microbatches(batch, num_microbatches),
            )
            maxima, sums = jax.lax.map(
                lambda part: forward(
                    params, *part[1:], jax.random.fold_in(rng, part[0])
                ),
                microbatches,
            )
            maxima = jax.tree.map(lambda x: x.max(axis=0), maxima)
            sums = jax.tree.map(lambda x: x.sum(axis=0), sums)
        if axis_name is not None:
            maxima = jax.lax.pmax(maxima, axis_name)
            sums = jax.lax.psum(sums, axis_name)
        means = {name: x / jnp.maximum(weight, 1) for name, (x, weight) in sums.items()}
        return maxima | means

    return statistics


def sow_statistics(is_example: Bool[Array, "B"]) -> Callable:
    """Returns an interceptor of flax that sows statistics of modules' calls.

    Args:
      is_example: False at rows of a batch that are padding, which do not count.
    """

    def intercept(next_method, args, kwargs, context):
        outputs, module = next_method(*args, **kwargs), context.module
        method = context.method_name
        if method == "__call__" and module.path and not isinstance(module, Dropout):
            arrays = [x for x in jax.tree.leaves(outputs) if _is_activation(x)]
            if arrays:
                is_counted = _expand(is_example, arrays[0])
                largest = jnp.where(is_counted, jnp.abs(arrays[0]), 0).max()
                _sow(module, ACTIVATION_MAX, largest.astype(jnp.float32))
        if method == "_attend" and isinstance(module, MultiHeadAttention):
            inputs, mask = args
            if kwargs.get("ring_start") is None:
                logits = attention_logits(inputs) * inputs.value.shape[-1] ** -0.5
                _sow_attention(module, logits, mask[:, None], is_example)
        if method == "__call__" and isinstance(module, SingleHeadAttention):
            query, keys, _, mask = args
            logits = module.compute_score(query, keys)
            _sow_attention(module, logits, mask, is_example)
        return outputs

    return intercept


def _is_activation(x) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.floating) and jnp.size(x) > 0


def _expand(is_example, x):
    """Returns the mask of rows for an array with rows, or with some for each row."""
    if not jnp.ndim(x) or x.shape[0] % len(is_example):
        return jnp.ones((), bool)
    is_counted = jnp.repeat(is_example, x.shape[0] // len(is_example))
    return is_counted.reshape(-1, *[1] * (x.ndim - 1))


def _sow_attention(
    module: nn.Module,
    logits: Float[Array, "... T S"],
    mask: Bool[Array, "... S"],
    is_example: Bool[Array, "B"],
) -> None:
    """Sows the largest logit and the entropy of the weights, of unmasked queries."""
    logits = logits.astype(jnp.float32)
    mask = mask & _expand(is_example, logits)
    _sow(module, LOGIT_MAX, jnp.where(mask, logits, -jnp.inf).max())
    entropies = jax.scipy.special.entr(masked_softmax(logits, mask)).sum(axis=-1)
    is_query = jnp.broadcast_to(mask.any(axis=-1), entropies.shape)
    total = jnp.where(is_query, entropies, 0).sum()
    _sow(module, ENTROPY, (total, is_query.sum().astype(jnp.float32)))


def _sow(module: nn.Module, name: str, value: PyTree) -> None:
    collection = next(filter(module.is_mutable_collection, COLLECTIONS))
    module.sow(collection, name, value)


def _merge(
    sown: list[tuple[tuple[str, ...], Any]],
) -> tuple[Numbers, dict[str, tuple[Array, Array]]]:
    """Returns maxima and (sum, weight) of sums, by name, over calls and time steps."""
    maxima: Numbers = {}
    sums: dict[str, tuple[Array, Array]] = {}
    for (*path, kind), value in sown:
        if kind == ENTROPY:
            name = f"{kind}/{'/'.join(path)}"
            total, weight = sums.get(name, (0.0, 0.0))
            sums[name] = total + value[0].sum(), weight + value[1].sum()
            continue
        place = group_name(path) if kind == ACTIVATION_MAX else "/".join(path)
        name, largest = f"{kind}/{place}", value.max()
        maxima[name] = jnp.maximum(maxima.get(name, largest), largest)
    return maxima, sums
