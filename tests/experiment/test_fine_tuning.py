"""Fine-tuning of a pre-trained encoder: what is taken, frozen, scaled and refused."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data.tokenizers.build import dump_tokenizer
from data.tokenizers.symbols import WordTokenizer
from data.understanding.labels import Labels
from experiment import train
from experiment.init_from import InitialRun, check_vocabularies
from experiment.pretrained import adopt_settings, pretrained_settings
from experiment.restore import open_run
from helpers.document_runs import LETTERS, masked_config, write_documents
from helpers.labeled_runs import labeled_config, write_table
from sweeps.trial_configs import TrialConfigs
from training.loop import ExitStatus
from training.optim.param_groups import named_leaves
from training.run_dir import RunDirectory
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
ENCODER = "^encoder/"
DESCENT = {"optim.name": "sgd", "optim.clip_norm": 0.0}  # a small program
ROWS = [(f"{a} {b}", "x" if a < "e" else "y") for a in LETTERS for b in LETTERS]


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """The directory of a masked language model that was trained for a step."""
    folder = tmp_path_factory.mktemp("documents")
    write_documents(folder)
    cfg = masked_config(folder, "transformer", steps=1, **DESCENT)
    assert train.train(cfg, folder / "run") is ExitStatus.FINISHED
    return folder / "run"


def tuned_config(folder, origin, **changes):
    """Returns a config of a classifier that starts from a run."""
    write_table(folder, {"train": ROWS, "dev": ROWS[::4]})
    start = {"init_from": str(origin), "init_params_pattern": ENCODER, "steps": 1}
    start |= {"optim.lr": 0.5, **DESCENT}
    return labeled_config(folder, "transformer", **start | changes)


def parameters(run):
    return named_leaves(open_run(run, "last").variables["params"])


def moves(before, after):
    """Returns how far each parameter of an encoder has moved."""
    return {
        name: np.abs(after[name] - before[name]).max()
        for name in after
        if name.startswith("encoder/")
    }


def test_frozen_parameters_stay_and_scaled_ones_move_by_their_factor(origin, tmp_path):
    """Two runs of a step of gradient descent, with and without groups."""
    frozen, scaled = "^encoder/embedding/", "^encoder/.*feed_forward"
    groups = {"optim.freeze": frozen, "optim.lr_scales": ((scaled, 0.25),)}
    for name, changes in (("plain", {}), ("groups", groups)):
        cfg = tuned_config(tmp_path, origin, **changes)
        assert train.train(cfg, tmp_path / name) is ExitStatus.FINISHED
    before = parameters(origin)
    plain, grouped = (
        moves(before, parameters(tmp_path / name)) for name in ("plain", "groups")
    )
    for name, move in grouped.items():
        factor = 0.0 if re.search(frozen, name) else 1.0
        factor = 0.25 if re.search(scaled, name) else factor
        np.testing.assert_allclose(move, factor * plain[name], rtol=1e-3, atol=1e-7)
    assert min(plain[name] for name in plain if "feed_forward" in name) > 0
    vocabularies = [
        open_run(run, "last").experiment.tokenizers["text"]
        for run in (origin, tmp_path / "groups")
    ]
    assert len(set(map(dump_tokenizer, vocabularies))) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": "/nowhere/run"}, "no run in /nowhere/run"),
        ({"init_params_pattern": "^encodr/"}, "'^encodr/' matches no parameter"),
        ({"init_params_pattern": ".*"}, "head/bias (2,) is of shape (25,) there"),
        ({"init_params_pattern": ".*"}, "; '^encoder/' takes the encoder alone"),
        ({"data.tokenizer": "char"}, "has tokenizer='word': set data.tokenizer=word"),
        ({"data.lowercase": True}, "has lowercase=False: set data.lowercase=False"),
        ({"optim.freeze": "^enkoder"}, "optim.freeze='^enkoder' matches no parameter"),
        ({"model.width": 32}, "leave them out of init_params_pattern='^encoder/'"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_in_one_line(
    origin, tmp_path, changes, message
):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        train.train(tuned_config(tmp_path, origin, **changes), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", [list.reverse, list.pop])
def test_embeddings_of_another_vocabulary_are_refused(origin, tmp_path, change):
    """One of the same size would be read without an error, but mean other tokens."""
    words = list(open_run(origin, "last").experiment.tokenizers["text"].symbols[4:])
    change(words)
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{word}\n" for word in words))
    cfg = tuned_config(tmp_path, origin, **{"data.vocabulary": str(path)})
    with pytest.raises(UserError, match=r"its text vocabulary of .* is not that of"):
        train.train(cfg, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_all_but_the_embeddings_may_have_another_vocabulary(origin):
    run = open_run(origin, "last")
    other = {"text": WordTokenizer(["a"])}
    check_vocabularies(run, other, "^encoder/stack/")
    check_vocabularies(run, run.experiment.tokenizers, ".*")


def test_a_head_of_other_labels_is_refused():
    labels = {"label": Labels(["x", "y"], [1, 1])}
    run = SimpleNamespace(
        directory=SimpleNamespace(path="runs/a"),
        experiment=SimpleNamespace(tokenizers=labels),
        variables={"params": {"head": {"bias": np.zeros(2)}}},
    )
    check_vocabularies(run, {"label": Labels(["x", "y"], [2, 3])}, ".*")
    with pytest.raises(UserError, match="its label vocabulary of 2 labels is not"):
        check_vocabularies(run, {"label": Labels(["x", "z"], [1, 1])}, ".*")


def test_a_run_of_translation_has_no_vocabulary_of_text(origin, tmp_path):
    run, cfg = open_run(origin, "last"), tuned_config(tmp_path, origin)
    words = run.experiment.tokenizers["text"]
    sides = {"source": words, "target": words}
    experiment = dataclasses.replace(run.experiment, tokenizers=sides)
    translation = dataclasses.replace(run, experiment=experiment)
    with pytest.raises(UserError, match="has vocabularies for source, target, and"):
        InitialRun(cfg, translation).open_dataset()


@pytest.fixture(scope="module")
def with_pooler(tmp_path_factory):
    """The directory of a run that has predicted next sentences for a step."""
    folder = tmp_path_factory.mktemp("pairs")
    write_documents(folder)
    changes = {"mlm.next_sentence": True, "data.lowercase": True, "model.dropout": 0.3}
    cfg = masked_config(folder, "transformer", steps=1, **changes, **DESCENT)
    assert train.train(cfg, folder / "run") is ExitStatus.FINISHED
    return folder / "run"


def untuned_config(folder, **changes):
    """Returns a config of a classifier that knows nothing of a run to start from."""
    write_table(folder, {"train": ROWS, "dev": ROWS[::4]})
    changes = (
        {"data.tokenizer": "char", "model.width": 32, "steps": 1} | DESCENT | changes
    )
    return labeled_config(folder, "transformer", **changes)


def test_a_pretrained_run_provides_sizes_tokenizer_and_pooler(
    with_pooler, tmp_path, capsys
):
    cfg = untuned_config(tmp_path)
    adopt_settings(cfg, str(with_pooler), str(tmp_path / "run"), {})
    before = open_run(with_pooler, "last").experiment.cfg
    assert cfg.model.to_dict() == before.model.to_dict()
    assert (cfg.data.tokenizer, cfg.data.lowercase) == ("word", True)
    assert (cfg.head.pooling, cfg.init_params_pattern) == ("cls", "^(encoder|pooler)/")
    told = capsys.readouterr().err
    assert told.startswith("--pretrained sets model.")
    assert "model.width=16" in told
    assert "model.heads" not in told  # it is the same
    assert train.train(cfg, tmp_path / "run") is ExitStatus.FINISHED
    assert "new: head/" in capsys.readouterr().err
    # The stored config is complete: nothing but the parameters comes from the run.
    stored = RunDirectory(tmp_path / "run").read_config()
    assert stored["model"] == json.loads(cfg.model.to_json_best_effort())


def test_keys_of_the_command_line_come_before_those_of_a_pretrained_run(with_pooler):
    cfg = labeled_config(with_pooler, "transformer")
    given = {"model.dropout": 0.2, "head.pooling": "mean"}
    found = pretrained_settings(cfg, str(with_pooler), None, given)
    assert (found["model.dropout"], found["head.pooling"]) == (0.2, "mean")
    assert found["init_params_pattern"] == ENCODER  # the pooler belongs to "cls"
    cfg.data.vocabulary = "words.txt"
    found = pretrained_settings(cfg, str(with_pooler), None, {})
    assert not [key for key in found if key.startswith("data.")]


def test_a_classifier_that_compares_pairs_keeps_its_pooling(with_pooler, tmp_path):
    cfg = untuned_config(tmp_path, **{"head.compare_pair": True})
    found = pretrained_settings(cfg, str(with_pooler), None, {})
    assert found["head.pooling"] == cfg.head.pooling == "attention"
    assert found["init_params_pattern"] == ENCODER


def test_without_next_sentences_the_pooling_stays(origin, tmp_path):
    cfg = untuned_config(tmp_path)
    found = pretrained_settings(cfg, str(origin), None, {})
    assert found["head.pooling"] == cfg.head.pooling == "attention"
    assert found["init_params_pattern"] == ENCODER
    more = masked_config(tmp_path, "transformer")  # pre-training goes on
    found = pretrained_settings(more, str(origin), None, {})
    assert not {"head.pooling", "init_params_pattern"} & found.keys()


def test_resuming_does_not_read_the_pretrained_run(with_pooler, tmp_path):
    shutil.copytree(with_pooler, tmp_path / "origin")
    configs = []
    for _ in range(2):
        cfg = untuned_config(tmp_path)
        adopt_settings(cfg, str(tmp_path / "origin"), str(tmp_path / "run"), {})
        assert train.train(cfg, tmp_path / "run") is ExitStatus.FINISHED
        configs.append(cfg.to_json_best_effort())
        shutil.rmtree(tmp_path / "origin", ignore_errors=True)
    assert configs[0] == configs[1]
    cfg = untuned_config(tmp_path)
    given = {"model.dropout": 0.0}
    adopt_settings(cfg, str(tmp_path / "origin"), str(tmp_path / "run"), given)
    with pytest.raises(UserError, match=r"model.dropout is 0.3 there and 0.0 here"):
        train.train(cfg, tmp_path / "run")


@pytest.mark.parametrize(
    ("model", "changes", "given", "message"),
    [
        ("rnn", {}, {}, "and --config has 'rnn': write --config=FILE:transformer"),
        ("transformer", {"task": "translation"}, {}, "not for task='translation'"),
        ("transformer", {}, {"init_from": "other"}, "sets init_from, which is 'other'"),
    ],
)
def test_a_pretrained_run_that_does_not_fit_is_refused(
    origin, tmp_path, model, changes, given, message
):
    cfg = labeled_config(tmp_path, model, **changes)
    with pytest.raises(UserError, match=re.escape(message)):
        pretrained_settings(cfg, str(origin), None, given)


def test_trials_of_a_sweep_start_from_a_pretrained_run(with_pooler):
    cfg = labeled_config(with_pooler, "transformer")
    given = pretrained_settings(cfg, str(with_pooler), None, {"optim.lr": 0.1})
    flag = f"{ROOT}/configs/classification/cldr_fields.py:transformer"
    trial = TrialConfigs.from_flag(flag, given).config({"optim.lr": 0.2})
    before = open_run(with_pooler, "last").experiment.cfg
    assert trial.model.to_dict() == before.model.to_dict()
    assert (trial.init_from, trial.optim.lr) == (str(with_pooler), 0.2)
    assert trial.data.tokenizer == "word"  # not characters, as the file has it


def test_a_pretrained_run_must_exist(tmp_path):
    cfg = labeled_config(tmp_path, "transformer")
    with pytest.raises(UserError, match="no run in /nowhere"):
        pretrained_settings(cfg, "/nowhere/run", None, {})
