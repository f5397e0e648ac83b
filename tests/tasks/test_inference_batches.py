"""Inference on lines of text: order, batches, streams, equality with evaluation."""

import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.tokenizers.base import BOS, EOS
from helpers.architectures import LanguageModelCase, Seq2SeqCase, V, W
from helpers.task_cases import (
    IdTokenizer,
    decode_options,
    language_modeling_task,
    translation_case,
)
from tasks import translation
from tasks.inference_batches import CHUNK_SIZE
from tests.tasks.test_document_translation import (
    OPTIONS,
    TEXTS,
    card_of,
    document_case,
    hypotheses_of,
    side_of,
    texts_in_order,
)
from utils import cli_inputs, memory
from utils.errors import UserError

LINES = ["5 6 7", " ", "9", "5 6 7 11 12"]


def predicted(call, lines, cfg=None, **keywords):
    case, task = translation_case()
    cfg = cfg or decode_options()
    return getattr(task, call)(case.model, case.variables, iter(lines), cfg, **keywords)


def step_by_step(source, target):
    """The log probability of a target, a token after the other."""
    case, _ = translation_case()
    source = jnp.asarray([[*source, EOS]])
    context, state = case.start(source, source > 0, (), max_steps=16)
    total, last = 0.0, BOS
    for token in [*target, EOS]:
        state, logits = case.step(context, state, jnp.asarray([[last]]))
        total, last = total + float(jax.nn.log_softmax(logits[0, 0])[token]), token
    return total


def test_scores_of_targets_equal_those_of_decoding_step_by_step():
    targets = [[8, 4], [], [20, 5, 6, 7, 8, 4, 9, 10, 11], [13]]
    lines = [
        f"{source}\t{' '.join(map(str, target))}"
        for source, target in zip(LINES, targets, strict=True)
    ]
    found = list(predicted("score_targets", lines))
    assert found[1] is None
    for number in (0, 2, 3):
        source = [int(word) for word in LINES[number].split()]
        expected = step_by_step(source, targets[number])
        np.testing.assert_allclose(found[number][0], expected, rtol=1e-5)
        assert found[number][1] == len(targets[number]) + 1


def test_scoring_a_translation_gives_the_score_of_its_search():
    cfg = decode_options(method="beam", beam_size=3, n_best=2, length_penalty=0.0)
    cfg.decode.max_length_ratio = 10.0  # so that no end is forced
    cfg.decode.max_length = 40
    for hypotheses in predicted("predict_n_best", LINES[:1], cfg):
        lines = [f"{LINES[0]}\t{text}" for text, _ in hypotheses]
        given = [score for score, _ in predicted("score_targets", lines)]
        ours = [score for _, score in hypotheses]
        np.testing.assert_allclose(given, ours, rtol=1e-4)


class PairedIds(IdTokenizer):
    """Writes the tokens 2 n and 2 n + 1 alike, as subwords may join to one text."""

    def decode(self, ids):
        return super().decode([i - i % 2 for i in ids])


def test_scoring_tokens_gives_the_score_of_their_search_where_text_may_not():
    case, _ = translation_case()
    task = translation.Task({"source": IdTokenizer(W), "target": PairedIds(V)})
    cfg = decode_options(method="beam", beam_size=4, n_best=4, length_penalty=0.0)
    cfg.decode.max_length_ratio, cfg.decode.max_length = 10.0, 40
    sources = [line for line in LINES if line.strip()]

    def found(task):
        call = case.model, case.variables, sources, cfg
        per_source = zip(sources, task.predict_n_best(*call), strict=True)
        return [(source, *one) for source, many in per_source for one in many]

    def scores(task, rows):
        lines = [f"{source}\t{text}" for source, text, _ in rows]
        scored = task.score_targets(case.model, case.variables, lines, cfg)
        return [score for score, _ in scored]

    with_ids = task.with_token_ids()
    rows, rows_of_ids = found(task), found(with_ids)
    of_search = [score for *_, score in rows]
    assert of_search == [score for *_, score in rows_of_ids]
    np.testing.assert_allclose(scores(with_ids, rows_of_ids), of_search, rtol=1e-4)
    is_exact = [row == ids for row, ids in zip(rows, rows_of_ids, strict=True)]
    assert any(is_exact)
    assert not all(is_exact)
    is_equal = np.isclose(scores(task, rows), of_search, rtol=1e-4)
    assert is_equal.tolist() == is_exact


@pytest.mark.parametrize("text", ["5 x", "-1", "5 99999"])
def test_tokens_that_are_no_ids_of_the_vocabulary_are_refused(text):
    with pytest.raises(UserError, match="must be token ids, numbers of 0 to 6 "):
        IdTokenizer(7).with_token_ids().encode(text)


def test_token_ids_of_a_language_model_are_read_and_written():
    case, task = LanguageModelCase("rnn", layers=1), language_modeling_task()
    words, ids = (
        list(one.predict(case.model, case.variables, ["5 6"], decode_options()))
        for one in (task, task.with_token_ids())
    )
    assert words[0].split() == ids[0].split()
    assert ids[0] == ids[0].strip() != ""


@pytest.mark.parametrize(
    "call", ["predict", pytest.param("score_targets", marks=pytest.mark.slow)]
)
def test_lines_too_long_for_the_memory_are_refused(call, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**7)
    refusal = pytest.raises(UserError, match=r"^\d+ x \d+ tokens at once need .* GB")
    cfg, long = decode_options(), "5 " * 2000
    cfg.data.segment_length = 2**12
    case = LanguageModelCase("transformer", layers=2)
    lines = getattr(language_modeling_task(), call)
    with refusal:
        next(lines(case.model, case.variables, [long], cfg))
    case = Seq2SeqCase("transformer", layers=2)
    task = translation.Task({"source": IdTokenizer(W), "target": IdTokenizer(V)})
    cfg.data.max_length = 4000
    line = f"5\t{long}" if call == "score_targets" else long
    with refusal:
        next(getattr(task, call)(case.model, case.variables, [line], cfg))


