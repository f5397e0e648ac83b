"""Classifiers: losses, what evaluation and prediction give, and bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss

from analysis.attention.extract import capture_intermediates
from experiment import train
from experiment.build import build_experiment, open_dataset
from experiment.inference import evaluate
from experiment.restore import open_run
from experiment.validate import validate_config
from helpers.architectures import random_parameters
from helpers.labeled_runs import (
    colored_pairs,
    labeled_config,
    write_colored,
    write_table,
)
from training.loop import ExitStatus
from utils.errors import UserError


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colors")
    write_colored(folder)
    return folder


@pytest.fixture(scope="module")
def run(table):
    """A classifier that has learned the colors."""
    cfg = labeled_config(table, "transformer")
    assert train.train(cfg, table / "run") is ExitStatus.FINISHED
    return open_run(table / "run", "last")


def opened(cfg):
    """Returns an experiment, its dataset, random variables and a batch."""
    dataset = open_dataset(cfg)
    experiment = build_experiment(cfg, dataset.tokenizers)
    batch = jax.tree.map(jnp.asarray, dataset.train_batches()[0])
    init = functools.partial(experiment.task.init, experiment.model)
    variables = random_parameters(init, jax.random.key(1), batch)
    return experiment, dataset, variables, batch


def loss(experiment, *, train):
    """Returns the compiled loss as a function of variables, batch and random key."""
    task, model = experiment.task, experiment.model

    @jax.jit
    def compiled(variables, batch, rng):
        return task.loss(model, variables, (), batch, rng, train=train)[0]

    return compiled


def test_a_classifier_learns_and_beats_its_baselines(run):
    card, path = evaluate(run, "test")
    assert card["scores"]["accuracy"]["value"] > 90
    assert card["baselines"]["majority"]["accuracy"] < 60
    assert "naive_bayes" in card["baselines"]
    assert {row["class"] for row in card["classes"]} == {"red", "green", "blue"}
    assert np.sum(card["confusion"]["counts"]) == 40
    assert path.exists()


def test_predicting_the_texts_of_a_split_gives_its_hypotheses(run):
    evaluate(run, "test")
    folder = run.directory.path / "samples"
    found = (folder / f"{run.name('test')}.hypotheses.txt").read_text().split()
    texts = [text for (text,) in run.open_dataset().texts("test")]
    assert list(run.experiment.task.predict(*run.inputs(texts))) == found


def test_probabilities_of_a_line_are_ranked_and_blank_lines_stay_blank(run):
    lines = ["a red b", "", "a blue"]
    red, blank, blue = run.experiment.task.predict_n_best(*run.inputs(lines))
    assert (red[0][0], blank, blue[0][0]) == ("red", [], "blue")
    for ranked in (red, blue):
        scores = [score for _, score in ranked]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        "transformer",
        pytest.param("rnn", marks=pytest.mark.slow),
        pytest.param("transformer_xl", marks=pytest.mark.slow),
    ],
)
def test_the_loss_is_the_cross_entropy_whatever_the_padding(table, model):
    cfg = labeled_config(table, model, **{"data.buckets": 2})
    experiment, dataset, variables, _ = opened(cfg)
    task, model = experiment.task, experiment.model
    names = sorted(dataset.tokenizers["label"].names)
    losses = {}

    @jax.jit
    def both(batch):
        metrics, _ = task.loss(model, variables, (), batch, None, train=False)
        logits, _ = task._forward(model, variables, batch)
        return metrics["loss"], jax.nn.softmax(logits)

    for size in (3, 8):
        batches = dataset.evaluation_batches("validation", batch_size=size)
        total, probabilities = np.zeros(2), {}
        for k in range(len(batches)):
            batch = jax.tree.map(jnp.asarray, batches[k])
            pair, rows = both(batch)
            total += np.asarray(pair)
            for i, row in zip(batch["ids"].tolist(), rows, strict=True):
                probabilities[i] = np.asarray(row, np.float64)
        labels = dataset.label_names("validation")
        rows = [probabilities[i] / probabilities[i].sum() for i in range(len(labels))]
        losses[size] = total[0] / total[1]
        assert losses[size] == pytest.approx(log_loss(labels, rows, labels=names), 1e-4)
    assert losses[3] == pytest.approx(losses[8], rel=1e-5)


def test_balanced_classes_weigh_by_inverse_frequency(tmp_path):
    rows = [("a", "x")] * 30 + [("b", "y")] * 10
    write_table(tmp_path, {"train": rows, "dev": rows})
    changes = {"head.class_weights": "balanced"}
    cfg = labeled_config(tmp_path, "transformer", **changes)
    experiment, _, variables, batch = opened(cfg)
    plain = loss(experiment, train=False)(variables, batch, None)
    metrics = loss(experiment, train=True)(variables, batch, jax.random.key(0))
    labels, weights = batch["labels"], batch["weights"]
    expected = np.where(labels == 0, 40 / 60, 40 / 20) * weights
    assert float(metrics["loss"][1]) == pytest.approx(expected.sum())
    assert float(plain["loss"][1]) == pytest.approx(weights.sum())


def test_a_pair_is_read_together(tmp_path):
    write_colored(tmp_path, colored_pairs)
    cfg = labeled_config(tmp_path, "transformer", **{"data.pair_column": "pair"})
    experiment, dataset, variables, _ = opened(cfg)
    assert dataset.train_batches()[0]["segment_ids"].any()
    inputs = experiment.model, variables
    ranked = experiment.task.predict_n_best(*inputs, ["a red\tb red"], cfg)
    assert {name for name, _ in next(ranked)} == {"same", "different"}
    with pytest.raises(UserError, match="line 1 of the input has no tab"):
        next(experiment.task.predict_n_best(*inputs, ["a red"], cfg))


def test_the_vectors_of_a_pair_are_compared(tmp_path):
    write_colored(tmp_path, colored_pairs)
    changes = {"data.pair_column": "pair", "head.compare_pair": True}
    changes["head.pooling"] = "mean"
    cfg = labeled_config(tmp_path, "transformer", **changes)
    experiment, _, variables, batch = opened(cfg)
    model, inputs = experiment.model, experiment.task.model_inputs(batch)

    @jax.jit
    def states_and_logits(variables):
        options = {"train": False}
        hidden, _ = model.apply(variables, *inputs, (), method="encode", **options)
        return hidden, model.apply(variables, *inputs, (), **options)[0]

    hidden, logits = map(np.asarray, states_and_logits(variables))
    _, segments, mask = map(np.asarray, inputs)
    head = variables["params"]["head"]
    for row, found in enumerate(logits):
        u, v = (hidden[row][mask[row] & (segments[row] == k)].mean(0) for k in (0, 1))
        compared = np.concatenate([u, v, abs(u - v), u * v])
        expected = compared @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_attention_of_a_compared_pair_is_that_to_both_texts(tmp_path):
    write_colored(tmp_path, colored_pairs)
    changes = {"data.pair_column": "pair", "head.compare_pair": True}
    cfg = labeled_config(tmp_path, "rnn", **changes)
    experiment, _, variables, batch = opened(cfg)
    inputs = experiment.task.model_inputs(batch)
    _, layers = capture_intermediates(experiment.model, variables, *inputs, ())
    weights = layers["pooler"]
    for text in (0, 1):
        own = np.where(np.asarray(batch["segment_ids"]) == text, weights, 0)
        np.testing.assert_allclose(own.sum(axis=1), 1, rtol=1e-5)


def test_grades_are_learned_by_least_squares(tmp_path):
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice([*"abc"], 6)) for _ in range(160)]
    rows = [(text, f"{text.count('a') / 2}") for text in texts]
    write_table(tmp_path, {"train": rows[:120], "dev": rows[120:]})
    changes = {"head.regression": True, "head.pooling": "mean", "steps": 120}
    cfg = labeled_config(tmp_path, "transformer", **changes)
    train.train(cfg, tmp_path / "run")
    card, _ = evaluate(open_run(tmp_path / "run", "last"), "validation")
    assert card["scores"]["pearson"]["value"] > 80
    assert card["baselines"]["mean"]["pearson"] == 0
    task = open_run(tmp_path / "run", "last").experiment.task
    assert task.default_metric(cfg) == "pearson"  # by which a sweep ranks trials
    grades = [float(task.output(np.float32([x]))) for x in (1e-5, 3.14159, 3.14161)]
    assert grades == pytest.approx([1e-5, 3.14159, 3.14161], rel=1e-6)


def test_a_text_longer_than_a_segment_is_read_with_memory(table):
    experiment, _, variables, batch = opened(labeled_config(table, "transformer_xl"))
    names = ("tokens", "segment_ids", "mask")
    long = {key: jnp.tile(batch[key], (1, 2)) for key in names}
    long["mask"] = jnp.ones_like(long["mask"])
    changed = dict(long, tokens=long["tokens"].at[:, 0].add(1))
    task, model = experiment.task, experiment.model
    apply = jax.jit(lambda x: task.apply(model, variables, x, None, train=False))
    outputs = [apply(inputs) for inputs in (long, changed)]
    assert (np.asarray(outputs[0]) != np.asarray(outputs[1])).any(axis=1).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.label_column": None}, "data.label_column is not set"),
        ({"data.unseen_labels": "skip"}, "Unknown data.unseen_labels 'skip'"),
        ({"head.pooling": "sum"}, "Unknown head.pooling 'sum'; choose one of cls"),
        ({"head.class_weights": "log"}, "Unknown head.class_weights 'log'"),
        ({"head.dropout": 1.0}, "head.dropout"),
        ({"z_loss": 0.1}, "z_loss=0.1 must be 0.0"),
        ({"data.target_tag": True}, "data.target_tag=True must be False"),
        ({"data.drop_duplicates": True}, "data.drop_duplicates=True must be False"),
        ({"data.document_order": True}, "data.document_order=True must be False"),
        ({"head.crf": True}, "head.crf=True must be False"),
        ({"head.compare_pair": True}, "needs pairs of texts: set data.pair_column"),
        (
            {
                **{"head.compare_pair": True, "head.pooling": "cls"},
                **{"data.pair_column": "pair"},
            },
            "'cls' reads the first token alone",
        ),
        ({"mlm.next_sentence": True}, "mlm.next_sentence=True must be False"),
        ({"keep.metric": "pearson"}, "keep.metric='pearson' is no score of classes"),
        ({"data.max_length": 4}, "data.max_length"),
    ],
)
def test_a_config_of_another_task_is_refused(table, changes, message):
    with pytest.raises(UserError, match=message):
        validate_config(labeled_config(table, **changes))


def test_a_column_that_the_corpus_lacks_is_refused(table):
    cfg = labeled_config(table, **{"data.label_column": "grade"})
    with pytest.raises(UserError, match="has the columns label, text"):
        open_dataset(cfg)


def test_an_unseen_label_of_an_evaluation_is_refused_or_counted(tmp_path):
    known, other = [("a", "x"), ("b", "y")] * 8, [("a", "x"), ("b", "z")] * 4
    write_table(tmp_path, {"train": known, "dev": known, "test": other})
    cfg = labeled_config(tmp_path, "transformer", steps=1)
    train.train(cfg, tmp_path / "run")
    with pytest.raises(UserError, match=r"test, example 2: .* no label 'z'"):
        evaluate(open_run(tmp_path / "run", "last"), "test")
    changes = {"data": {"unseen_labels": "count"}}
    card, _ = evaluate(open_run(tmp_path / "run", "last", changes), "test")
    assert card["protocol"]["unseen_labels"] == 4
    assert card["scores"]["accuracy"]["value"] <= 50


@pytest.mark.slow  # test_fine_tuning.py starts from a run of another task
def test_an_encoder_starts_from_another_run_with_its_vocabulary(run, tmp_path, capsys):
    rows = [("a red zebra", "x"), ("b blue", "y")] * 8
    write_table(tmp_path, {"train": rows, "dev": rows})
    origin = str(run.directory.path)
    changes = {"init_from": origin, "init_params_pattern": "^encoder/", "steps": 1}
    changes["optim.freeze"] = "^encoder/"
    cfg = labeled_config(tmp_path, "transformer", **changes)
    train.train(cfg, tmp_path / "run")
    told = capsys.readouterr().err
    assert f"init_from={origin}: took" in told
    assert "new: head/bias, head/kernel" in told
    tuned = open_run(tmp_path / "run", "last")
    texts = [each.experiment.tokenizers["text"] for each in (run, tuned)]
    assert texts[0].to_dict() == texts[1].to_dict()
    params = [each.variables["params"]["encoder"] for each in (run, tuned)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *params))
