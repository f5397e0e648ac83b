"""Faults that are planted in a run, and what the report says of each."""

import json
import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from analysis.explain.explanation import explain
from analysis.explain.report import format_report
from experiment import train
from helpers.entry_points import assert_refused, run
from helpers.planted_faults import with_batch, with_parameter
from helpers.small_runs import config
from helpers.text_runs import train_text
from models.common.layers import FeedForward
from models.rnn.cells import GRU
from training.loop import ExitStatus

STEPS, CHECKPOINT = 4, 3
CHANGES = {
    "model.dropout": 0.1,
    "every.log": 1,
    "every.eval": 0,
    "every.checkpoint": CHECKPOINT,
    "eval.batch_size": 64,
    "eval.segment_length": 64,
    "decode.max_length": 2,
    "optim.name": "sgd",
    "optim.clip_norm": 0.0,
}
XL = {"model.layers": 2, "data.batch_size": 8}
PAIRS = {"data.tokens_per_batch": 128}


def trained(data_dir, folder, corpus, model, **changes):
    cfg = config(corpus, model, data_dir, steps=STEPS, **{**CHANGES, **changes})
    assert train.train(cfg, folder / model) is ExitStatus.FINISHED
    return folder / model


@pytest.fixture(scope="module")
def xl(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("xl")
    return trained(data_dir, folder, "python_stdlib", "transformer_xl", **XL)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A run of a Transformer, which has fewer operations than the others.

    Each operation is compiled for each shape, so sizes are equal where they can be.
    """
    sizes = ("data.batch_size", "data.vocab_size", "model.width", "model.feed_forward")
    changes = {**CHANGES, "steps": STEPS, "model.dropout": 0.0}
    changes |= dict.fromkeys(sizes, 8)
    return train_text(tmp_path_factory.mktemp("text"), "run", **changes)


@pytest.fixture(scope="module")
def rnn(data_dir, tmp_path_factory):
    return trained(data_dir, tmp_path_factory.mktemp("rnn"), "cldr", "rnn", **PAIRS)


@pytest.fixture(scope="module")
def transformer(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformer")
    return trained(data_dir, folder, "cldr", "transformer", **PAIRS)


def report(workdir, step=STEPS, **options):
    """The explanation of a step, and its report."""
    explanation = explain(str(workdir), step, **options)
    return explanation, format_report(explanation)


@pytest.mark.slow
def test_a_sound_step_has_no_cause(xl):
    explanation, text = report(xl, with_rows=False)
    assert explanation.examination.is_finite
    assert explanation.reference.step == STEPS - 1
    assert explanation.cause is None
    assert "no operation computed values far larger" in text
    rows = map(json.loads, (xl / "metrics.jsonl").open())
    logged = {row["step"]: row["loss"] for row in rows if row["split"] == "train"}
    assert explanation.examination.loss == pytest.approx(logged[STEPS], rel=1e-5)


@pytest.mark.slow
def test_a_head_whose_logits_overflow_is_named(xl, tmp_path):
    def without_scale(kernel):  # [D, H, K]
        kernel[:, 2] *= 1e38

    name = "stack/layers_1/self_attention/query/kernel"
    args = xl, tmp_path / "run", CHECKPOINT, name, without_scale
    explanation, text = report(with_parameter(*args), with_rows=False)
    assert not explanation.examination.is_finite
    assert f"first extreme values: parameter {name}, before the step" in text
    assert "\n  head 2\n" in text
    assert "dot_general in stack/layers_1/self_attention/query, forward" in text


def scaled_head(monkeypatch, layer, head):
    """Plants attention logits that lack their scale in a head of a layer."""
    from models.attention.multi_head import MultiHeadAttention

    project = MultiHeadAttention.project_query

    def plant(self, *args, **options):
        query = project(self, *args, **options)
        if layer in self.path:
            query = query.at[:, head].multiply(3e38).at[:, head].multiply(1e3)
        return query

    monkeypatch.setattr(MultiHeadAttention, "project_query", plant)


@pytest.mark.slow
def test_an_operation_of_one_head_is_named(xl, monkeypatch):
    scaled_head(monkeypatch, "layers_1", 2)
    explanation, text = report(xl, with_rows=False)
    assert text.split("\n\n")[1].startswith(
        "first bad operation: scatter-mul in stack/layers_1/self_attention, forward"
    )
    assert "\n  head 2\n" in text
    assert explanation.cause.operation.source.startswith("tests/analysis/explain/")


@pytest.mark.parametrize(
    ("model", "step"),  # before step 2 there is but one step to compare with
    [("text", 2), pytest.param("xl", STEPS, marks=pytest.mark.slow)],
)
def test_a_nan_in_one_layer_is_named_with_its_row_and_position(
    model, step, request, monkeypatch
):
    workdir, up = request.getfixturevalue(model), FeedForward.__call__

    def plant(self, x, *args, **options):
        if "layers_0" in self.path:
            is_bad = (jnp.arange(x.shape[0]) == 5)[:, None] & (
                jnp.arange(x.shape[1]) == 7
            )
            x = x * jnp.sqrt(jnp.where(is_bad, -1.0, 1.0))[..., None]
        return up(self, x, *args, **options)

    monkeypatch.setattr(FeedForward, "__call__", plant)
    _, text = report(workdir, step, with_rows=False)
    cause = text.split("\n\n")[1]
    assert cause.startswith("first bad operation: sqrt in stack/layers_0, forward")
    assert "\n  row 5\n" in cause
    assert re.search(r"\n  position 7: '.+'\n", cause)
    assert re.search(r"\n    row 5, text: '.+'", cause)


@pytest.mark.slow
def test_a_batch_with_one_poisoned_sentence_is_named(rnn, tmp_path):
    def poison(batch):
        batch["labels"][3] = 450
        batch["weights"][3] = 1
        batch["target_mask"][3] = True

    args = rnn, tmp_path / "run", STEPS, poison
    explanation, text = report(with_batch(*args))
    assert "batch: kept in replay/" in text
    assert explanation.groups[0].rows == (3,)
    file = f"{args[1]}/replay/steps-{STEPS}-{STEPS}.npz"
    named = explain(str(rnn), STEPS, batches=file, with_rows=False)
    assert named.examination.loss == explanation.examination.loss
    norms = [group.gradient_norm for group in explanation.groups]
    assert norms[0] > 2 * norms[1]
    assert re.search(r"\n    row 3, source: '.+'\n    row 3, target: '", text)


@pytest.mark.slow
def test_a_batch_with_a_nan_is_named(rnn, tmp_path):
    def poison(batch):
        batch["weights"][3, 1] = np.nan

    explanation, text = report(with_batch(rnn, tmp_path / "run", STEPS, poison))
    assert "first bad values: batch weights, before the step" in text
    assert "\n  row 3\n  position 1: '" in text
    assert explanation.rest[0] == [3]
    assert re.search(r"\n  3 +nan +nan +- ", text)
    assert re.search(r"\n  without row 3: loss \d", text)


@pytest.mark.slow
def test_exploding_gradients_of_a_recurrent_layer_are_named(rnn, tmp_path):
    def explode(kernel):
        kernel *= 40

    name = "decoder/cells_0/recurrent"
    args = rnn, tmp_path / "run", CHECKPOINT, name, explode
    explanation, text = report(with_parameter(*args), with_rows=False)
    assert f"first extreme values: parameter {name}, before the step" in text
    assert "in decoder/cells_0, forward, loop iteration 0" in text
    norms = [
        one.gradient_norm
        for one in (explanation.examination, explanation.reference.examination)
    ]
    assert norms[0] > 10 * norms[1]


@pytest.mark.slow
def test_a_nan_in_an_iteration_of_a_scan_is_named(rnn, monkeypatch):
    step = GRU.step

    def plant(self, state, projected, recurrent):
        state = step(self, state, projected, recurrent)
        if "decoder" in self.path:
            is_bad = jnp.arange(len(state)) == 2
            sign = jnp.where(is_bad, -1.0, 1.0).reshape(-1, *[1] * (state.ndim - 1))
            state *= jnp.sqrt(sign * (1 + jnp.abs(state)))
        return state

    monkeypatch.setattr(GRU, "step", plant)
    _, text = report(rnn, with_rows=False)
    cause = text.split("\n\n")[1]
    assert cause.startswith(
        "first bad operation: sqrt in decoder, forward, loop iteration 0\n"
    )
    assert "\n  row 2\n" in cause


@pytest.mark.slow
def test_an_infinite_row_of_an_embedding_is_named_with_its_token(transformer, tmp_path):
    def poison(table):
        table[77] = np.inf

    name = "target_embedding/table"
    args = transformer, tmp_path / "run", CHECKPOINT, name, poison
    _, text = report(with_parameter(*args))
    cause = text.split("\n\n")[1]
    assert cause.startswith(
        f"first bad values: parameter {name}, before the step\n  64 of "
    )
    assert re.search(r"\n  token id 77: '.+'\n", cause)
    assert "first read by: gather in target_embedding, forward" in cause


def test_bad_input_is_refused_in_one_line(text, tmp_path):
    program = "analysis/explain/__main__.py"
    flags = f"--workdir={text}", f"--step={STEPS + 1}"
    assert_refused(run(program, *flags), "this run has the steps 1 to 4")
    flags = f"--workdir={tmp_path}", "--step=1"
    assert_refused(run(program, *flags), "no run in")
    flags = f"--workdir={text}", "--step=3", "--max_replay_steps=1"
    assert_refused(run(program, *flags), "--step=3 is 2 steps after the first state")
    flags = f"--workdir={text}", "--step=3", "--reference=3"
    assert_refused(run(program, *flags), "--reference=3 must be a step before")
    other = tmp_path / "other"
    shutil.copytree(text.parent / "text", other)
    (other / "train.txt").write_text("one two three\n")
    flags = f"--workdir={text}", "--step=4", f"--data.source_dir={other}"
    assert_refused(run(program, *flags), "was trained on other data")
