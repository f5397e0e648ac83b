"""Tests of plans of runs, without data or devices."""

import functools
import re

import jax
import numpy as np
import pytest

from analysis.plan.memory import (
    device_memory,
    partitioner_for,
    working_bytes,
)
from analysis.plan.report import format_fit, report
from analysis.plan.step import StepSpec
from configs import base
from helpers.entry_points import assert_refused, run
from tasks.base import TASKS
from tests.training.profiling.test_flops import SMALL, Case
from training.gradients import gradients
from utils.errors import UserError
from utils.memory import peak_bytes


def array(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def config(task="language_modeling", model="transformer_xl", **changes):
    cfg = base.get_config(model)
    cfg.model.update({key: size for key, size in SMALL.items() if key in cfg.model})
    cfg.model.layers = 1
    cfg.task, cfg.data.vocab_size = task, 24
    cfg.data.update(
        batch_size=16, segment_length=5, max_length=10, tokens_per_batch=200
    )
    cfg.parallel.update(changes)
    return cfg


@functools.cache
def planned(task="language_modeling", model="transformer_xl"):
    return StepSpec.from_config(config(task, model))


@pytest.mark.parametrize(
    ("task", "model"),
    [("language_modeling", "transformer_xl"), ("translation", "rnn")],
)
def test_the_estimate_is_near_what_the_compiler_reserves(task, model):
    sizes = {"layers": 1, "width": 32, "heads": 2, "feed_forward": 64}
    case = Case(task, model, rows=16, length=32, vocabulary=200, **sizes)

    def gradient(params, carry, batch, seed):
        return gradients(case.loss, params, carry, batch, jax.random.key(seed))

    inputs = (case.params, case.carry, case.batch, array(dtype="uint32"))
    compiled = jax.jit(gradient).lower(*inputs).compile().memory_analysis()
    reserved = compiled.temp_size_in_bytes + compiled.output_size_in_bytes
    assert 0.6 < reserved / peak_bytes(gradient, *inputs) < 1.25


def test_devices_shard_the_batch_and_fsdp_shards_gradients():
    step = planned()
    data = [partitioner_for(config(), count) for count in (1, 4, 16)]
    one, four, sixteen = (working_bytes(step, places) for places in data)
    weights = device_memory(step, data[0]).parameters
    assert 0.2 * one < four < 0.5 * one
    assert weights < sixteen < four
    wide = config()
    wide.model.layers = 2
    wide.model.feed_forward = 4000  # parameters are most of what there is
    step, spread = (
        StepSpec.from_config(wide),
        partitioner_for(config(fsdp=8, data=2), 16),
    )
    whole = working_bytes(step, data[2])
    assert (
        device_memory(step, spread).parameters
        < device_memory(step, data[2]).parameters / 4
    )
    assert working_bytes(step, spread) < 0.7 * whole


def lines_of(text):
    """Maps the first word of each line to the line."""
    return {line.split()[0]: line for line in text.splitlines() if line}


def test_a_plan_shows_tokens_flops_memory_and_shardings():
    text = report(config(data=1, fsdp=4), 4, 16.0)
    lines = lines_of(text)
    assert "1 batch shape" in lines["shapes"]
    assert lines["tokens"].split()[1] == str(16 * 5)
    counted = planned().flops()
    assert float(lines["FLOPs"].split()[1]) == pytest.approx(counted, rel=1e-3)
    found = {name: float(lines[name].split()[1]) for name in ("working", "parameters")}
    places = partitioner_for(config(data=1, fsdp=4), 4)
    expected = device_memory(planned(), places).parameters / 1e9
    assert found["parameters"] == pytest.approx(expected, abs=1e-4)
    assert "on each of 4 devices (jit, data=1 x fsdp=4 x tensor=1)" in text
    assert re.search(r"feed_forward/up/kernel +8 over fsdp x 14 +1/4 of it", text)
    assert "is expected to fit into 16 GB" in text


def test_a_plan_of_translation_shows_the_number_of_shapes_and_the_longest():
    lines = lines_of(report(config("translation", "rnn")))
    assert "at most 8 batch shapes" in lines["shapes"]
    assert "20 examples of 10 tokens on each side" in lines["shapes"]
    assert "200 predicted" in lines["tokens"]


ALIKE = {"relation_extraction"}  # as classification
UNDERSTANDING = {
    "classification": ("examples", 16),
    "relation_extraction": ("examples", 16),
    "tagging": ("words", 16 * 8),  # of 10 tokens with [CLS] and [SEP]
    "masked_language_modeling": ("tokens", 16 * 2),  # 15% of 10
}


@pytest.mark.parametrize(
    "task",
    [pytest.param(x, marks=[pytest.mark.slow] * (x in ALIKE)) for x in UNDERSTANDING],
)
def test_a_plan_of_an_encoder_counts_what_its_task_predicts(task):
    unit, number = UNDERSTANDING[task]
    cfg = config(task, "transformer")
    cfg.data.text_column = "text"
    if task != "masked_language_modeling":
        cfg.data.label_column = "label"
    if task == "tagging":
        cfg.data.tag_column = "tags"
    text = report(cfg)
    assert f"16 examples of 10 tokens\n{unit}" in text
    assert lines_of(text)[unit].split()[1] == str(number)
    assert "vocabulary of 29 tokens" in text  # with <mask> and entity markers
    assert ("2 tags" in text) == (task == "tagging")


def test_by_default_a_plan_is_for_as_few_devices_as_the_mesh_needs():
    text = report(config())
    assert "on each of 1 devices" in text
    assert "shardings of parameters" not in text
    assert "on each of 6 devices" in report(config(fsdp=3, tensor=2))


def test_the_plan_distinguishes_certain_from_expected_fit():
    assert format_fit(20, 25, 16).startswith("does not fit into 16 GB: 20.0")
    assert format_fit(10, 25, 16).startswith("is not expected to fit into 16 GB: 9.0")
    assert format_fit(10, 15, 16).startswith("is expected to fit into 16 GB: 1.0")


MISTAKES = {
    "no devices": ((0, None), {}, "--devices=0"),
    "negative memory": ((8, -1.0), {}, "--device_memory=-1"),
    "memory that is no number": ((8, float("nan")), {}, "--device_memory=nan"),
    "a mesh that does not multiply": (
        (8, 16.0),
        {"fsdp": 3},
        "does not multiply to 8 devices",
    ),
    "an unknown mode": ((8, 16.0), {"mode": "shards"}, "choose one of jit, pmap"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_an_invalid_plan_is_refused(name):
    arguments, changes, message = MISTAKES[name]
    with pytest.raises(UserError, match=re.escape(message)):
        report(config(**changes), *arguments)


def test_a_plan_refuses_a_metric_that_training_could_not_keep_checkpoints_by():
    cfg = config()
    cfg.keep.metric = "blue"
    with pytest.raises(UserError, match="'blue'; choose one of loss"):
        report(cfg)


PLAN = ("train.py", "--config=configs/cldr.py:rnn", "--plan")


def test_a_custom_task_on_texts_can_be_planned(tmp_path, monkeypatch):
    own = "from tasks import language_modeling\n\n\n"
    own += 'class Task(language_modeling.Task):\n    """The same."""\n'
    (tmp_path / "own_text.py").write_text(own)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TASKS, "own_text", "own_text")
    cfg = config("language_modeling", "rnn")
    expected = report(cfg)
    cfg.task = "own_text"
    assert report(cfg) == expected


def test_the_command_prints_a_plan():
    done = run(*PLAN, "--devices=8", "--device_memory=16", "--config.parallel.fsdp=2")
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert "on each of 8 devices (jit, data=4 x fsdp=2 x tensor=1)" in text
    assert next(iter(lines_of(text))).count("/")  # parameters come first


@pytest.mark.parametrize(
    "flag",
    [
        *("--devices=0", "--device_memory=-2", "--devices=x"),
        *("--config.init_params_pattern=(", "--config.data.vocab_size=-1"),
    ],
)
def test_the_command_refuses_a_mistake_in_one_line(flag):
    assert_refused(run(*PLAN, flag), re.split("[.=]", flag.strip("-"))[-2])


def test_a_mesh_that_does_not_match_the_devices_is_refused_in_one_line():
    flags = ("--devices=8", "--config.parallel.tensor=3")
    assert_refused(run(*PLAN, *flags), "tensor=3", "8 devices")


def test_batches_of_a_plan_have_the_shapes_of_a_run():
    assert planned().input_shapes(16)[2].keys() == {
        "tokens",
        "labels",
        "weights",
        "reset",
    }
    params, carry, batch = planned("translation", "transformer").input_shapes(3)
    assert carry == ()
    assert batch["source"].shape == batch["labels"].shape == (3, 10)
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)) > 1000
