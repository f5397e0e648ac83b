"""Searches over models: their scores equal those that the model computes."""

import functools
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.tokenizers.base import BOS, EOS, PAD
from data.tokenizers.symbols import WordTokenizer
from decoding.config import (
    METHODS,
    DecodingConfig,
    check_decode,
    decoding_protocol,
    search,
)
from decoding.ensemble import Ensemble, ensemble_variables
from decoding.hypotheses import DecodingConstraints
from helpers.architectures import (
    B,
    LanguageModelCase,
    Seq2SeqCase,
    T,
    V,
    W,
    names,
    tokens,
)
from helpers.task_cases import (
    MAX_LENGTH,
    IdTokenizer,
    decode_options,
    language_modeling_task,
    translation_case,
)
from tasks import translation
from tasks.translation_inference import decoder_inputs
from utils.errors import UserError

STEPS, BEAM = MAX_LENGTH, 3
ALPHA, BETA = 0.6, 0.3


DIVERSE = {"beam_groups": BEAM, "diversity_penalty": 5.0, "no_repeat_ngram_size": 1}


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("rnn", {}),
        ("transformer", {}),
        pytest.param("transformer_xl", {}, marks=pytest.mark.slow),
        ("transformer_xl", DIVERSE),
        pytest.param("rnn", DIVERSE, marks=pytest.mark.slow),
        pytest.param("transformer", DIVERSE, marks=pytest.mark.slow),
    ],
)
def test_beam_scores_of_a_seq2seq_equal_those_of_one_pass(name, rules):
    """Log probability, and the coverage of the attention that one pass sows."""
    case = Seq2SeqCase(name, layers=1)
    constraints = DecodingConstraints(
        jnp.asarray([STEPS, STEPS - 2]), STEPS, EOS, forbidden=(PAD, BOS)
    )
    options = {"beam_size": BEAM, "n_best": BEAM, **rules}
    penalties = {"length_penalty": ALPHA, "coverage_penalty": BETA}
    decode = decode_options(method="beam", **options, **penalties).decode
    decoding = DecodingConfig.from_config(decode)

    @jax.jit
    def find(variables):
        inputs = case.source, case.source_mask, case.carry(B, memory_length=0)
        return search(
            decoding,
            case.model,
            variables,
            inputs,
            jnp.full(B, BOS),
            constraints,
            keys=jax.random.split(jax.random.key(0), B),
            source_mask=case.source_mask,
        )

    def score(model, found):
        target = decoder_inputs(found, IdTokenizer(V))
        inputs = case.source, case.source_mask, *target
        hidden, _ = model(*inputs, case.carry(B, memory_length=0), train=False)
        return model.log_prob(hidden, found), target[1]

    scored = jax.jit(nn.apply(score, case.model, mutable=["intermediates"]))
    found = find(case.variables)
    assert (found.lengths > 0).all()
    assert (found.lengths[1] <= STEPS - 2).all()
    for number in range(BEAM):
        (log_prob, mask), sown = scored(case.variables, found.tokens[:, number])
        lengths = mask.sum(axis=1)
        np.testing.assert_array_equal(found.lengths[:, number], lengths)
        attention = case.model.alignment(sown["intermediates"])
        np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-5)
        seen = (attention * mask[..., None]).sum(axis=1)
        seen = np.where(case.source_mask, seen, 1)
        coverage = np.log(np.minimum(seen, 1)).sum(axis=1)
        expected = (log_prob * mask).sum(axis=1) / ((5 + lengths) / 6) ** ALPHA
        expected += BETA * coverage
        np.testing.assert_allclose(found.scores[:, number], expected, atol=1e-4)
    for row, one in np.ndindex(B, BEAM) if rules else ():
        words = found.tokens[row, one, : found.lengths[row, one]].tolist()
        assert len(set(words)) == len(words)


