"""Tests of knockouts, on small models with random parameters."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.knockout.candidates import (
    distance_bands,
    list_candidates,
    mask_distances,
    select_candidates,
)
from analysis.knockout.context import (
    default_lengths,
    measure_context,
    shortest_sufficient,
)
from analysis.knockout.effects import rank_effects
from analysis.knockout.evaluation import Subject
from analysis.knockout.interventions import (
    ALIGNMENTS,
    Knockout,
    Sites,
    replace_weights,
    switched_off,
    switched_off_by_variables,
    with_knockout,
)
from analysis.knockout.report import (
    format_table,
    markdown,
    result_content,
    write_report,
)
from configs import base
from data.batching.stream import LMEvalBatches
from decoding.config import DecodingConfig
from experiment.build import Experiment, build_experiment, open_dataset
from experiment.restore import TrainedRun
from helpers.architectures import (
    B,
    LanguageModelCase,
    S,
    Seq2SeqCase,
    T,
    V,
    W,
    only,
    small_config,
    tokens,
)
from helpers.labeled_runs import labeled_config, write_colored
from helpers.task_cases import IdTokenizer, decode_options, language_modeling_task
from models.rnn.attention import SingleHeadAttention
from tasks import translation
from tasks.base import token_losses
from tasks.bootstrap import BootstrapBlocks
from tasks.translation_inference import decoder_inputs
from training.run_dir import RunDirectory
from utils.errors import UserError


@dataclasses.dataclass
class Text:
    tokens: np.ndarray
    words: int = 1
    characters: int = 1
    size: int = 1


TEXT = Text(np.random.default_rng(0).integers(4, V, 3 * B * T - 2))
SEGMENTS = LMEvalBatches(TEXT, batch_size=B, length=T)


def trained_run(name, task, case, variables=None):
    cfg = base.get_config(name)
    experiment = Experiment(cfg, task, case.model, {})
    variables = variables or case.variables
    return TrainedRun(RunDirectory("run"), experiment, variables, (7,))


@functools.cache
def text_case(name):
    return LanguageModelCase(name)


def text_subject(name, variables=None):
    run = trained_run(name, language_modeling_task(), text_case(name), variables)
    return Subject(run, "test", SEGMENTS, {})


@functools.cache
def pair_case(name):
    return Seq2SeqCase(name, layers=1)


def pair_batches():
    """Two batches of sentences, numbered in another order."""
    for ids in ([2, 0], [-1, 1]):
        case, labels = pair_case("rnn"), tokens((B, T), V, seed=5)
        weights = np.asarray(case.target_mask) * (np.asarray(ids)[:, None] >= 0)
        yield {
            "source": np.asarray(case.source),
            "source_mask": np.asarray(case.source_mask),
            "target_in": np.asarray(case.target),
            "target_mask": np.asarray(case.target_mask),
            "labels": np.asarray(labels),
            "weights": weights.astype(np.float32),
            "reset": np.zeros(B, bool),
            "ids": np.asarray(ids),
        }


def pair_subject(name, variables=None):
    task = translation.Task({"source": IdTokenizer(W), "target": IdTokenizer(V)})
    run = trained_run(name, task, pair_case(name), variables)
    return Subject(run, "test", list(pair_batches()), {})


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A run, and the batches and inputs of its evaluation."""
    folder = tmp_path_factory.mktemp("colors")
    write_colored(folder)
    cfg = labeled_config(folder, "transformer")
    dataset = open_dataset(cfg)
    experiment = build_experiment(cfg, dataset.tokenizers)
    noise = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: noise.normal(0, 0.5, leaf.shape).astype(np.float32),
        nn.meta.unbox(experiment.parameters()),
    )
    run = TrainedRun(RunDirectory("run"), experiment, {"params": params}, (7,))
    return run, *experiment.task.evaluation_inputs(experiment, dataset, "test")


