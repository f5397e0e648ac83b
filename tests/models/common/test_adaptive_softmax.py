"""Comparison of adaptive embeddings and softmax with the papers' formulas."""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from models.common import blockwise_cross_entropy
from models.common.adaptive_softmax import (
    AdaptiveEmbedding,
    AdaptiveHead,
    cluster_bounds,
)
from models.common.layers import normal
from tests.models.common.test_output_head import sizes

B, T, D, E, V = 3, 13, 6, 8, 83
CUTOFFS = (11, 29)
EDGES = (0, 10, 11, 28, 29, V - 1)  # first and last words of the clusters
N = B * T
ENTRIES = V + len(CUTOFFS)  # logits a token
LARGEST = V - CUTOFFS[-1]  # logits of the largest cluster

CASES = {
    "narrowing": {},
    "narrowing from D, own projections": {
        "embedding_width": D,
        "tie_projections": False,
    },
    "one width": {"div_val": 1},
    "one width, D": {"div_val": 1, "embedding_width": D},
    "one cluster, own table": {"cutoffs": (), "tied": False, "tie_projections": False},
}


class Ends(nn.Module):
    """Embedding and output head of a model, with nothing between them."""

    width: int = D
    vocab_size: int = V
    embedding_width: int = E
    cutoffs: tuple[int, ...] = CUTOFFS
    div_val: int = 2
    tied: bool = True
    tie_projections: bool = True

    def setup(self):
        both = {
            "vocab_size": self.vocab_size,
            "width": self.width,
            "embedding_width": self.embedding_width,
            "cutoffs": self.cutoffs,
            "div_val": self.div_val,
            "init": normal(0.02),
            "projection_init": normal(0.01),
        }
        self.embedding = AdaptiveEmbedding(**both)
        tied = self.embedding if self.tied else None
        self.head = AdaptiveHead(
            **both, embedding=tied, tie_projections=self.tie_projections
        )

    def embed(self, tokens):
        return self.embedding(tokens)

    def logits(self, hidden):
        return self.head.logits(hidden)

    def log_prob(self, hidden, labels, smoothing=0.0):
        return self.head.log_prob(hidden, labels, smoothing=smoothing)

    def __call__(self, hidden, tokens):
        return self.embed(tokens), self.log_prob(hidden, tokens), self.logits(hidden)


def example():
    """Hidden states, and tokens of every cluster."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(B, T, D)).astype(np.float32)
    tokens = np.append(EDGES, rng.integers(0, V, N - len(EDGES)))
    return hidden, tokens.reshape(T, B).T.astype(np.int32)


def boxed(ends):
    """Parameters as shapes with their logical axes."""
    hidden, tokens = jnp.zeros((1, 1, ends.width)), jnp.zeros((1, 1), int)
    return jax.eval_shape(ends.init, jax.random.key(0), hidden, tokens)["params"]


def parameters(ends):
    """Random parameters with distinct probabilities, biases included."""
    rng = np.random.default_rng(1)

    def draw(leaf):
        return rng.normal(scale=0.7, size=leaf.shape).astype(np.float32)

    return jax.tree.map(draw, nn.unbox(boxed(ends)))


# Distinct for each token and each entry of a vector, so that no two can be swapped.
WEIGHTS = np.arange(1, N + 1).reshape(B, T) / N
DIRECTION = np.random.default_rng(2).normal(size=(B, T, D))


def loss(vectors, scores):
    return (scores * WEIGHTS).sum() + (vectors * DIRECTION).sum()


def compute(case):
    """The modules of a case, their parameters, outputs and gradients."""
    ends = Ends(**CASES[case])
    params, (hidden, tokens) = parameters(ends), example()

    @partial(jax.grad, argnums=(0, 1), has_aux=True)
    def run(params, hidden, tokens):
        found = ends.apply({"params": params}, hidden, tokens)
        return loss(*found[:2]), found

    gradients, found = jax.jit(run)(params, hidden, tokens)
    return ends, params, found, gradients


results = cache(compute)


def cluster_of(ends, word):
    """Index of a word's cluster, and the word's index in it."""
    number = sum(word >= cutoff for cutoff in ends.cutoffs)
    return number, word - (0, *ends.cutoffs)[number]


def projection(ends, params, number, *, head):
    """Projection [width, D] of a cluster; `tie_projs` in the authors' code."""
    if ends.div_val == 1 and ends.embedding_width == ends.width:
        return np.eye(ends.width)
    if head and (number == 0 or not ends.tie_projections):
        return params["head"][f"projection_{number}"]
    return params["embedding"][f"projection_{0 if ends.div_val == 1 else number}"]


