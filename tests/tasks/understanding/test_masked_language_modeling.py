"""Masked language models: losses, score cards, fill-mask and bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiment import train
from experiment.build import build_experiment, open_dataset
from experiment.inference import evaluate
from experiment.restore import open_run
from experiment.validate import validate_config
from helpers.architectures import random_parameters
from helpers.document_runs import masked_config, write_documents
from training.loop import ExitStatus
from utils.errors import UserError

PAIRS = {"mlm.next_sentence": True}
STREAMS = {"data.document_order": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    write_documents(folder)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """A model that has learned the order of the letters."""
    cfg = masked_config(folder, **PAIRS)
    assert train.train(cfg, folder / "run") is ExitStatus.FINISHED
    return open_run(folder / "run", "last")


def opened(cfg):
    """Returns an experiment, its dataset and random variables."""
    dataset = open_dataset(cfg)
    experiment = build_experiment(cfg, dataset.tokenizers)
    batch = jax.tree.map(jnp.asarray, dataset.train_batches()[0])
    init = functools.partial(experiment.task.init, experiment.model)
    return experiment, dataset, random_parameters(init, jax.random.key(1), batch)


def loss(experiment, *, train):
    """Returns the compiled loss: (variables, carry, batch, rng) -> (metrics, carry)."""
    return jax.jit(
        functools.partial(experiment.task.loss, experiment.model, train=train)
    )


def test_a_model_learns_and_beats_its_baselines(run):
    card, path = evaluate(run, "test")
    scores, unigram = card["scores"], card["baselines"]["unigram"]
    assert path.exists()
    assert scores["loss"]["value"] < 0.8 * unigram["loss"]
    assert scores["masked_accuracy"]["value"] > 2 * unigram["masked_accuracy"]
    assert scores["perplexity"]["value"] == pytest.approx(
        np.exp(scores["loss"]["value"])
    )
    assert 40 < card["baselines"]["majority"]["next_sentence_accuracy"] < 80
    for score in scores.values():
        assert score["low"] <= score["value"] <= score["high"]
    assert scores.keys() == run.experiment.task.metric_directions.keys()
    protocol = card["protocol"]
    assert protocol["mask_probability"] == 0.3
    assert protocol["documents"] == 9
    assert protocol["tokens"] > protocol["segments"] > 9
    blocks = np.load(run.directory.path / "eval" / f"{run.name('test')}.npz")
    mean = blocks["total"].sum() / blocks["weight"].sum()
    assert mean == pytest.approx(scores["loss"]["value"], rel=1e-5)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("transformer", PAIRS),
        ("transformer_xl", STREAMS),
        pytest.param("rnn", PAIRS, marks=pytest.mark.slow),
    ],
)
def test_the_score_card_is_the_loss_of_the_logits(folder, model, changes):
    experiment, dataset, variables = opened(masked_config(folder, model, **changes))
    task, model = experiment.task, experiment.model
    batches = dataset.evaluation_batches("validation", batch_size=4)
    carry, expected = task.initial_carry(model, 4, train=False), np.zeros(5)

    @jax.jit
    def both(carry, start, batch):
        losses = task.loss(model, variables, carry, batch, None, train=False)
        inputs = (*task.model_inputs(batch), start)
        (hidden, following), _ = model.apply(variables, *inputs, train=False)
        return losses, model.apply(variables, hidden, method="logits"), following

    found = {}
    for k in range(len(batches)):
        batch = jax.tree.map(jnp.asarray, batches[k])
        start = carry
        if carry:
            start = task.reset(model, carry, batch["reset"], train=False)
        else:
            start = model.initial_carry(4, train=False)
        (metrics, new), logits, following = both(carry, start, batch)
        for name, (total, weight) in metrics.items():
            before = found.get(name, np.zeros(2))
            found[name] = before + np.asarray([total, weight])
        for row, column in zip(*np.nonzero(batch["weights"]), strict=True):
            scores = np.asarray(logits[row, column], np.float64)
            label = batch["labels"][row, column]
            expected[0] -= scores[label] - np.log(np.exp(scores).sum())
            expected[1] += scores.argmax() == label
            expected[2] += 1
        for row in np.flatnonzero(batch["ids"] >= 0) if changes is PAIRS else ():
            scores = np.asarray(following[row], np.float64)
            label = batch["is_next"][row]
            expected[3] -= scores[label] - np.log(np.exp(scores).sum())
            expected[4] += scores.argmax() == label
        carry = new
    card = task.evaluate(model, variables, batches, experiment.cfg)["scores"]
    mean = expected[0] / expected[2]
    assert card["loss"]["value"] == pytest.approx(mean, rel=1e-5)
    assert found["loss"][0] / found["loss"][1] == pytest.approx(mean, rel=1e-5)
    assert card["masked_accuracy"]["value"] == pytest.approx(
        100 * expected[1] / expected[2]
    )
    if changes is PAIRS:
        mean = expected[3] / batches.num_segments
        assert card["next_sentence_loss"]["value"] == pytest.approx(mean, rel=1e-5)
        total, weight = found["next_sentence_loss"]
        assert total / weight == pytest.approx(mean, rel=1e-5)
        right = 100 * expected[4] / batches.num_segments
        assert card["next_sentence_accuracy"]["value"] == pytest.approx(right)


def test_scores_do_not_depend_on_the_batch_size(run):
    task, (model, variables, _, cfg) = run.experiment.task, run.inputs([])
    dataset = run.open_dataset()
    cards = [
        task.evaluate(
            model, variables, dataset.evaluation_batches("test", batch_size=size), cfg
        )["scores"]
        for size in (3, 16)
    ]
    for name, score in cards[0].items():
        assert score["value"] == pytest.approx(cards[1][name]["value"], rel=1e-5)


def test_the_losses_of_tokens_and_pairs_have_equal_weight(folder):
    cfg = masked_config(folder, "transformer", **PAIRS)
    experiment, dataset, variables = opened(cfg)
    batch = jax.tree.map(jnp.asarray, dataset.train_batches()[0])
    call = (variables, (), batch, jax.random.key(0))
    metrics, carry = loss(experiment, train=True)(*call)
    assert metrics.keys() == {"loss", "auxiliary/next_sentence_loss"}
    assert carry == ()
    assert float(metrics["auxiliary/next_sentence_loss"][1]) == 16
    smooth = masked_config(folder, "transformer", label_smoothing=0.1, **PAIRS)
    smoothed, _ = loss(opened(smooth)[0], train=True)(*call)
    assert float(smoothed["loss"][0]) != float(metrics["loss"][0])


def test_a_memory_passes_from_segment_to_segment_until_a_reset(folder):
    cfg = masked_config(folder, "transformer_xl", **STREAMS)
    experiment, dataset, variables = opened(cfg)
    task, model = experiment.task, experiment.model
    batches = dataset.train_batches()
    first, batch = (jax.tree.map(jnp.asarray, batches[k]) for k in (0, 1))
    carry = task.initial_carry(model, 16, train=True)
    _, carry = loss(experiment, train=False)(variables, carry, first, None)
    assert 0 < batch["reset"].sum() < 16
    score = jax.jit(functools.partial(task._score, model, variables))
    with_memory, _ = score(carry, batch)
    fresh = task.initial_carry(model, 16, train=False)
    without, _ = score(fresh, batch)
    differs = np.asarray(with_memory[:, 0] != without[:, 0])
    is_valid = batch["weights"].any(axis=1)
    np.testing.assert_array_equal(differs, ~batch["reset"] & is_valid)


class TestFillMask:
    def test_masks_are_filled_and_ranked(self, run):
        cfg = run.experiment.cfg.copy_and_resolve_references()
        cfg.decode.n_best = 3
        model, variables, lines, _ = run.inputs(["a b <mask> d e f", " ", "D E [MASK]"])
        task = run.experiment.task
        one, blank, two = task.predict_n_best(model, variables, lines, cfg)
        assert one[0][0] == "a b c d e f"
        assert (blank, two[0][0]) == ([], "D E F")
        assert len(one) == len(two) == 3
        scores = [score for _, score in one]
        assert scores == sorted(scores, reverse=True)
        assert 0 < sum(scores) <= 1 + 1e-6
        filled = list(task.predict(model, variables, lines, cfg))
        assert filled == ["a b c d e f", "", "D E F"]

    def test_several_masks_are_filled_by_the_best_combinations(self, run):
        cfg = run.experiment.cfg.copy_and_resolve_references()
        cfg.decode.n_best = 5
        model, variables, lines, _ = run.inputs(["a <mask> c <mask>", "<mask> b c d"])
        task = run.experiment.task
        (both, single) = task.predict_n_best(model, variables, lines, cfg)
        assert len({text for text, _ in both}) == 5
        assert single[0][1] > both[-1][1]
        alone = task.predict_n_best(model, variables, lines[1:], cfg)
        np.testing.assert_allclose(
            [score for _, score in next(alone)], [score for _, score in single], 1e-4
        )

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("a b", "line 2 of the input has no <mask>"),
            ("a " * 20 + "<mask>", "beyond its first 16 tokens"),
        ],
    )
    def test_a_line_without_a_mask_to_fill_is_refused(self, run, line, message):
        lines = ["a <mask>", line]
        with pytest.raises(UserError, match=message):
            list(run.experiment.task.predict(*run.inputs(lines)))
        for option in ("prefix", "document_order"):
            with pytest.raises(UserError, match="is for translation"):
                list(run.experiment.task.predict(*run.inputs(lines), **{option: True}))

    def test_lines_of_token_ids_are_filled_with_ids(self, run):
        ids = " ".join(map(str, run.experiment.task.tokenizer.encode("a b")))
        task = run.experiment.task.with_token_ids()
        (filled,) = task.predict(*run.inputs([f"{ids} <mask>"]))
        assert filled.startswith(f"{ids} ")
        assert run.experiment.task.tokenizer.decode(map(int, filled.split())) == "a b c"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlm.probability": 0.0}, "leaves no token to predict"),
        ({"mlm.probability": 1.0}, "mlm.probability=1.0 must be"),
        ({**PAIRS, **STREAMS}, "set one to False"),
        ({"mlm.short_fraction": 1.5}, "mlm.short_fraction=1.5 must be"),
        ({"mlm.short_fraction": 0.1, **STREAMS}, "set one to 0 or False"),
        ({"keep.metric": "next_sentence_loss"}, "needs mlm.next_sentence=True"),
        ({"z_loss": 0.1}, "z_loss=0.1 must be 0.0"),
        (
            {"data.label_column": "kind", "head.pooling": "mean"},
            "data.label_column=kind must be None; head.pooling=mean must be cls for "
            "task='masked_language_modeling'",
        ),
        ({"data.pair_column": "b"}, "data.pair_column=b must be None"),
        ({"data.tag_column": "b"}, "data.tag_column=b must be None"),
        ({"data.target_column": "b"}, "data.target_column=b must be None"),
        ({"data.reference_columns": ("b",)}, "data.reference_columns"),
        ({"data.unseen_labels": "count"}, "data.unseen_labels=count must be error"),
        ({"head.dropout": 0.1}, "head.dropout=0.1 must be None"),
        ({"head.regression": True}, "head.regression=True must be False"),
    ],
)
def test_invalid_keys_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        validate_config(masked_config(tmp_path, **changes))
