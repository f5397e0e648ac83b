"""Tests of the log probabilities of tokens, and of their page, for untrained runs."""

import dataclasses
import functools
import itertools
import json
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.imported_run import write_run
from analysis.token_scores import render, scoring
from analysis.token_scores.comparison import Comparison, check_tasks, compare
from analysis.token_scores.scoring import ScoredLine, ScoredRun, Scores, score_run
from analysis.token_scores.tokens import Piece, align_words, show, token_pieces
from data.tokenizers.build import train_tokenizer
from data.tokenizers.normalization import Normalizer
from data.tokenizers.symbols import ByteTokenizer, CharTokenizer, WordTokenizer
from helpers.architectures import LanguageModelCase, V, names, only
from helpers.entry_points import assert_refused, run
from helpers.exported_runs import random_run, tokenizers_of
from utils.errors import UserError

LINES = ["w1 w2 w3", "unheard w2 w4 w5 w6 w7 w8 w9 w1 w2 w3 w4", "w5"]
PAIRS = ["w1 w2 w3\tw4 w5", "w2\tw1 w2 w3 w4 unheard", "w7 w8\t"]
TASKS = {
    "language_modeling": LINES,
    "translation": PAIRS,
    "masked_language_modeling": LINES,
}
SENTENCES = ["The quick brown fox jumps over the lazy dog.", "Ein naïver Hut, €12!"]
KINDS = ["byte", "char", "word", "sentencepiece", "wordpiece"]


@functools.cache
def trained(kind):
    return train_tokenizer(kind, SENTENCES, 120, 1)


@functools.cache
def made(task, model, folder="unused", **changes):
    return random_run(folder, task, model, **changes)


def scored(run, lines, name="a", **options):
    return score_run(run, name, lines, **{"top": 3, **options})


def log_softmax(logits):
    logits = np.asarray(logits, float)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def whole_logits(run, line):
    """Logits of each token of a line alone, of one pass without batches or padding."""
    task, model = run.experiment.task, run.experiment.evaluation_model
    if task.model_class == "LanguageModel":
        ids = [*task.tokenizer.encode(line), 1]
        inputs = (jnp.asarray([[1, *ids[:-1]]]), model.initial_carry(1, train=False))
    else:
        source, _, target = line.partition("\t")
        source, ids = [*task.source.encode(source), 1], [*task.target.encode(target), 1]
        carry = task.initial_carry(model, 1, train=False)
        arrays = jnp.asarray([source]), jnp.ones((1, len(source)), bool)
        arrays += jnp.asarray([[3, *ids[:-1]]]), jnp.ones((1, len(ids)), bool)
        inputs = (*arrays, carry)

    def logits(model):
        return model.logits(model(*inputs, train=False)[0])

    return ids, run_model(model, logits, run.variables)[0]


def run_model(model, function, variables):
    return jax.jit(nn.apply(function, model))(variables)


FAST = {("language_modeling", "transformer_xl"), ("translation", "rnn")}


@pytest.mark.parametrize(
    ("task", "model"),
    [
        pytest.param(*x, marks=[pytest.mark.slow] * (x not in FAST))
        for x in itertools.product(("language_modeling", "translation"), names())
    ],
)
def test_scores_are_the_log_softmax_of_the_logits(task, model):
    run = made(task, model)
    # Within one segment of 8 tokens.
    lines = ["w1 w2 unheard w3"] if task == "language_modeling" else PAIRS
    for line, found in zip(lines, scored(run, lines).lines, strict=True):
        ids, logits = whole_logits(run, line)
        expected = log_softmax(logits)
        own = expected[np.arange(len(ids)), ids]
        assert found.ids == ids
        np.testing.assert_allclose(found.scores.log_probs, own, atol=1e-5)
        assert expected.std() > 1e-2
        ranks = 1 + (expected > own[:, None]).sum(axis=-1)
        np.testing.assert_array_equal(found.scores.ranks, ranks)
        order = np.argsort(-expected, axis=-1)[:, :3]
        np.testing.assert_array_equal(found.scores.top_ids, order)
        np.testing.assert_array_equal(
            found.scores.top_ids[:, 0], expected.argmax(axis=-1)
        )
        best = np.take_along_axis(expected, order, axis=-1)
        np.testing.assert_allclose(found.scores.top_log_probs, best, atol=1e-5)
        assert (np.diff(found.scores.top_log_probs) <= 0).all()