def one_outcome(subject, knockout=None, **options):
    knockout = knockout or subject.sites.identity()
    [outcome] = subject.outcomes([knockout], 1, **options)
    return outcome


def changed(variables, changes):
    """Variables with functions applied to the leaves whose path ends so."""

    def change(path, leaf):
        name = "/".join(key.key for key in path)
        for end, function in changes.items():
            if name.endswith(end):
                return function(leaf)
        return leaf

    return jax.tree_util.tree_map_with_path(change, variables)


# --- The identity ---


@pytest.mark.parametrize("name", only("transformer_xl"))
def test_the_identity_has_the_losses_of_an_evaluation_of_a_text(name):
    subject = text_subject(name)
    run = subject.run
    model, cfg = run.experiment.evaluation_model, run.experiment.cfg
    card = subject.task.evaluate(model, run.variables, SEGMENTS, cfg)
    found = one_outcome(subject).blocks
    np.testing.assert_array_equal(found.total, card["blocks"].total)
    np.testing.assert_array_equal(found.weight, card["blocks"].weight)
    assert found.mean == card["scores"]["loss"]["value"]


@pytest.mark.parametrize("name", only("transformer"))
def test_the_identity_has_the_losses_of_an_evaluation_of_translations(name):
    subject = pair_subject(name)
    expected = BootstrapBlocks.zeros(3)
    model = subject.run.experiment.evaluation_model
    for batch in pair_batches():
        losses, _ = subject.task._token_losses(model, subject.variables, (), batch)
        indices = np.broadcast_to(batch["ids"][:, None], losses.shape)
        expected.add(indices, np.asarray(losses), batch["weights"])
    np.testing.assert_array_equal(one_outcome(subject).blocks.total, expected.total)


def test_the_identity_has_the_scores_of_an_evaluation_of_labels(classifier):
    run, batches, inputs = classifier
    subject = Subject(run, "test", batches, inputs)
    experiment = run.experiment
    model, cfg = experiment.evaluation_model, experiment.cfg
    card = experiment.task.evaluate(model, run.variables, batches, cfg, **inputs)
    found = one_outcome(subject)
    assert found.scores == {k: v["value"] for k, v in card["scores"].items()}
    assert found.samples == card["samples"]
    np.testing.assert_array_equal(found.blocks.total, card["blocks"].total)


def test_a_part_of_the_batches_is_scored_alone(classifier):
    run, batches, inputs = classifier
    subject = Subject(run, "test", batches, inputs, num_examples=1)
    size = sum(batches[0]["ids"] >= 0)
    assert size < len(inputs["references"])
    found = one_outcome(subject)
    whole = one_outcome(Subject(run, "test", batches, inputs))
    assert len(found.samples) == len(found.blocks.total) == size
    assert all(sample in whole.samples for sample in found.samples)


# --- Heads and layers ---


def test_a_head_that_is_off_has_no_row_in_the_output_projection():
    subject = text_subject("transformer_xl")
    site = "stack/layers_1/self_attention"
    knockout = list_candidates(subject.sites)[f"{site}/head_2"].knockout
    remove = {f"{site}/output/kernel": lambda kernel: kernel.at[1].set(0)}
    without = text_subject("transformer_xl", changed(subject.run.variables, remove))
    found, expected = one_outcome(subject, knockout), one_outcome(without)
    np.testing.assert_allclose(found.blocks.total, expected.blocks.total, rtol=1e-5)
    whole = one_outcome(subject).blocks.total
    assert (abs(found.blocks.total - whole) > 1e-2).all()


def test_a_head_of_cross_attention_is_one_of_the_decoder_alone():
    subject = pair_subject("transformer")
    site = "decoder/layers_0/cross_attention"
    knockout = list_candidates(subject.sites)[f"{site}/head_3"].knockout
    remove = {f"{site}/output/kernel": lambda kernel: kernel.at[2].set(0)}
    without = pair_subject("transformer", changed(subject.run.variables, remove))
    found, expected = one_outcome(subject, knockout), one_outcome(without)
    np.testing.assert_allclose(found.blocks.total, expected.blocks.total, rtol=1e-5)


