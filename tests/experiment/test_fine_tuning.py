"""Fine-tuning of a pre-trained encoder: what is taken, frozen, scaled and refused."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest

from data.tokenizers.build import dump_tokenizer
from data.tokenizers.symbols import WordTokenizer
from data.understanding.labels import Labels
from experiment import train
from experiment.init_from import InitialRun, check_vocabularies
from experiment.restore import open_run
from helpers.document_runs import LETTERS, masked_config, write_documents
from helpers.labeled_runs import labeled_config, write_table
from training.loop import ExitStatus
from training.optim.param_groups import named_leaves
from utils.errors import UserError

ENCODER = "^encoder/"
ROWS = [(f"{a} {b}", "x" if a < "e" else "y") for a in LETTERS for b in LETTERS]


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """The directory of a masked language model that was trained for a step."""
    folder = tmp_path_factory.mktemp("documents")
    write_documents(folder)
    cfg = masked_config(folder, "transformer", steps=1)
    assert train.train(cfg, folder / "run") is ExitStatus.FINISHED
    return folder / "run"


def tuned_config(folder, origin, **changes):
    """Returns a config of a classifier that starts from a run."""
    write_table(folder, {"train": ROWS, "dev": ROWS[::4]})
    start = {"init_from": str(origin), "init_params_pattern": ENCODER, "steps": 1}
    start |= {"optim.name": "sgd", "optim.lr": 0.5, "optim.clip_norm": 0.0}
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
