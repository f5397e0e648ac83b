"""What a config asks of training, done by the whole of it on a small corpus."""

import dataclasses
import errno
import json
import shutil
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from analysis.explain.explanation import explain
from analysis.explain.report import format_report
from analysis.plan.step import dummy_tokenizers
from analysis.report.runs import read_runs
from analysis.report.score_cards import open_card
from configs import base
from data.tokenizers.symbols import ListTokenizer
from experiment import build, setup, train
from experiment.inference import evaluate, open_runs
from experiment.restore import open_run
from experiment.validate import device_warnings
from helpers.small_runs import config
from helpers.text_runs import WORDS, text_config, train_text
from training.loop import ExitStatus
from training.optim.optimizers import make_optimizer
from training.parallel.partitioner import make_partitioner
from training.run_dir import FORMAT, RunDirectory
from training.signals import StopRequested
from training.step import make_state
from utils.errors import UserError
from utils.locks import exclusive_lock
from utils.paths import DATA_PLACES

SMALL = {"every.eval": 0, "decode.max_length": 2, "model.dropout": 0.0}
TINY = {"every.eval": 0, "model.layers": 1}
DIVISION = "first bad operation: div in optimizer"
UNTIED_TEXT = {"model.tie_embeddings": False}
UNTIED = {**UNTIED_TEXT, "data.joint_vocab": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def origin(folder):
    """A run of two updates."""
    return train_text(folder, "origin", steps=2, **TINY)


def test_a_run_begins_with_the_parameters_and_vocabulary_of_another(
    folder, tmp_path, origin
):
    changes = {"optim.lr": 0.0, "init_from": str(origin), "data.vocab_size": 12}
    cfg = text_config(folder, steps=1, **{**TINY, **changes})
    cfg.model.feed_forward = 20
    with pytest.raises(UserError, match="leave them out of init_params_pattern"):
        train.train(cfg, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    cfg.init_params_pattern = "embedding"
    assert train.train(cfg, tmp_path / "run") is ExitStatus.FINISHED
    ours, theirs = open_run(tmp_path / "run"), open_run(origin)
    vocabularies = [run.experiment.tokenizers["text"] for run in (ours, theirs)]
    assert vocabularies[0].to_dict() == vocabularies[1].to_dict()
    assert vocabularies[0].vocab_size > 12
    params, given = ours.variables["params"], theirs.variables["params"]
    jax.tree.map(np.testing.assert_array_equal, params["embedding"], given["embedding"])
    stacks = jax.tree.leaves(params["stack"]), jax.tree.leaves(given["stack"])
    alike = [(a, b) for a, b in zip(*stacks, strict=True) if a.shape == b.shape]
    assert not all(np.array_equal(a, b) for a, b in alike)


def test_a_run_goes_on_without_the_one_it_began_with(folder, tmp_path, origin):
    shutil.copytree(origin, tmp_path / "origin")
    changes = {**TINY, "init_from": str(tmp_path / "origin")}
    cfg = text_config(folder, steps=2, **changes, **{"every.checkpoint": 1})
    assert train.train(cfg, tmp_path / "run") is ExitStatus.FINISHED
    shutil.rmtree(tmp_path / "origin")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")
    assert train.train(cfg, tmp_path / "run") is ExitStatus.FINISHED
    assert open_run(tmp_path / "run", "last").step == 2


def test_a_run_resumes_without_its_vocabulary_file_and_remembers_moved_data(
    folder, tmp_path, monkeypatch, capsys
):
    (tmp_path / "first").mkdir()
    monkeypatch.chdir(tmp_path / "first")
    words = Path("words.txt")
    words.write_text("".join(f"{word}\n" for word in WORDS))
    changes = {"data.dir": "data", "data.vocabulary": str(words)}
    cfg = text_config(folder, steps=2, **TINY, **changes)
    train.train(cfg, "run")
    words.unlink()
    (tmp_path / "first").rename(tmp_path / "second")
    monkeypatch.chdir(tmp_path)
    assert (
        open_run("second/run")
        .open_dataset()
        .folder.is_relative_to(tmp_path / "second" / "data")
    )
    (tmp_path / "second" / "data").rename(tmp_path / "moved")
    cfg.data.dir = "moved"
    assert train.train(cfg, "second/run") is ExitStatus.FINISHED
    assert "differs" not in capsys.readouterr().err
    monkeypatch.chdir(folder)
    data = open_run(tmp_path / "second" / "run").open_dataset()
    assert data.folder.is_relative_to(tmp_path / "moved")


def test_an_ensemble_of_unlike_vocabularies_is_refused(origin, monkeypatch):
    run, words = open_run(origin), ListTokenizer([str(i) for i in range(400)])
    experiment = dataclasses.replace(run.experiment, tokenizers={"text": words})
    runs = iter([run, dataclasses.replace(run, experiment=experiment)])
    monkeypatch.setattr("experiment.inference.open_run", lambda *_: next(runs))
    with pytest.raises(UserError, match=r"vocabularies differ \(14 and 400 tokens\)"):
        open_runs([origin, "other"])


def test_a_card_of_another_protocol_that_is_replaced_is_told(origin, capsys):
    for size, told in ((4, ""), (2, "batch_size is 4 there and 2 here")):
        for again in range(2):
            changes = {"eval": {"batch_size": size}}
            evaluate(open_run(origin, "last", changes), "test")
            err = capsys.readouterr().err
            assert ("eval/test-2.json is replaced" in err) == bool(told and not again)
            assert told in err or again


def test_a_card_that_cannot_be_saved_is_returned(origin, monkeypatch, capsys):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(origin))

    monkeypatch.setattr(RunDirectory, "_make_parent", refuse)
    card, path = evaluate(open_run(origin), "test")
    assert card["scores"]["loss"]["value"] > 0
    assert path is None
    assert "warning: the score card is not saved" in capsys.readouterr().err


def test_windows_that_a_model_cannot_read_are_refused_before_training(folder, tmp_path):
    changes = {"model.layers": 1, "eval.window": 8}
    cfg = text_config(folder, "transformer_xl", steps=2, **changes)
    with pytest.raises(UserError, match=r"eval\.window=8 needs a model without"):
        train.train(cfg, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_may_be_measured_in_epochs(folder, tmp_path):
    cfg = text_config(folder, epochs=0.1, **TINY)
    assert train.train(cfg, tmp_path) is ExitStatus.FINISHED
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    # 900 words, 4 times 8 at once: 28 batches, and a tenth, rounded up.
    assert max(row["step"] for row in rows) == 3


@pytest.mark.parametrize(
    ("corpus", "steps", "changes", "cause"),
    [
        pytest.param(
            "cldr",
            *(30, {"optim.name": "sgd", "optim.lr": 1e38, "optim.clip_norm": 0}, ""),
            marks=pytest.mark.slow,  # helpers/toy_run.py diverges in test_loop.py
        ),
        # 0 / 0 for words without a gradient; there are fewer steps than end a run
        pytest.param("cldr", 2, UNTIED, DIVISION, marks=pytest.mark.slow),
        pytest.param("text", 2, UNTIED_TEXT, DIVISION, marks=pytest.mark.slow),
        # The explanation of a step is tested in tests/analysis/explain.
        ("text", 2, UNTIED_TEXT, None),
    ],
)
def test_a_run_that_diverges_stops_itself_and_keeps_the_batches(
    data_dir, tmp_path, capsys, corpus, steps, changes, cause
):
    changes = {**SMALL, **changes, "optim.warmup": 0, "max_nonfinite_steps": 3}
    if cause != "":
        changes["optim.eps"] = 0
    if corpus == "cldr":
        cfg = config("cldr", "rnn", data_dir, steps=steps, **changes)
    else:  # a model of few operations, which are explained one by one
        cfg = text_config(tmp_path, steps=steps, **changes, **{"model.layers": 1})
    assert train.train(cfg, tmp_path / "run") is ExitStatus.NOT_FINITE
    run = RunDirectory(tmp_path / "run")
    [file] = (run.path / "replay").iterdir()
    first, last = map(int, file.stem.split("-")[1:])
    assert last - first + 1 >= min(steps, 3)
    command = f"analysis.explain --workdir={run.path} --step={first}"
    assert command in capsys.readouterr().err
    if cause is None:
        return
    run.write_places(dict.fromkeys(DATA_PLACES, str(tmp_path / "nowhere")))
    explanation = explain(str(run.path), last, with_rows=False)
    assert not explanation.examination.is_finite
    assert cause in format_report(explanation)


def test_what_no_run_can_have_is_refused_before_anything_is_prepared(
    data_dir, tmp_path
):
    for key, value, said in [
        (
            "keep.metric",
            "blue",
            "'blue'; choose one of bleu, chrf, exact_match, loss",
        ),
        ("init_params_pattern", "(", r"init_params_pattern='\('"),
        ("data.vocab_size", -1, "data.vocab_size=-1 must be 1 or more"),
        ("grad_accum_steps", 0, "grad_accum_steps=0 must be 1 or more"),
        ("init_from", str(tmp_path), "no run in"),
    ]:
        cfg = config("cldr", "rnn", data_dir / "none", **{key: value})
        with pytest.raises(UserError, match=said):
            train.train(cfg, tmp_path / "run")
    assert not (data_dir / "none").exists()


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("config.json", "[]", "of another version of this code"),
        ("tokenizer/text.json", "junk", "tokenizer is damaged"),
        ("tokenizer/text.json", "{}", "tokenizer is damaged"),
        (
            "tokenizer/text.json",
            None,
            "damaged: it has the vocabularies target",
        ),
    ],
)
def test_what_is_damaged_of_a_run_is_named(origin, tmp_path, file, content, told):
    run = tmp_path / "run"
    shutil.copytree(origin, run)
    if content is None:
        (run / file).rename(run / "tokenizer/target.json")
    else:
        (run / file).write_text(content)
    with pytest.raises(UserError, match=told):
        open_run(run)