def test_translations_begin_with_the_prefix_after_the_tab():
    lines = [f"{line}\t{begin}" for line, begin in zip(LINES, "4789", strict=True)]
    found = list(predicted("predict", lines, prefix=True))
    assert [text[:1] for text in found] == ["4", "", "8", "9"]
    free = list(predicted("predict", LINES))
    first = [" ".join(text.split()[:1]) for text in free]
    again = [f"{line}\t{begin}" for line, begin in zip(LINES, first, strict=True)]
    assert list(predicted("predict", again, prefix=True)) == free


def test_a_line_without_a_tab_is_refused_with_its_number():
    lines = predicted("score_targets", ["5\t6", "", "7"])
    with pytest.raises(UserError, match=r"line 3 .* no tab; .* a tab and its target"):
        list(lines)


def test_lines_are_read_no_further_than_needed():
    for size, most in ((1, 1), (CHUNK_SIZE, CHUNK_SIZE)):
        read = []
        endless = (read.append(n) or "5 6" for n in itertools.count())
        found = predicted("predict", endless, chunk_size=size)
        next(found)
        assert len(read) == most


def test_too_long_a_line_is_truncated_with_a_warning(capsys):
    cfg = decode_options()
    cfg.data.max_length = 6
    found = list(predicted("predict", ["5 6", "5 6 7 11 12 9 8"], cfg))
    assert capsys.readouterr().err == (
        "line 2: truncated from 7 to 5 tokens (decode.max_source_length or "
        "data.max_length is 6, with the end symbol)\n"
    )
    assert found[1] == next(predicted("predict", ["5 6 7 11 12"], cfg))
    next(predicted("predict", ["5 6 7 11 12"], cfg))
    assert not capsys.readouterr().err


def document_lines():
    """The sources of three documents with blank lines between them."""
    batches = texts_in_order()
    for number, name in enumerate(TEXTS):
        if number and name != TEXTS[number - 1]:
            yield ""
        tokens = side_of(batches.source, number)[:-1]
        yield " ".join(map(str, tokens.tolist()))


def read_documents(**keywords):
    case, task = document_case("transformer_xl")
    sides = {"source": IdTokenizer(task.source.vocab_size), "target": IdTokenizer(V)}
    task = translation.Task(sides, document_order=True)
    return list(
        task.predict(case.model, case.variables, document_lines(), OPTIONS, **keywords)
    )


def test_documents_as_lines_are_translated_as_in_an_evaluation():
    found = read_documents(document_order=True)
    blank = [number for number, line in enumerate(document_lines()) if not line]
    assert [number for number, line in enumerate(found) if not line] == blank
    without_ends = [
        text.removesuffix(str(EOS)).strip()
        for text in hypotheses_of(card_of("transformer_xl"))
    ]
    assert [line for line in found if line] == without_ends
    assert read_documents() != found  # each alone


def test_a_model_without_memory_translates_lines_independently_with_a_warning(capsys):
    found = list(predicted("predict", LINES, document_order=True))
    assert "has no memory" in capsys.readouterr().err
    assert found == list(predicted("predict", LINES))


def test_the_score_of_a_text_does_not_depend_on_the_segment_length():
    case, task = LanguageModelCase("rnn", layers=1), language_modeling_task()
    cfg = decode_options()
    lines = ["5 6 7 8 9 10 11", "", "4"]
    for cfg.data.segment_length in (4, 8):
        found = list(task.score_targets(case.model, case.variables, lines, cfg))
        assert found[1] is None
        for line, scored in zip(lines[::2], found[::2], strict=True):
            text = jnp.asarray([[EOS, *map(int, line.split()), EOS]])
            _, logits, _ = case.run(text[:, :-1], case.carry(1))
            likely = jax.nn.log_softmax(logits[0])
            expected = sum(float(likely[i, t]) for i, t in enumerate(text[0, 1:]))
            np.testing.assert_allclose(scored[0], expected, rtol=1e-5)
            assert scored[1] == text.shape[1] - 1


def test_language_models_skip_blank_lines_and_refuse_options_of_translation():
    case, task = LanguageModelCase("rnn", layers=1), language_modeling_task()
    call = case.model, case.variables, ["5", " ", "6"], decode_options()
    assert list(task.predict(*call))[1] == ""
    for keywords in ({"document_order": True}, {"prefix": True}):
        with pytest.raises(UserError, match="is for translation"):
            next(task.predict(*call, **keywords))


class Terminal(io.BytesIO):
    def isatty(self):
        return True


def test_a_terminal_is_prompted_before_each_line(capsys):
    lines = cli_inputs.read_lines(Terminal(b"one\ntwo\n"))
    assert next(lines) == "one"
    assert capsys.readouterr().err == "> "
    assert list(lines) == ["two"]
    assert capsys.readouterr().err == "> > \n"
    assert list(cli_inputs.read_lines(io.BytesIO(b"one\ntwo"))) == ["one", "two"]
    windows = b"\xef\xbb\xbfone\r\n\r\ntwo\r\r\n"
    assert list(cli_inputs.read_lines(io.BytesIO(windows))) == ["one", "", "two\r"]
    assert not capsys.readouterr().err