@pytest.mark.parametrize(
    "name", ["rnn", pytest.param("transformer", marks=pytest.mark.slow), *names()[2:]]
)
def test_scores_of_a_language_model_equal_those_of_one_pass(name):
    """Of a beam and of samples, after prompts of two lengths."""
    case, text = LanguageModelCase(name, layers=1), tokens((B, T))
    mask = jnp.arange(T) < jnp.asarray([[T - 1], [T - 3]])
    last = jnp.take_along_axis(text, mask.sum(axis=1, keepdims=True), axis=1)[:, 0]
    constraints = DecodingConstraints(jnp.full(B, STEPS), STEPS, EOS)
    keys = jax.random.split(jax.random.key(0), B)

    @functools.partial(jax.jit, static_argnums=0)
    def find(decoding, variables):
        inputs = (text, mask, case.carry(B))
        return search(
            decoding, case.model, variables, inputs, last, constraints, keys=keys
        )

    for method in ("beam", "sample"):
        decode = decode_options(
            method=method, beam_size=BEAM, n_best=BEAM, length_penalty=0.0
        )
        found = find(DecodingConfig.from_config(decode.decode), case.variables)
        for row in range(B):
            before = int(mask[row].sum()) + 1
            for number in range(BEAM):
                length = int(found.lengths[row, number])
                whole = jnp.concatenate([text[row, :before], found.tokens[row, number]])
                whole = jnp.pad(whole, (0, T + STEPS - len(whole)))[None]
                _, logits, _ = case.run(whole, case.carry(1))
                labels = whole[0, before : before + length]
                likely = jax.nn.log_softmax(logits[0, before - 1 : before - 1 + length])
                expected = likely[jnp.arange(length), labels].sum()
                ours = found.scores[row, number]
                np.testing.assert_allclose(ours, expected, atol=1e-4)


def batch_of(case, order=(0, 1)):
    order = np.asarray(order)
    return {
        "source": np.asarray(case.source)[order],
        "source_mask": np.asarray(case.source_mask)[order],
        "reset": np.ones(len(order), bool),
        "ids": 10 + order.astype(np.int32),
    }


def translated(order=(0, 1), scored=True, **changes):
    """Returns scored translations of examples in an order."""
    case, task = translation_case()
    batch, cfg = batch_of(case, order), decode_options(**changes)
    lines = [""] * len(order)
    decoding = DecodingConfig.from_config(cfg.decode)
    decoding = decoding.with_scores if scored else decoding.single_best
    return task.translate(case.model, case.variables, (), batch, cfg, lines, decoding)[
        0
    ]


@pytest.mark.parametrize(
    "method",  # "mbr" samples, too
    [pytest.param(x, marks=[pytest.mark.slow] * (x == "sample")) for x in METHODS],
)
def test_translations_do_not_depend_on_the_batch_and_the_best_comes_first(method):
    n_best = 1 if method == "greedy" else BEAM
    found = translated(method=method, n_best=n_best)
    assert [len(row) for row in found] == [n_best, n_best]
    turned = translated((1, 0, 0), method=method, n_best=n_best)
    for ours, theirs in zip(turned, [found[1], found[0], found[0]], strict=True):
        assert [text for text, _ in ours] == [text for text, _ in theirs]
        scores = [[score for _, score in row] for row in (ours, theirs)]
        np.testing.assert_allclose(*scores, atol=1e-5)
    best = translated(method=method, n_best=n_best, scored=False)
    assert [[text for text, _ in row] for row in best] == [[row[0][0]] for row in found]


@pytest.mark.parametrize("method", METHODS)
def test_rules_that_are_off_are_no_part_of_the_program(method, monkeypatch):
    case, _ = translation_case()
    constraints = DecodingConstraints(jnp.full(B, STEPS), STEPS, EOS)

    def program(**changes):
        decoding = DecodingConfig.from_config(decode_options(**changes).decode)
        inputs = case.source, case.source_mask, case.carry(B, memory_length=0)
        arguments = (case.model, case.variables, inputs, jnp.full(B, BOS), constraints)
        keys = jax.random.split(jax.random.key(0), B)
        call = functools.partial(search, decoding, *arguments)
        return str(jax.make_jaxpr(lambda keys: call(keys=keys))(keys))

    for module in ("repetition", "diverse_beam", "minimum_bayes_risk"):
        monkeypatch.setitem(sys.modules, f"decoding.{module}", None)
    others = {"diversity_penalty": 3.0, "mbr_utility": "bleu"}
    off = {"no_repeat_ngram_size": 0, "repetition_penalty": 1.0, "beam_groups": 1}
    assert program(method=method) == program(method=method, **off, **others)
    on = [{"no_repeat_ngram_size": 2}, {"repetition_penalty": 1.1}]
    if method == "beam":
        on.append({"beam_groups": 2})
    for rule in on:
        with pytest.raises(ImportError):
            program(method=method, **rule)