def test_no_run_is_no_ensemble():
    with pytest.raises(UserError, match="--workdir is empty"):
        open_runs([])


def test_two_do_not_train_in_one_directory(folder, origin):
    cfg = text_config(folder, steps=2, **TINY)
    with (
        exclusive_lock(origin),
        pytest.raises(UserError, match="another process trains"),
    ):
        train.train(cfg, origin)
    assert train.train(cfg, origin) is ExitStatus.FINISHED


def test_a_kernel_of_another_device_has_a_warning(data_dir):
    cfg = config("cldr", "transformer", data_dir)
    cfg.model.attention_impl = "pallas"
    [line] = device_warnings(cfg)
    assert "model.attention_impl='pallas' does not support this device" in line
    cfg.model.attention_impl = "blockwise"
    assert device_warnings(cfg) == []


@pytest.mark.slow
def test_a_run_tells_that_a_kernel_is_of_another_device(
    data_dir, tmp_path, capsys, monkeypatch
):
    def stop(*_):
        raise StopRequested

    changes = {**SMALL, "model.attention_impl": "pallas"}
    cfg = config("cldr", "transformer", data_dir, steps=1, **changes)
    monkeypatch.setattr(train, "resume", stop)  # it is told before training
    assert train.train(cfg, tmp_path / "run") is ExitStatus.STOPPED
    told = "model.attention_impl='pallas' does not support this device"
    assert told in capsys.readouterr().err
    cfg.model.attention_impl = "blockwise"
    assert device_warnings(cfg) == []