@pytest.mark.parametrize("model", only("transformer_xl"))
def test_sums_of_a_language_model_are_those_of_predict(model):
    run = made("language_modeling", model)
    # The second line spans segments.
    for line in LINES:
        [(expected, num_tokens)] = run.experiment.task.score_targets(
            *run.inputs([line])
        )
        totals = scored(run, [line]).totals
        assert totals["tokens"] == num_tokens
        assert totals["log_prob"] == pytest.approx(expected, abs=1e-4)
        assert totals["loss"] == pytest.approx(-expected / num_tokens, abs=1e-5)
        bits = -expected / np.log(2) / (len(line) + 1)
        assert totals["bits_per_character"] == pytest.approx(bits, abs=1e-5)


@pytest.mark.parametrize("model", only("rnn", "transformer"))
def test_scores_of_translations_are_those_of_predict(model):
    run = made("translation", model)
    expected = run.experiment.task.score_targets(*run.inputs(PAIRS))
    for line, (log_prob, num_tokens) in zip(
        scored(run, PAIRS).lines, expected, strict=True
    ):
        assert len(line.ids) == num_tokens == len(line.pieces)
        assert line.scores.log_probs.sum() == pytest.approx(log_prob, abs=1e-4)


def test_lines_of_a_language_model_are_one_text_with_its_memory():
    run = made("language_modeling", "transformer_xl")
    whole = scored(run, LINES).lines[1].scores.log_probs
    alone = scored(run, LINES[1:2]).lines[0].scores.log_probs
    assert np.abs(whole - alone).max() > 1e-3
    first = scored(run, LINES[:1]).lines[0].scores.log_probs
    np.testing.assert_allclose(
        scored(run, LINES).lines[0].scores.log_probs, first, atol=1e-5
    )


def test_a_memory_of_0_forgets_earlier_segments():
    run = made("language_modeling", "transformer_xl")
    forgetful = made("language_modeling", "transformer_xl", **{"eval.memory_length": 0})
    one, two = scored(run, LINES), scored(forgetful, LINES, "b")
    [first, *rest] = np.split(np.concatenate(compare(one, two).differences), [8])
    np.testing.assert_allclose(first, 0, atol=1e-5)
    assert np.abs(rest[0]).max() > 1e-3
    assert "a memory of" in one.context
    assert "each without those before it" in two.context


def test_windows_give_every_token_its_context():
    changes = {"eval.window": 8, "eval.stride": 2}
    run = made("language_modeling", "transformer", **changes)
    found = scored(run, LINES[1:2])
    assert found.context == "sliding windows of 8 tokens, 2 apart"
    ids = found.lines[0].ids
    assert len(found.lines[0].scores.log_probs) == len(ids) == 13
    logits = []
    stream = [1, *ids]

    def read(model, row, last):
        return model.logits(model(row, (), train=False)[0])[0, last]

    logits_of = jax.jit(nn.apply(read, run.experiment.evaluation_model))
    for position in range(13):
        end = max(8, position + 1 + (position % 2 == 0 and position >= 8))
        end = min(end, 13)
        start = max(0, end - 8) if end < 13 else 6
        tokens = [*stream[start : position + 1], *[0] * 8][:8]  # not seen: the end
        row = jnp.asarray([tokens])
        logits.append(logits_of(run.variables, row, position - start))
    expected = log_softmax(np.asarray(logits))[np.arange(13), ids]
    np.testing.assert_allclose(found.lines[0].scores.log_probs, expected, atol=1e-5)