def test_another_seed_gives_other_samples_and_the_same_gives_the_same():
    one, again, other = (translated(method="sample", seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_translations_begin_with_a_given_prefix():
    case, task = translation_case()
    prefix = {
        "prefix": np.asarray([[7, 9], [8, 0]]),
        "prefix_mask": np.asarray([[True, True], [True, False]]),
    }
    for method in METHODS:
        cfg = decode_options(method=method)
        decoding = DecodingConfig.from_config(cfg.decode)
        batch = batch_of(case) | prefix
        call = (case.model, case.variables, (), batch, cfg, ["", ""], decoding)
        ([(one, _)], [(other, _)]), _ = task.translate(*call)
        assert one.startswith("7 9")
        assert other.startswith("8")


def test_lines_are_translated_in_order_and_blank_ones_stay_blank():
    case, _ = translation_case()
    words = WordTokenizer(["<pad>", "<eos>", "<unk>", "<bos>", *map(str, range(4, W))])
    task = translation.Task({"source": words, "target": IdTokenizer(V)})
    lines = ["5 6 7", " ", "9", "5 6 7 11 12"]
    cfg = decode_options(method="beam", beam_size=BEAM, n_best=2)
    whole = list(task.predict_n_best(case.model, case.variables, iter(lines), cfg))
    assert [len(row) for row in whole] == [2, 0, 2, 2]
    best = list(task.predict(case.model, case.variables, iter(lines), cfg))
    assert best == [row[0][0] if row else "" for row in whole]
    (alone,) = task.predict(case.model, case.variables, iter(lines[2:3]), cfg)
    assert alone == best[2]


def test_continuations_of_a_line_are_ranked_and_need_no_source():
    case, task = LanguageModelCase("rnn", layers=1), language_modeling_task()
    cfg = decode_options(method="beam", beam_size=BEAM, n_best=BEAM)
    (found,) = task.predict_n_best(case.model, case.variables, ["5 6 7"], cfg)
    assert len({text for text, _ in found}) == BEAM
    assert sorted(found, key=lambda pair: -pair[1]) == found
    assert list(task.predict(case.model, case.variables, ["5 6 7"], cfg)) == [
        found[0][0]
    ]
    for changes in (
        {"replace_unknown": True},
        {"method": "beam", "coverage_penalty": 0.2},
    ):
        with pytest.raises(UserError, match="language models have none"):
            next(
                task.predict(
                    case.model, case.variables, ["5"], decode_options(**changes)
                )
            )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method": "bean"},
            "Unknown decode.method 'bean'; choose one of greedy, beam, sample, mbr",
        ),
        (
            {"mbr_utility": "ter"},
            "Unknown decode.mbr_utility 'ter'; choose one of chrf, bleu",
        ),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size=-1 must be 0 or more"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0 must be in 0.01 to 100"),
        ({"beam_groups": 0}, "decode.beam_groups=0 must be 1 or more"),
        (
            {"method": "beam", "beam_groups": 3},
            "decode.beam_groups=3 must divide decode.beam_size=4",
        ),
        (
            {"method": "beam", "beam_groups": 2, "diversity_penalty": 0.0},
            "decode.diversity_penalty=0.0 must be above 0 for decode.beam_groups=2",
        ),
        (
            {"method": "mbr", "n_best": 33},
            "decode.n_best=33 must be at most decode.mbr_samples=32",
        ),
        (
            {"method": "mbr", "temperature": 0.0},
            "decode.temperature=0.0 must be above 0 for decode.method='mbr'",
        ),
        ({"beam_size": 0}, "decode.beam_size=0 must be 1 or more"),
        (
            {"method": "beam", "beam_size": 30},
            "must be at most the 29 tokens",
        ),
        (
            {"method": "beam", "n_best": 5},
            "decode.n_best=5 must be at most decode.beam_size=4",
        ),
        ({"n_best": 2}, "decode.n_best=2 must be 1 for decode.method='greedy'"),
        ({"min_length": 6}, "decode.min_length=6 must be below decode.max_length=6"),
        ({"coverage_penalty": -0.1}, "must be in 0 to 100"),
        ({"length_penalty": float("nan")}, "must be in -100 to 100"),
        ({"temperature": -1.0}, "decode.temperature=-1.0 must be 0 or more"),
        ({"top_k": -1}, "decode.top_k=-1 must be 0 or more"),
        ({"top_p": 1.5}, "decode.top_p=1.5 must be in 0 to 1"),
        ({"top_p": 0.0}, "decode.top_p=0.0 must be above 0"),
        ({"seed": -1}, "decode.seed=-1 must be in 0"),
        ({"temperature": float("inf")}, "decode.temperature=inf must be"),
        ({"temperature": 1e7}, "temperature=10000000.0 must be at most 1000000"),
        ({"length_penalty": 100.0}, "must be in -99.6 to 99.6 for decode.max_length=6"),
        ({"length_penalty": float("inf")}, "must be in -100 to 100"),
    ],
    ids=str,
)
def test_invalid_decoding_options_are_refused_in_one_line(changes, message):
    with pytest.raises(UserError, match=message) as refused:
        check_decode(decode_options(**changes).decode, vocab_size=V)
    assert "\n" not in str(refused.value)