def vector(ends, params, word):
    """Embedding of one word, by the formula."""
    number, index = cluster_of(ends, word)
    row = params["embedding"][f"table_{number}"][index]
    return row @ projection(ends, params, number, head=False)


def cluster_log_probs(ends, params, number, state):
    """Log probabilities within one cluster, given one hidden state."""
    tables, head = params["embedding" if ends.tied else "head"], params["head"]
    rows, biases = [*tables[f"table_{number}"]], [*head[f"bias_{number}"]]
    if number == 0 and ends.cutoffs:
        rows += [*head["cluster_table"]]
        biases += [*head["cluster_bias"]]
    inner = projection(ends, params, number, head=True) @ state
    scores = np.array([row @ inner + b for row, b in zip(rows, biases, strict=True)])
    return scores - np.log(np.exp(scores).sum())


def word_log_probs(ends, params, state):
    """Log probability of each word, given one hidden state."""
    found = []
    first, *tails = (
        cluster_log_probs(ends, params, number, state)
        for number in range(len(ends.cutoffs) + 1)
    )
    shortlist = len(first) - len(tails)
    for word in range(ends.vocab_size):
        number, index = cluster_of(ends, word)
        if number == 0:
            found.append(first[index])
        else:
            found.append(first[shortlist + number - 1] + tails[number - 1][index])
    return found


def formulas(ends, params, hidden, tokens):
    """Outputs of `Ends`, computed word by word."""
    vectors = [[vector(ends, params, word) for word in row] for row in tokens]
    logits = [[word_log_probs(ends, params, state) for state in row] for row in hidden]
    scores = np.take_along_axis(np.array(logits), tokens[..., None], axis=-1)[..., 0]
    return np.array(vectors), scores, np.array(logits)


@pytest.mark.parametrize("case", CASES)
def test_embeddings_and_log_probs_follow_the_formulas(case):
    ends, params, (vectors, scores, logits), _ = results(case)
    expected = formulas(ends, params, *example())
    np.testing.assert_allclose(np.exp(expected[-1]).sum(axis=-1), 1, atol=1e-5)
    assert vectors.dtype == scores.dtype == logits.dtype == jnp.float32
    np.testing.assert_allclose(vectors, expected[0], atol=1e-5)
    np.testing.assert_allclose(scores, expected[1], atol=1e-5)
    np.testing.assert_allclose(logits, expected[2], atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_finite_differences_of_the_formulas(case):
    ends, params, _, found = results(case)
    hidden, tokens = example()
    rng = np.random.default_rng(3)
    start = jax.tree.map(np.float64, (params, hidden))
    way = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), start)

    def at(distance):
        moved = jax.tree.map(lambda leaf, step: leaf + distance * step, start, way)
        return loss(*formulas(ends, *moved, tokens)[:2])

    slope = (at(1e-5) - at(-1e-5)) / 2e-5
    parts = jax.tree.map(lambda leaf, step: (leaf * step).sum(), found, way)
    assert all(abs(part) > 1e-3 for part in jax.tree.leaves(parts))
    np.testing.assert_allclose(sum(jax.tree.leaves(parts)), slope, rtol=1e-4)