def test_a_layer_that_is_off_has_output_projections_of_zero():
    subject = text_subject("transformer_xl")
    layer = "stack/layers_0"
    knockout = list_candidates(subject.sites)[layer].knockout
    ends = ("self_attention/output", "feed_forward/down")
    remove = {
        f"{layer}/{end}/{leaf}": jnp.zeros_like
        for end in ends
        for leaf in ("kernel", "bias")
    }
    without = text_subject("transformer_xl", changed(subject.run.variables, remove))
    found, expected = one_outcome(subject, knockout), one_outcome(without)
    np.testing.assert_allclose(found.blocks.total, expected.blocks.total, rtol=1e-5)


def test_the_head_that_does_all_the_work_is_ranked_first():
    """All other branches are 0, and the labels are what the model predicts."""
    site = "stack/layers_1/self_attention"

    def keep_one(kernel):
        return (20 * kernel).at[jnp.asarray([0, 2])].set(0)

    zeros = {"/down/kernel": jnp.zeros_like, "/down/bias": jnp.zeros_like}
    zeros |= {"output/bias": jnp.zeros_like, "head/bias": jnp.zeros_like}
    case = text_case("transformer")
    planted = changed(
        case.variables,
        {f"{site}/output/kernel": keep_one, "/output/kernel": jnp.zeros_like, **zeros},
    )
    subject = text_subject("transformer", planted)
    for batch in subject.batches:
        logits = case.run(batch["tokens"], (), planted)[1]
        batch["labels"] = np.asarray(logits.argmax(axis=-1), np.int32)
    chosen = select_candidates(subject.sites, ["heads"], [], "transformer")
    knockouts = [subject.sites.identity(), *(one.knockout for one in chosen)]
    whole, *outcomes = subject.outcomes(knockouts, 3)
    first, *others = rank_effects(chosen, outcomes, whole)
    assert first.candidate.name == f"{site}/head_2"
    assert first.change.difference > 0.1
    assert all(abs(other.change.difference) < 1e-6 for other in others)