def test_each_token_of_a_masked_model_is_masked_in_turn():
    run = made("masked_language_modeling", "transformer")
    task, model = run.experiment.task, run.experiment.model
    lines = [LINES[0], LINES[2]]

    def logits(model, *inputs):
        return model.logits(model(*inputs, train=False)[0][0])

    logits_of = jax.jit(nn.apply(logits, model))
    for line, found in zip(lines, scored(run, lines).lines, strict=True):
        ids = task.tokenizer.encode(line)
        assert found.ids == ids
        for place, number in enumerate(ids):
            masked = [3, *ids, 1]
            masked[1 + place] = task.tokenizer.tags["<mask>"]
            tokens, carry = jnp.asarray([masked]), model.initial_carry(1, train=False)
            inputs = tokens, jnp.zeros_like(tokens), jnp.ones_like(tokens, bool)
            inputs = *inputs, jnp.asarray([[1 + place]]), carry
            expected = log_softmax(logits_of(run.variables, *inputs))[0, 0]
            assert found.scores.log_probs[place] == pytest.approx(
                expected[number], abs=1e-5
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalizer", [Normalizer(), Normalizer("en", moses=True)])
def test_there_is_a_piece_for_each_token_and_all_characters_are_in_one(
    kind, normalizer
):
    tokenizer = trained(kind).with_normalizer(normalizer)
    for text in (*SENTENCES, "two  spaces\tand ünheard 犬 ", ""):
        pieces = token_pieces(tokenizer, text)
        assert len(pieces) == len(tokenizer.encode(text))
        found = "".join(piece.characters for piece in pieces)
        assert found == "".join(normalizer.apply(text).split())


def test_white_space_and_unknown_words_are_visible():
    words = token_pieces(WordTokenizer.from_tokens(["a"]), "a odd")
    assert words == [Piece("a", False, "a"), Piece("odd", True, "odd")]
    text = "".join(p.text for p in token_pieces(CharTokenizer.from_tokens("a"), "a \n"))
    assert show(text) == "a␣⏎"
    assert [p.text for p in token_pieces(ByteTokenizer(), "é")] == ["\\xc3", "é"]


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_words_of_two_tokenizers_are_aligned(first, second):
    tokenizers = trained(first), trained(second)
    for text in SENTENCES:
        sides = [token_pieces(tokenizer, text) for tokenizer in tokenizers]
        spans = align_words(*sides, (text, text))
        assert spans[-1] == (len(sides[0]), len(sides[1]))
        assert len(spans) == len(text.split())
        for side, ends in zip(sides, zip(*spans, strict=True), strict=True):
            bounds = zip([0, *ends], ends, strict=False)
            words = ["".join(p.characters for p in side[a:b]) for a, b in bounds]
            assert words == text.split()


def test_spans_of_words_sum_to_the_whole_text():
    words, letters = made("language_modeling", "rnn"), with_letters()
    lines = ["w1 w2", "w33 w4 w5"]
    one, two = scored(words, lines), scored(letters, lines, "b")
    compared = compare(one, two)
    assert compared.unit == "word"
    assert [len(spans) for spans in compared.spans] == [3, 4]  # with the end
    difference = one.totals["log_prob"] - two.totals["log_prob"]
    total = sum(one.sum() for one in compared.differences)
    assert total == pytest.approx(difference, abs=1e-9)
    second = compared.spans[0][1]
    assert second == (2, 5)  # "w1", then " w2"
    own = two.lines[0].scores.log_probs[2:5].astype(float).sum()
    expected = float(one.lines[0].scores.log_probs[1]) - own
    assert compared.differences[0][1] == pytest.approx(expected, abs=1e-9)


def test_differences_of_tokens_are_those_of_their_log_probabilities():
    one = scored(made("translation", "rnn"), PAIRS)
    two = scored(made("translation", "transformer"), PAIRS, "b")
    compared = compare(one, two)
    assert compared.unit == "token"
    for line, (first, second) in enumerate(zip(one.lines, two.lines, strict=True)):
        np.testing.assert_allclose(
            compared.differences[line],
            first.scores.log_probs - second.scores.log_probs,
            atol=1e-6,
        )


def test_texts_that_are_normalized_in_different_ways_are_refused():
    run = made("language_modeling", "rnn")
    one, two = scored(run, ["w1 w2"]), scored(with_letters(), ["w1 w3"], "b")
    with pytest.raises(UserError, match=r"a and b normalize or cut 'w1 w2'"):
        compare(one, two)


@functools.cache
def with_letters():
    """A language model of characters with random parameters."""
    run = made("language_modeling", "rnn")
    symbols = [*"w0123456789 ", *(chr(0x100 + i) for i in range(V - 16))]
    tokenizer = CharTokenizer.from_tokens(symbols)
    case = LanguageModelCase("rnn")
    task = type(run.experiment.task)({"text": tokenizer})
    experiment = dataclasses.replace(
        run.experiment, task=task, model=case.model, tokenizers={"text": tokenizer}
    )
    return dataclasses.replace(run, experiment=experiment, variables=case.variables)


def fake_run(lines, name="<b>a</b>", seed=0):
    """Random scores of lines of words."""
    tokenizer = WordTokenizer.from_tokens(["</script><script>alert(1)//", "w"])
    noise, found = np.random.default_rng(seed), []
    for line in lines:
        ids = [*tokenizer.encode(line), 1]
        top = np.sort(noise.normal(-4, 1, (len(ids), 3)))[:, ::-1]
        ranks, top_ids = np.ones(len(ids), int), np.tile([0, 4, 5], (len(ids), 1))
        scores = Scores(top[:, 0].astype(np.float32), ranks, top_ids, top)
        pieces = [*token_pieces(tokenizer, line), Piece("<eos>", False, "<eos>")]
        found.append(ScoredLine("<i>", line, ids, pieces, scores))
    task = type("Task", (), {"tokenizer": tokenizer, "output_tokenizer": "tokenizer"})
    experiment = type("Experiment", (), {"task": task})
    run = type("Run", (), {"experiment": experiment})
    return ScoredRun(name, run, found, "nothing")


def content_of(page):
    [document] = re.findall(r'<script type="application/json"[^>]*>(.*)</script>', page)
    return json.loads(document)


def test_a_page_escapes_texts_and_loads_nothing():
    run = fake_run(["</script><script>alert(1)// w", "<img src=x> w"])
    page = render.render_page(render.page_content([run], None, 3))
    assert page.count("<script") == page.count("</script>") == 2
    assert "<b>a" not in page
    assert "<img" not in page
    assert "&lt;b&gt;a" in page
    markup = re.sub('<script type="application/json".*?</script>', "", page)
    for word in ("http:", "https:", "src=", "@import", "url(", "<link", "fetch("):
        assert word not in markup
    content = content_of(page)
    assert content["runs"][0]["lines"][1]["unknown"] == [0, 1]
    labels = [content["labels"][i] for i in content["runs"][0]["lines"][0]["pieces"]]
    assert labels == ["</script><script>alert(1)//", "w", "<eos>"]


def test_a_page_holds_the_numbers_of_both_runs():
    runs = [fake_run(["w w w"], "a", 1), fake_run(["w w w"], "b", 2)]
    spans = [[(i, i) for i in range(1, 5)]]
    compared = Comparison(tuple(runs), "token", spans)
    page = render.render_page(render.page_content(runs, compared, 3))
    content = content_of(page)
    one, two = (run["lines"][0]["log_probs"] for run in content["runs"])
    np.testing.assert_allclose(
        content["differences"][0], np.subtract(one, two), atol=1e-3
    )
    assert f"{runs[0].totals['log_prob']:.4f}" in page
    assert content["scale"] in render.SCALES
    top = content["runs"][1]["lines"][0]["top"][0]
    assert [content["labels"][i] for i in top[::2]] == [
        *("<pad>", "</script><script>alert(1)//", "w")
    ]
    assert top[1::2] == sorted(top[1::2], reverse=True)


def test_a_page_of_10000_tokens_stays_small():
    run = fake_run(["w odd " * 50] * 100)
    page = render.render_page(render.page_content([run, run], None, 5))
    assert len(page) < 3e6


def test_too_long_a_text_is_refused(monkeypatch):
    monkeypatch.setattr(scoring, "MAX_TOKENS", 5)
    with pytest.raises(UserError, match=r"19 tokens, and a page shows 5"):
        scored(made("language_modeling", "rnn"), LINES)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run directory of a language model with a memory."""
    folder = tmp_path_factory.mktemp("scores")
    run = random_run(folder, "language_modeling", "transformer_xl")
    cfg, params = run.experiment.cfg, jax.tree.map(np.asarray, run.variables["params"])
    write_run(str(folder / "run"), cfg, params, tokenizers_of(cfg.task)["text"], {})
    return folder / "run"


def test_the_command_writes_a_page_whose_sums_are_those_of_predict(workdir, tmp_path):
    script = "analysis/token_scores/__main__.py"
    flags = f"--workdir={workdir}", f"--output={tmp_path / 'page.html'}"
    text = " ".join(LINES).encode() + b"\n"
    done = run(script, *flags, "--against_eval.memory_length=0", given=text)
    assert done.returncode == 0, done.stderr.decode()
    scores = run("predict.py", flags[0], "--score", given=text).stdout.decode().split()
    first, second, path = done.stdout.decode().splitlines()
    name, numbers = first.split(": ")
    assert name == "run, step 0"
    assert float(numbers.split()[0]) == pytest.approx(float(scores[0]), abs=2e-4)
    assert numbers.split()[2] == scores[1]
    assert second.startswith("run, memory_length=0, step 0: ")
    content = content_of((tmp_path / "page.html").read_text("utf8"))
    assert path == str(tmp_path / "page.html")
    assert content["unit"] == "token"
    assert np.abs(content["differences"][0]).max() > 1e-2


def test_mistakes_are_refused_in_one_line(workdir, tmp_path):
    script, output = "analysis/token_scores/__main__.py", tmp_path / "page.html"
    refused = functools.partial(run, script, f"--output={output}")
    own = f"--workdir={workdir}"
    assert_refused(refused(own), "has no text")
    assert_refused(refused(own, given=b"\n \n"), "has no text")
    assert_refused(refused(own, "--text=nowhere.txt"), "nowhere.txt")
    assert_refused(refused(f"--workdir={tmp_path}", given=b"w1"), "no run in")
    same = f"--against={workdir}"
    assert_refused(refused(own, same, given=b"w1"), "is the run itself")
    flag = "--eval.clamp_length=x"
    assert_refused(refused(own, flag, given=b"w1"), "clamp_length")
    assert_refused(refused(own, "--eval.window=8", given=b"w1"), "without a carry")
    assert_refused(refused(own, "--top=0", given=b"w1"), "--top")
    output.write_text("")
    assert_refused(refused(own, given=b"w1"), "exists")
    elsewhere = f"--output={tmp_path / 'no' / 'page.html'}"
    assert_refused(run(script, own, elsewhere, given=b"w1"), "no folder")


def test_runs_without_likelihoods_and_of_other_tasks_are_refused():
    with pytest.raises(UserError, match=r"task='classification', which predicts no"):
        scored(made("classification", "rnn"), LINES)
    with pytest.raises(UserError, match=r"line 1 of the input has no tab"):
        scored(made("translation", "rnn"), LINES)
    runs = made("translation", "rnn"), made("language_modeling", "rnn")
    with pytest.raises(UserError, match=r"translation and .* has task language_mod"):
        check_tasks(*runs)
