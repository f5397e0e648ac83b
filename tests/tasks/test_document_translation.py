"""Translation of documents with a memory of the sentences before."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from data.batching.documents import DocumentBatches
from data.tokenizers.base import BOS, EOS, PAD
from decoding.config import DecodingConfig
from helpers.architectures import Seq2SeqCase, V, W
from helpers.task_cases import IdTokenizer
from tasks.translation import Task
from tasks.translation_inference import decoder_inputs
from tests.data.batching.test_documents import encoded

TEXTS = ["one", "one", "one", "two", "two", "three", "three"]
SHORT = np.asarray([[4, 6, 3, 5, 2, 6, 4], [5, 3, 6, 2, 4, 5, 6]])
WIDTH = 8  # every target by hand is as wide, which is one compilation
OPTIONS = base.get_config()
OPTIONS.decode.update(max_length=WIDTH, max_length_ratio=1.0)


@functools.cache
def document_case(name):
    """Returns a model with a memory of 9 tokens, and its task."""
    tokenizers = {"source": IdTokenizer(W), "target": IdTokenizer(V)}
    case = Seq2SeqCase(name, layers=1, memory_length=9)
    return case, Task(tokenizers, document_order=True)


def texts_in_order(target_seed=1):
    source, target = encoded(SHORT[0]), encoded(SHORT[1], target_seed)
    return DocumentBatches(source, target, TEXTS, batch_size=2, buckets=1)


def padded(tokens):
    """Tokens as a row of WIDTH, and its mask."""
    row = np.zeros((1, WIDTH), np.int32)
    row[0, : len(tokens)] = tokens
    return row, np.arange(WIDTH)[None] < len(tokens)


@functools.cache
def by_hand():
    """From a source, a target and a carry to logits and the next carry."""
    case, _ = document_case("transformer_xl")

    def call(model, source, target, carry):
        labels, mask = target
        target_in = jnp.pad(labels[:, :-1], [(0, 0), (1, 0)], constant_values=BOS)
        hidden, carry = model(*source, target_in, mask, carry, train=False)
        return model.logits(hidden)[0], carry

    run = jax.jit(nn.apply(call, case.model))
    return lambda source, target, carry: run(
        case.variables, padded(source), padded(target), carry
    )


def side_of(side, number):
    return side.tokens[side.offsets[number] : side.offsets[number + 1]]


def read(batches, targets):
    """Logits of each pair after those of its document, and without them."""
    call, (case, _) = by_hand(), document_case("transformer_xl")
    for number, target in enumerate(targets):
        if number == 0 or TEXTS[number] != TEXTS[number - 1]:
            carry = case.carry(1)
        source = side_of(batches.source, number)
        alone, _ = call(source, target, case.carry(1))
        logits, carry = call(source, target, carry)
        yield np.array(logits), np.array(alone)


@functools.cache
def loss_of():
    case, task = document_case("transformer_xl")
    loss = functools.partial(task.loss, case.model, train=False, rng=None)
    return jax.jit(lambda carry, batch: loss(case.variables, carry, batch))


def test_a_loss_is_that_of_the_sentence_after_those_before_it():
    case, task = document_case("transformer_xl")
    batches = texts_in_order(target_seed=2)
    targets = [side_of(batches.target, number) for number in range(len(TEXTS))]
    after, alone = [], []
    for pair, target in zip(read(batches, targets), targets, strict=True):
        for logits, losses in zip(pair, (after, alone), strict=True):
            log_prob = jax.nn.log_softmax(logits)[np.arange(len(target)), target]
            losses.append(-float(log_prob.sum()))
    first = [0, 3, 5]
    np.testing.assert_allclose(np.take(after, first), np.take(alone, first), rtol=1e-5)
    later = np.delete(np.subtract(after, alone), first)
    assert (np.abs(later) > 1e-2).all()
    carry = task.initial_carry(case.model, 2, train=False)
    for k in range(len(batches)):
        pairs, carry = loss_of()(carry, batches[k])
        expected = sum(after[i] for i in batches[k]["ids"] if i >= 0)
        np.testing.assert_allclose(pairs["loss"][0], expected, rtol=1e-5)


def test_a_reset_row_does_not_see_the_document_before():
    case, task = document_case("transformer_xl")
    batch, loss = texts_in_order()[0], loss_of()
    empty = task.initial_carry(case.model, 2, train=False)
    _, full = loss(empty, batch)

    def found(carry, reset):
        pairs, after = loss(carry, {**batch, "reset": np.asarray(reset)})
        return float(pairs["loss"][0]), jax.tree.leaves(after)

    fresh, after = found(empty, [False, False])
    again, same = found(full, [True, True])
    assert again == fresh
    for ours, theirs in zip(same, after, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    one, other = (found(full, reset)[0] for reset in ([True, False], [False, True]))
    assert len({fresh, one, other}) == 3


@functools.cache
def card_of(name, target_seed=1):
    case, task = document_case(name)
    batches = texts_in_order(target_seed)
    texts = [("5", task.target.decode(side_of(batches.target, i))) for i in range(7)]
    return task.evaluate(case.model, case.variables, batches, OPTIONS, texts=texts)


def hypotheses_of(card):
    return [sample["hypothesis"] for sample in card["samples"]]


def test_hypotheses_are_the_most_probable_after_earlier_translations():
    found = hypotheses_of(card_of("transformer_xl"))
    targets = [[*map(int, text.split()), EOS] for text in found]
    num_changed = 0
    for target, (logits, alone) in zip(
        targets, read(texts_in_order(), targets), strict=True
    ):
        free = min(len(target), WIDTH - 1)  # the last place may only hold an end
        for scores in (logits, alone):
            scores[:, [PAD, BOS]] = -np.inf
        assert logits.argmax(axis=1)[:free].tolist() == target[:free]
        num_changed += alone.argmax(axis=1)[:free].tolist() != target[:free]
    assert num_changed


def test_decoder_inputs_are_masked_after_the_end():
    found = jnp.asarray([[7, EOS, EOS, EOS], [8, 9, 6, EOS], [EOS] * 4])
    target_in, mask = decoder_inputs(found, IdTokenizer(V))
    expected = [[BOS, 7, PAD, PAD], [BOS, 8, 9, 6], [BOS, PAD, PAD, PAD]]
    assert target_in.tolist() == expected
    assert mask.sum(axis=1).tolist() == [2, 4, 1]


def test_no_reference_leaks_into_hypotheses():
    one, other = card_of("transformer_xl"), card_of("transformer_xl", target_seed=5)
    assert hypotheses_of(one) == hypotheses_of(other)
    assert one["scores"]["loss"] != other["scores"]["loss"]
    assert one["protocol"]["document_order"] is True
    assert one["protocol"]["memory_length"] == 9
    assert one["protocol"]["batch_size"] == 2
    assert one["protocol"]["tokens"] == SHORT[1].sum()


@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_a_model_without_memory_translates_documents_too(name):
    case, task = document_case(name)
    assert task.initial_carry(case.model, 2, train=True) == ()
    if name == "rnn":
        card = card_of(name)
        assert len(hypotheses_of(card)) == len(TEXTS)
        assert card["protocol"]["memory_length"] == 0


def test_without_document_order_the_carry_is_empty():
    case, task = document_case("transformer_xl")
    alone = Task({"source": task.source, "target": task.target})
    assert alone.initial_carry(case.model, 2, train=True, memory_length=9) == ()
    assert task.initial_carry(case.model, 2, train=True).decoder.length == 9
    short = task.initial_carry(case.model, 2, train=True, memory_length=3)
    assert short.encoder.length == 3


def test_the_memory_after_a_choice_among_samples_is_that_of_the_chosen_one():
    case, task = document_case("transformer_xl")
    cfg = base.get_config()
    cfg.decode.update(max_length=WIDTH, max_length_ratio=1.0, mbr_samples=5)
    batch = texts_in_order()[0]
    carry = task.initial_carry(case.model, 2, train=False)

    def search(method, n_best):
        cfg.decode.update(method=method, n_best=n_best)
        decoding = DecodingConfig.from_config(cfg.decode)
        return task.search(case.model, case.variables, carry, batch, cfg, decoding)

    (drawn, other), (chosen, after) = search("sample", 5), search("mbr", 1)
    best = chosen.tokens[:, 0]
    assert (best != drawn.tokens[:, 0]).any()
    source = batch["source"], batch["source_mask"]
    target = decoder_inputs(jnp.asarray(best), task.target)
    call = jax.jit(functools.partial(case.model.apply, train=False))
    _, expected = call(case.variables, *source, *target, carry)
    leaves = [jax.tree.leaves(tree) for tree in (after, expected, other)]
    assert any((a != b).any() for a, _, b in zip(*leaves, strict=True))
    for ours, theirs in zip(*leaves[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