def test_knockouts_at_once_are_those_one_by_one():
    subject = text_subject("transformer_xl")
    knockouts = [one.knockout for one in list_candidates(subject.sites).values()]
    together = [one.blocks.total for one in subject.outcomes(knockouts, 5)]
    alone = [one.blocks.total for one in subject.outcomes(knockouts, 1)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert len(np.unique(np.round(alone, 3), axis=0)) > len(knockouts) / 2


# --- Searches ---


@pytest.mark.parametrize("name", only("rnn", "transformer_xl"))
def test_a_search_has_the_knockouts_of_the_forward_pass(name):
    """The log probabilities of what it finds are those of a forward pass."""
    subject, cfg = pair_subject(name), decode_options(method="beam", beam_size=2)
    cfg.decode.length_penalty = 0.0  # scores are sums of log probabilities
    task, model, batch = subject.task, subject.model, subject.batches[0]
    decoding = DecodingConfig.from_config(cfg.decode)

    def search(knockout):
        variables = with_knockout(subject.variables, knockout)
        with switched_off_by_variables():
            return task.search(model, variables, subject.carry, batch, cfg, decoding)[0]

    @jax.jit
    def score(knockout, found):
        target_in, mask = decoder_inputs(found, task.target)
        source = jnp.asarray(batch["source"]), jnp.asarray(batch["source_mask"])
        inputs = *source, target_in, mask, subject.carry
        with switched_off(knockout):
            losses, _ = token_losses(
                model, subject.variables, inputs, {"labels": found, "weights": mask}
            )
        return -losses.sum(axis=1)

    scores = []
    for one in list_candidates(subject.sites).values():
        knockout = jax.tree.map(jnp.asarray, one.knockout)
        hypotheses = search(knockout)
        expected = score(knockout, hypotheses.tokens[:, 0])
        scores.append(hypotheses.scores[:, 0])
        np.testing.assert_allclose(scores[-1], expected, rtol=1e-4, err_msg=one.name)
    assert len(np.unique(np.round(scores, 3), axis=0)) > len(scores) / 2


def test_generated_texts_have_the_scores_of_an_evaluation():
    subject = pair_subject("rnn")
    texts = [("5 6", "7 8 9"), ("6", "9 9"), ("7", "8")]
    subject.inputs = {"texts": texts}
    subject.run.experiment.cfg.decode.update(max_length=6, method="greedy")
    model, cfg = subject.run.experiment.evaluation_model, subject.run.experiment.cfg
    card = subject.task.evaluate(
        model, subject.variables, subject.batches, cfg, texts=texts
    )
    candidates = list(list_candidates(subject.sites).values())
    knockouts = [subject.sites.identity(), *(one.knockout for one in candidates)]
    whole, *outcomes = subject.generated_outcomes(knockouts)
    assert whole.scores == {k: v["value"] for k, v in card["scores"].items()}
    assert whole.texts.hypotheses == [one["hypothesis"] for one in card["samples"]]
    effects = rank_effects(candidates, outcomes, whole)
    assert list(effects[0].scores) == ["bleu", "chrf"]
    for effect in effects:
        value, test = effect.scores["chrf"]
        assert test.difference == pytest.approx(value - whole.scores["chrf"])
    assert any(one.texts.hypotheses != whole.texts.hypotheses for one in outcomes)
    content = result_content(subject, effects, whole, 1, None)
    assert "change of BLEU" in format_table(content)


def test_texts_of_a_task_without_outputs_are_not_generated():
    subject = text_subject("transformer")
    with pytest.raises(UserError, match="has no generated texts to score"):
        next(subject.generated_outcomes([subject.sites.identity()]))


# --- Distances ---


@pytest.mark.parametrize(
    "name", [pytest.param("transformer", marks=pytest.mark.slow), "transformer_xl"]
)
def test_a_band_of_distances_has_no_weight(name):
    """In the first layer, whose queries and keys do not depend on the knockout."""
    case = text_case(name)
    sites = Sites({}, {}, {"stack": 3 * T}, {})
    low, high = 2, 4
    knockout = mask_distances(sites, "stack", low, high)
    read = tokens((B, T))
    _, _, carry = case.run(tokens((B, T), seed=9), case.carry(B))

    def first_weights(knockout):
        heads = {f"stack/layers_{i}/self_attention": np.ones(3, bool) for i in (0, 1)}
        layers = {f"stack/layers_{i}": np.asarray(True) for i in (0, 1)}
        with switched_off(knockout._replace(heads=heads, layers=layers)):
            options = {"train": False, "mutable": ["intermediates"]}
            apply = jax.jit(functools.partial(case.model.apply, **options))
            _, sown = apply(case.variables, read, carry)
        layer = sown["intermediates"]["stack"]["layers_0"]
        return np.asarray(layer["self_attention"]["attention"][0])

    whole, found = first_weights(sites.identity()), first_weights(knockout)
    num_keys, expected = whole.shape[-1], np.array(whole)
    for query in range(T):
        for key in range(num_keys):
            if low <= num_keys - T + query - key < high:
                expected[:, :, query, key] = 0
    expected /= expected.sum(axis=-1, keepdims=True)
    assert (whole > 0).sum() > (expected > 0).sum()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_bands_cover_all_distances_once():
    assert distance_bands(1) == [(0, 1)]
    assert distance_bands(7) == [(0, 1), (1, 2), (2, 4), (4, 7)]
    assert distance_bands(8) == [(0, 1), (1, 2), (2, 4), (4, 8)]


def test_the_longest_context_is_that_of_the_whole_model():
    subject = text_subject("transformer_xl")
    [num_keys] = subject.sites.distance.values()
    assert num_keys == 3 * T  # memory and segment
    everything = mask_distances(subject.sites, "stack", num_keys)
    nothing = mask_distances(subject.sites, "stack", 1)
    whole, full, own = (
        one.blocks.total
        for one in subject.outcomes([subject.sites.identity(), everything, nothing], 1)
    )
    np.testing.assert_array_equal(full, whole)
    assert (own != whole).any()


def test_context_lengths_are_measured_beside_recl():
    subject = text_subject("transformer_xl")
    found = measure_context(subject, 1, [2, 4, 6], 9, 3.0)
    assert found["positions"] == 9
    assert found["within"] in (None, 2, 4, 6)
    assert len(found["loss"]) == 3
    for key in ("causal", "recl"):
        assert {one["length"] for one in found[key].values()} <= {2, 4, 6}
    with pytest.raises(UserError, match="--lengths up to 99 exceed the 15 keys"):
        measure_context(subject, 1, [33, 66, 99], 9, 3.0)
    assert default_lengths(64) == list(range(8, 65, 8))
    assert default_lengths(5) == [1, 2, 3, 4, 5]


def test_a_sufficient_context_is_one_from_which_on_the_loss_is_near():
    lengths = [2, 4, 6, 8]
    assert shortest_sufficient(lengths, [2.0, 1.009, 1.011, 1.0], 1.0) == 8
    assert shortest_sufficient(lengths, [2.0, 1.009, 1.005, 0.9], 1.0) == 4
    assert shortest_sufficient(lengths, [2.0, 1.0, 1.0, 1.1], 1.0) is None


# --- Alignments of the RNN ---


def alignment(choice, function, *inputs):
    knockout = Knockout({}, {}, {}, {"": np.asarray(ALIGNMENTS.index(choice))})
    with switched_off(knockout):
        return function(*inputs)


@pytest.mark.parametrize("score", ["additive", "dot"])
def test_uniform_alignment_gives_the_mean_of_the_annotations(score):
    attention = SingleHeadAttention(small_config("rnn", score=score))
    draw = np.random.default_rng(0)
    keys = jnp.asarray(draw.normal(size=(B, S, 14 if score == "additive" else 12)))
    query, values = (jnp.asarray(draw.normal(size=(B, n, 12))) for n in (T, S))
    mask = np.arange(S) < np.asarray([[S], [S - 3]])
    inputs = query, keys, values, jnp.asarray(mask[:, None])
    variables = attention.init(jax.random.key(0), *inputs)
    context, _ = alignment("uniform", attention.apply, variables, *inputs)
    for row, length in enumerate((S, S - 3)):
        mean = np.asarray(values)[row, :length].mean(axis=0)
        for one in np.asarray(context)[row]:
            np.testing.assert_allclose(one, mean, rtol=1e-5)
    learned, weights = alignment("learned", attention.apply, variables, *inputs)
    whole = attention.apply(variables, *inputs)
    np.testing.assert_array_equal(learned, whole[0])
    np.testing.assert_array_equal(weights, whole[1])


def test_weights_are_shifted_and_put_on_the_last_position():
    weights = jnp.asarray([[[0.5, 0.3, 0.2, 0.0]], [[0.0, 0.0, 0.9, 0.1]]])
    mask = np.asarray([[[True, True, True, False]], [[False, False, True, True]]])
    found = {
        name: np.asarray(replace_weights(weights, mask, jnp.asarray(i)))
        for i, name in enumerate(ALIGNMENTS)
    }
    np.testing.assert_array_equal(found["learned"], weights)
    shifted = np.asarray([[[0.2, 0.5, 0.3, 0]], [[0, 0, 0.1, 0.9]]], np.float32)
    np.testing.assert_array_equal(found["shifted"], shifted)
    np.testing.assert_array_equal(found["last"], [[[0, 0, 1, 0]], [[0, 0, 0, 1]]])
    empty = replace_weights(
        jnp.zeros((1, 1, 2)), np.zeros((1, 1, 2), bool), jnp.asarray(1)
    )
    np.testing.assert_array_equal(empty, np.zeros((1, 1, 2)))


def test_every_alignment_of_the_rnn_changes_the_loss():
    subject = pair_subject("rnn")
    chosen = select_candidates(subject.sites, [], [], "rnn")
    assert [one.name for one in chosen] == [
        f"decoder/alignment/{name}" for name in ALIGNMENTS[1:]
    ]
    whole = one_outcome(subject).blocks.mean
    outcomes = subject.outcomes([one.knockout for one in chosen], 1)
    assert len({whole, *(one.blocks.mean for one in outcomes)}) == 4


# --- Selection and report ---

SITES = Sites({"s/layers_0/a": 2}, {"s/layers_0": None}, {"s": 4}, {})


@pytest.mark.parametrize(
    ("kinds", "selected", "words"),
    [
        (["limbs"], [], "Unknown kind 'limbs'; choose one of heads, layers"),
        (["alignment"], [], "this rnn has no alignment .* heads, layers, distance"),
        ([], ["s/layers_0/a/head_3"], "no such part; choose among .*a/head_2"),
        ([], ["s/layers_1"], "no such part; choose among s/layers_0"),
        ([], ["s/distance_0+s/distance_1"], "cannot be combined"),
    ],
)
def test_parts_that_a_model_does_not_have_are_refused(kinds, selected, words):
    with pytest.raises(UserError, match=words):
        select_candidates(SITES, kinds, selected, "rnn")


def test_a_model_without_parts_is_refused():
    with pytest.raises(UserError, match="nothing to switch off"):
        select_candidates(Sites({}, {}, {}, {}), [], [], "rnn")


def test_several_parts_are_switched_off_together():
    name = "s/layers_0/a/head_1+s/layers_0+s/distance_2-3"
    [one] = select_candidates(SITES, [], [name], "transformer")
    assert one.kind == "heads+layers+distance"
    assert one.knockout.heads["s/layers_0/a"].tolist() == [False, True]
    assert not one.knockout.layers["s/layers_0"]
    assert one.knockout.distance["s"].tolist() == [2, 4]


def test_the_report_is_beside_the_attention_page_of_the_model(classifier, tmp_path):
    run, batches, inputs = classifier
    subject = Subject(run, "test", batches, inputs)
    chosen = select_candidates(subject.sites, [], [], "transformer")
    knockouts = [subject.sites.identity(), *(one.knockout for one in chosen)]
    whole, *outcomes = subject.outcomes(knockouts, 1)
    effects = rank_effects(chosen, outcomes, whole)
    content = result_content(subject, effects, whole, 1, None)
    layer = {"layer": "encoder/stack/layers_0/self_attention"}
    attention = {"title": content["title"], "texts": [{"maps": [layer]}]}
    (tmp_path / "attention.json").write_text(json.dumps(attention))
    page, numbers, _ = write_report(content, tmp_path)
    html = page.read_text()
    assert 'href="attention.html#text=0&amp;layer=0&amp;head=1"' in html
    assert 'href="knockout.html"' in (tmp_path / "attention.html").read_text()
    found = json.loads(numbers.read_text())["knockouts"]
    changes = [one["loss"]["change"] for one in found]
    assert changes == sorted(changes, reverse=True)
    assert {one["kind"] for one in found} == {"heads", "layers", "distance"}
    assert all("change" in one["scores"]["accuracy"] for one in found)
    table = markdown(content)
    assert all(f"| {one['name']} |" in table for one in found)
    assert found[0]["name"] in format_table(content)
    (tmp_path / "attention.json").write_text(json.dumps({**attention, "title": "x"}))
    write_report(content, tmp_path)
    assert "attention.html" not in page.read_text()