def test_the_protocol_names_the_search_and_only_its_active_keys():
    described = decoding_protocol(decode_options().decode)
    assert described["search"] == "greedy"
    assert described["decode"].keys() == {
        "method",
        "max_length",
        "max_length_ratio",
        "max_source_length",
        "min_length",
        "replace_unknown",
    }
    described = decoding_protocol(
        decode_options(method="beam", early_stopping=True).decode
    )
    assert described["search"] == (
        "beam, beam size 4, length penalty 0.6, coverage penalty 0.0, early stopping"
    )
    assert described["decode"]["beam_size"] == 4
    described = decoding_protocol(decode_options(method="sample", top_p=0.9).decode)
    assert described["search"] == "sample, temperature 1.0, top k 0, top p 0.9, seed 0"
    options = {"beam_groups": 2, "diversity_penalty": 0.3, "no_repeat_ngram_size": 3}
    described = decoding_protocol(decode_options(method="beam", **options).decode)
    assert options.items() <= described["decode"].items()
    assert "repetition_penalty" not in described["decode"]
    assert described["search"].endswith(
        ", beam groups 2, diversity penalty 0.3, no repeat ngram size 3"
    )


def test_an_ensemble_is_a_model_whose_steps_equal_one_pass():
    """Two architectures; a beam's scores are those of the mean of distributions."""
    cases = [Seq2SeqCase(name, layers=1) for name in ("rnn", "transformer")]
    model = Ensemble(tuple(case.model for case in cases))
    variables = ensemble_variables([case.variables for case in cases])
    task = translation.Task({"source": IdTokenizer(W), "target": IdTokenizer(V)})
    cfg = decode_options(method="beam", beam_size=BEAM, n_best=BEAM, length_penalty=0.0)
    batch = batch_of(cases[0])
    carry = task.initial_carry(model, B, train=False)
    decoding = DecodingConfig.from_config(cfg.decode)
    found, _ = task.search(model, variables, carry, batch, cfg, decoding)

    def score(model, found):
        target_in, mask = decoder_inputs(found, IdTokenizer(V))
        inputs = cases[0].source, cases[0].source_mask, target_in, mask
        hidden, _ = model(*inputs, carry, train=False)
        logits = [
            member.logits(part)
            for member, part in zip(model.members, hidden, strict=True)
        ]
        return model.log_prob(hidden, found), logits, mask

    scored = jax.jit(nn.apply(score, model))
    for number in range(BEAM):
        words = found.tokens[:, number]
        log_prob, logits, mask = scored(variables, words)
        likely = [jax.nn.softmax(one) for one in logits]
        by_hand = (likely[0] + likely[1]) / 2
        expected = jnp.take_along_axis(jnp.log(by_hand), words[..., None], axis=-1)
        np.testing.assert_allclose(log_prob, expected[..., 0], atol=1e-5)
        total = (log_prob * mask).sum(axis=1)
        np.testing.assert_allclose(found.scores[:, number], total, atol=1e-4)