def test_a_run_directory_of_another_format_is_refused_by_all(folder, origin, tmp_path):
    run = shutil.copytree(origin, tmp_path / "old")
    file = run / "about.json"
    about = json.loads(file.read_text())
    assert about.pop("format") == FORMAT == 2
    cfg = text_config(folder, steps=2, **TINY)
    begun = cfg.copy_and_resolve_references()
    begun.init_from = str(run)
    for content, said in (
        (about, r"made by an older version .* \(format 1\), .* reads format 2: use"),
        (about | {"format": 3}, r"made by a newer version .* \(format 3\)"),
    ):
        file.write_text(json.dumps(content))
        for opened in (
            lambda: open_run(run),
            lambda: train.train(cfg, run),
            lambda: train.train(begun, tmp_path / "new"),
            lambda: read_runs([str(run)]),
            lambda: open_card(str(run), "test"),
        ):
            with pytest.raises(UserError, match=said):
                opened()
    file.unlink()
    with pytest.raises(UserError, match=r"about\.json is missing"):
        open_run(run)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("feed_forward", 24, r"kernel is \(.*\) there and \(.*\) here"),
        ("layers", 2, "is missing there and"),
        ("tie_embeddings", False, "is missing there and"),
    ],
)
def test_a_config_that_is_not_the_checkpoint_s_is_told(
    origin, tmp_path, key, value, told
):
    shutil.copytree(origin, tmp_path / "changed")
    file = tmp_path / "changed" / "config.json"
    document = json.loads(file.read_text())
    assert document["model"][key] != value
    document["model"][key] = value
    file.write_text(json.dumps(document))
    with pytest.raises(UserError, match=rf"config\.json describes.*{told}"):
        open_run(tmp_path / "changed")


def test_a_validation_knows_the_devices_that_the_state_lies_on():
    def evaluate(model, variables, batches, cfg):
        axes = jax.sharding.get_abstract_mesh().axis_names
        return {"scores": {"axes": {"value": axes}}}

    cfg = base.get_config("rnn")
    task = types.SimpleNamespace(
        evaluate=evaluate, evaluation_inputs=lambda *_: ([], {})
    )
    made = build.build_experiment(cfg, dummy_tokenizers(cfg))
    made = dataclasses.replace(made, task=task)
    partitioner = make_partitioner(cfg.parallel)
    training = setup.TrainingSetup(made, partitioner, None, None, None, 1)
    state = make_state({}, make_optimizer(cfg.optim, 1)[0])
    found = train.make_validate(training, None)(state, lambda: False)
    assert found == {"axes": ("data", "fsdp", "tensor")}