def test_vocab_chunks_do_not_change_loss_and_gradients(monkeypatch):
    whole = results("narrowing")[2:]
    monkeypatch.setattr(blockwise_cross_entropy, "CHUNK_LOGITS", 7 * N)
    blocks = compute("narrowing")[2:]
    for ours, theirs in zip(
        jax.tree.leaves(blocks), jax.tree.leaves(whole), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_no_array_has_the_size_of_all_logits(monkeypatch):
    ends = Ends()

    def largest():
        def total(params, hidden, labels):
            found = ends.apply({"params": params}, hidden, labels, method="log_prob")
            return found.sum()

        program = jax.make_jaxpr(jax.grad(total, argnums=(0, 1)))
        return max(sizes(program(parameters(ends), *example()).jaxpr))

    monkeypatch.setattr(blockwise_cross_entropy, "CHUNK_LOGITS", N * ENTRIES)
    assert largest() >= N * LARGEST  # they would be found
    monkeypatch.setattr(blockwise_cross_entropy, "CHUNK_LOGITS", 8 * N)
    assert largest() < N * LARGEST / 2


def test_a_cluster_bias_raises_the_words_of_its_cluster():
    ends, params, (_, _, before), _ = results("narrowing")
    logits = jax.jit(partial(ends.apply, method="logits"))
    for column, (start, stop) in enumerate(cluster_bounds(V, CUTOFFS)[1:]):
        bias = params["head"]["cluster_bias"] + 3 * np.eye(len(CUTOFFS))[column]
        moved = {**params, "head": {**params["head"], "cluster_bias": bias}}
        after = logits({"params": moved}, example()[0])
        inside = (np.arange(V) >= start) & (np.arange(V) < stop)
        np.testing.assert_array_equal(
            after > before, np.broadcast_to(inside, (B, T, V))
        )


def test_a_token_outside_the_vocabulary_has_the_zero_vector():
    ends, params, _, _ = results("narrowing")
    embed = jax.jit(partial(ends.apply, method="embed"))
    found = embed({"params": params}, np.array([-1, V]))
    np.testing.assert_array_equal(found, np.zeros((2, D)))


def shapes(ends):
    return jax.tree.map(lambda leaf: leaf.shape, nn.unbox(boxed(ends)))


def test_parameters_have_the_documented_names_and_shapes():
    ends = Ends(width=16, vocab_size=50, embedding_width=16, cutoffs=(10, 25))
    head = {"bias_0": (10,), "bias_1": (15,), "bias_2": (25,)}
    head |= {"cluster_bias": (2,), "cluster_table": (2, 16)}
    tables = {"table_0": (10, 16), "table_1": (15, 8), "table_2": (25, 4)}
    first = {"projection_0": (16, 16)}
    others = {"projection_1": (8, 16), "projection_2": (4, 16)}
    embedding = tables | first | others
    assert shapes(ends) == {"embedding": embedding, "head": head | first}
    untied = ends.clone(tied=False, tie_projections=False)
    assert shapes(untied) == {"embedding": embedding, "head": head | embedding}


def test_clusters_of_one_width_share_the_embeddings_projection():
    ends = Ends(16, 50, embedding_width=12, cutoffs=(10, 25), div_val=1)
    found = shapes(ends)
    assert found["embedding"] == {
        "table_0": (10, 12),
        "table_1": (15, 12),
        "table_2": (25, 12),
        "projection_0": (12, 16),
    }
    assert found["head"]["projection_0"] == (12, 16)
    assert "projection_1" not in found["head"]
    assert "projection_0" not in shapes(ends.clone(embedding_width=16))["head"]


def test_parameters_name_their_logical_axes():
    axes = nn.get_partition_spec(boxed(Ends()))
    assert axes["embedding"]["table_1"] == P("vocab", "embed")
    assert axes["embedding"]["projection_1"] == P(None, "embed")
    assert axes["head"]["cluster_table"] == P(None, "embed")
    assert axes["head"]["bias_1"] == P("vocab")


@pytest.mark.parametrize(
    ("cutoffs", "message"),
    [
        ((5, 3), "model.cutoffs=(5, 3): cut-offs must increase"),
        ((5, 5), "model.cutoffs=(5, 5): cut-offs must increase"),
        ((0, 5), "model.cutoffs=(0, 5): they must be 1 or more"),
        (
            (5, 50),
            "model.cutoffs=(5, 50): they must be below the vocabulary size 50",
        ),
    ],
)
def test_cutoffs_that_leave_a_cluster_empty_are_rejected(cutoffs, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared whole below
        cluster_bounds(50, cutoffs)
    assert str(error.value) == message


def test_clusters_are_the_ranges_between_cutoffs():
    assert cluster_bounds(50, (10, 25)) == ((0, 10), (10, 25), (25, 50))
    assert cluster_bounds(50, ()) == ((0, 50),)


def test_an_embedding_too_narrow_to_divide_is_rejected():
    with pytest.raises(ValueError, match=r"model\.embedding_width=8: .* need 9 or"):
        boxed(Ends(div_val=3))


def test_tied_projections_need_a_tied_embedding():
    with pytest.raises(ValueError, match=r"model\.tie_projections=True: "):
        boxed(Ends(tied=False))


def test_label_smoothing_is_rejected():
    ends = Ends()
    apply = partial(ends.apply, smoothing=0.1, method="log_prob")
    with pytest.raises(ValueError, match=r"label_smoothing=0\.1: .* set it to 0"):
        jax.eval_shape(apply, {"params": parameters(ends)}, *example())


def test_log_z_of_several_clusters_is_rejected():
    ends = Ends()
    apply = partial(
        ends.apply, method=lambda ends, *inputs: ends.head.log_prob_and_log_z(*inputs)
    )
    with pytest.raises(ValueError, match=r"z_loss: .* set it to 0"):
        jax.eval_shape(apply, {"params": parameters(ends)}, *example())
