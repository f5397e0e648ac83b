"""The language modelling task: weights of the loss, z-loss, evaluation with a carry."""

import dataclasses

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from helpers.architectures import B, LanguageModelCase, T, tokens
from helpers.task_cases import language_modeling_task

SEGMENTS = 4


def batch(k=0):
    text = tokens((B, T + 1), seed=k)
    return {
        "tokens": text[:, :-1],
        "labels": text[:, 1:],
        "weights": np.ones((B, T), np.float32),
        "reset": np.full(B, k == 0),
    }


@pytest.mark.parametrize(("share", "first"), [(1.0, 0), (0.5, T // 2), (0.2, T - 1)])
def test_only_the_last_part_of_a_segment_trains(share, first):
    case, one = LanguageModelCase("transformer", layers=1), batch()
    call = (case.model, case.variables, (), one, jax.random.key(0))
    total, weight = language_modeling_task(loss_fraction=share).loss(*call, train=True)[
        0
    ]["loss"]
    hidden, _, _ = case.run(one["tokens"], ())
    nll = -case.log_prob(hidden, one["labels"])
    assert weight == B * (T - first)
    np.testing.assert_allclose(total, nll[:, first:].sum(), rtol=1e-5)


def test_z_loss_is_an_auxiliary_loss_of_training_only():
    case, one = LanguageModelCase("transformer", layers=1), batch()
    call = (case.model, case.variables, (), one, jax.random.key(0))
    plain, with_z = (
        language_modeling_task(loss_fraction=0.5),
        language_modeling_task(loss_fraction=0.5, z_loss=0.25),
    )
    pairs, _ = with_z.loss(*call, train=True)
    expected = plain.loss(*call, train=True)[0]["loss"]
    np.testing.assert_array_equal(pairs["loss"], expected)
    logits = np.asarray(case.run(one["tokens"], ())[1])[:, T // 2 :]
    log_z = np.log(np.exp(logits).sum(axis=-1))
    total, weight = pairs["auxiliary/z_loss"]
    np.testing.assert_allclose(total / weight, 0.25 * (log_z**2).mean(), rtol=1e-5)
    assert with_z.loss(*call, train=False)[0].keys() == {"loss"}


@dataclasses.dataclass
class Text:
    words: int = 1
    characters: int = 1
    size: int = 1
    tokens: tuple = (0,) * SEGMENTS * B * T


class Segments:
    """Consecutive segments, as `LMEvalBatches` gives them."""

    batch_size, length, text = B, T, Text()

    def __len__(self):
        return SEGMENTS

    def label_positions(self, k):
        return k * B * T + np.arange(B * T).reshape(B, T)

    def __getitem__(self, k):
        return batch(k)


@pytest.mark.parametrize(
    ("name", "key"), [("rnn", "attention_window"), ("transformer_xl", "memory_length")]
)
def test_an_evaluation_passes_the_carry_from_segment_to_segment(name, key):
    case = LanguageModelCase(name, **{key: 7}, layers=1)
    card = language_modeling_task().evaluate(
        case.model, case.variables, Segments(), ConfigDict()
    )
    total, carry = 0.0, case.carry(B)
    for k in range(SEGMENTS):
        hidden, _, carry = case.run(batch(k)["tokens"], carry)
        total -= float(case.log_prob(hidden, batch(k)["labels"]).sum())
    expected = total / (SEGMENTS * B * T)
    np.testing.assert_allclose(card["scores"]["loss"]["value"], expected, rtol=1e-5)
    assert card["protocol"][key] == 7
