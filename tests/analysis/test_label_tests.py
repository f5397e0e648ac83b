"""Paired tests of labels and tags, against exact p values and known differences."""

import json
import math

import numpy as np
import pytest

from analysis import label_tests, paired_tests
from analysis.report.score_cards import ScoreCard, compare_cards
from helpers.entry_points import assert_refused, run
from tasks.text_metrics.base import percentage
from tasks.understanding import label_metrics, semeval, span_metrics
from utils.errors import UserError


@pytest.fixture(autouse=True)
def few_trials(monkeypatch):
    monkeypatch.setattr(paired_tests, "TRIALS", 300)
    monkeypatch.setattr(paired_tests, "SAMPLES", 300)


def samples(references, hypotheses):
    rows = zip(references, hypotheses, strict=True)
    return [{"source": "", "reference": a, "hypothesis": b} for a, b in rows]


def drawn(names, errors, count=200, seed=0):
    """Samples of two systems with these rates of errors, of the same references."""
    draw = np.random.default_rng(seed)
    references = draw.choice(names, count)
    systems = []
    for rate in errors:
        wrong = draw.random(count) < rate
        systems.append(np.where(wrong, draw.choice(names, count), references).tolist())
    return references.tolist(), systems


def compare_samples(first, second, names):
    statistics = label_tests.label_statistics((first, second), names)
    return {name: entry.compare() for name, entry in statistics.items()}


def compare_correct(first, second):
    sides = [np.stack([side, np.ones(len(side))], 1) for side in (first, second)]
    return label_tests.compare_correct(*sides, percentage)


def values(scores):
    return {name: score["value"] for name, score in scores.items()}


@pytest.mark.parametrize(("alone", "other"), [(0, 0), (1, 0), (2, 7), (5, 5), (0, 9)])
def test_mcnemar_is_the_binomial_test_of_what_one_system_alone_has_right(alone, other):
    first = np.asarray([True] * alone + [False] * other + [True, False] * 15)
    second = np.asarray([False] * alone + [True] * other + [True, False] * 15)
    found = compare_correct(first, second)
    total = alone + other
    tail = sum(math.comb(total, k) for k in range(min(alone, other) + 1)) / 2**total
    assert found.randomisation == pytest.approx(min(1, 2 * tail))
    assert found.difference == pytest.approx(100 * (other - alone) / (total + 30))


def test_a_score_that_is_not_finite_has_no_p_value():
    rows = np.ones((30, 1))
    found = paired_tests.compare(rows, rows, lambda sums: math.nan)
    assert math.isnan(found.difference)
    assert math.isnan(found.randomisation)
    assert found.bootstrap is None


def test_mcnemar_equals_randomisation_with_all_swaps():
    first, second = (np.asarray([c == "1" for c in x]) for x in ("1110100", "0011011"))
    sides = [np.stack([side, np.ones(7)], 1) for side in (first, second)]
    exact = paired_tests.compare(*sides, lambda sums: sums[0] / sums[1])
    found = compare_correct(first, second)
    assert found.randomisation == pytest.approx(exact.randomisation)


def test_differences_are_those_of_the_scores_of_labels():
    references, systems = drawn(["a", "b", "c"], (0.4, 0.1))
    sides = [samples(references, found) for found in systems]
    tests = compare_samples(*sides, ["accuracy", "macro_f1", "loss"])
    assert tests.keys() == {"accuracy", "macro_f1"}
    one, other = (
        values(label_metrics.score_labels(references, found)) for found in systems
    )
    for name, test in tests.items():
        assert test.difference == pytest.approx(other[name] - one[name])
        assert max(test.randomisation, test.bootstrap) < 0.02
        assert 0 < test.interval[0] < test.difference < test.interval[1]


def test_differences_are_those_of_the_scores_of_relations():
    names = ["A(e1,e2)", "A(e2,e1)", "B(e1,e2)", "Other"]
    references, systems = drawn(names, (0.5, 0.2))
    sides = [samples(references, found) for found in systems]
    tests = compare_samples(*sides, ["official_f1", "micro_f1"])
    one, other = (
        values(semeval.score_relations(references, found, official=True))
        for found in systems
    )
    for name in ("official_f1", "micro_f1"):
        assert tests[name].difference == pytest.approx(other[name] - one[name])


def test_differences_are_those_of_the_scores_of_entities():
    draw = np.random.default_rng(0)
    tags = ["O", "B-X", "I-X", "B-Y", "I-Y"]
    sentences = [draw.choice(tags, 5).tolist() for _ in range(80)]
    systems = [
        [np.where(draw.random(5) < rate, "O", tags).tolist() for tags in sentences]
        for rate in (0.4, 0.1)
    ]
    texts = [[" ".join(tags) for tags in side] for side in (sentences, *systems)]
    sides = [samples(texts[0], found) for found in texts[1:]]
    names = ["f1", "strict_f1", "sentence_accuracy", "token_accuracy"]
    tests = compare_samples(*sides, names)
    one, other = (values(span_metrics.score_tags(sentences, side)) for side in systems)
    for name in names:
        assert tests[name].difference == pytest.approx(other[name] - one[name])
        assert tests[name].randomisation < 0.02


def test_differences_are_those_of_correlations():
    draw = np.random.default_rng(0)
    x = draw.normal(3, 1, 100)
    systems = [x + draw.normal(1, noise, 100) for noise in (2.0, 0.5)]
    sides = [samples(map(str, x), map(str, y)) for y in systems]
    test = compare_samples(*sides, ["pearson", "spearman"])["pearson"]
    one, other = (values(label_metrics.score_grades(x, y)) for y in systems)
    assert test.difference == pytest.approx(other["pearson"] - one["pearson"])
    assert test.randomisation < 0.02


def test_constant_grades_have_no_correlation_in_any_sample():
    grades = ["0.1"] * 39 + ["0.4"]
    systems = [samples(grades, grades)] * 2
    entry = label_tests.label_statistics(systems, ["pearson"])["pearson"]
    rows = entry.rows[0]
    assert entry.score(rows.sum(axis=0)) == pytest.approx(100)
    assert entry.score(rows[:3].sum(axis=0)) == 0  # the sums of squares differ by 1e-19


def test_intents_count_in_sentence_accuracy():
    rows = [{"reference": "O", "hypothesis": "O", "reference_intent": "a"}] * 30
    first = [{**row, "hypothesis_intent": "b"} for row in rows]
    second = [{**row, "hypothesis_intent": "a"} for row in rows]
    names = ["sentence_accuracy", "intent_accuracy"]
    tests = compare_samples(first, second, names)
    assert [test.difference for test in tests.values()] == [100, 100]
    assert tests["intent_accuracy"].randomisation == pytest.approx(2 / 2**30)


def test_predictions_that_are_missing_are_refused():
    """Scores of a run's log have none."""
    rows = [{"reference": "a", "hypothesis": "a"}]
    for sides in ((rows, []), ([], rows), ([], [])):
        with pytest.raises(UserError, match=r"predictions are missing; run eval\.py"):
            compare_samples(*sides, ["accuracy"])


def test_other_references_are_refused():
    with pytest.raises(UserError, match="references of the cards differ"):
        compare_samples(samples(["a"], ["a"]), samples(["b"], ["a"]), ["accuracy"])


def test_cards_of_tags_without_entities_are_compared():
    cards = []
    for hypothesis in ("N V", "N N"):
        rows = samples(["N V"] * 30, [hypothesis] * 30)
        content = {"split": "test", "scores": {"token_accuracy": {"value": 0}}}
        cards.append(ScoreCard("card", content, rows, ["N V"] * 30))
    tests, _ = compare_cards(*cards)
    assert tests.keys() == {"token_accuracy"}
    assert tests["token_accuracy"].difference == -50


def test_cards_of_labels_are_compared_and_other_references_are_told():
    def card(references, found):
        rows = samples(references, found)
        scores = values(label_metrics.score_labels(references, found))
        content = {
            "split": "test",
            "scores": {k: {"value": v} for k, v in scores.items()},
        }
        return ScoreCard("card", content, rows, references)

    references, systems = drawn(["a", "b"], (0.4, 0.1), count=40)
    first, second = (card(references, found) for found in systems)
    tests, reasons = compare_cards(first, second)
    assert tests.keys() == {"accuracy", "macro_f1"}
    assert [reason.split(":")[0] for reason in reasons] == ["loss"]
    other = card(references[::-1], systems[1])
    tests, reasons = compare_cards(first, other)
    assert not tests
    assert reasons[0] == "labels: the references of the cards differ"


def write_run(folder, references, found, scores):
    """Writes what an evaluation leaves in a run directory."""
    rows = samples(references, found)
    files = {
        "eval/test-1.json": json.dumps(
            {
                "split": "test",
                "step": 1,
                "scores": {k: {"value": v} for k, v in values(scores).items()},
                "protocol": {"data": "a"},
            }
        ),
        "samples/test-1.jsonl": "".join(f"{json.dumps(row)}\n" for row in rows),
        "samples/test-1.references.txt": "".join(f"{text}\n" for text in references),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_the_command_tests_two_classifiers_and_two_taggers(tmp_path):
    references, systems = drawn(["a", "b"], (0.6, 0.1), count=60)
    tags = [["B-P I-P O", "O B-Q"][text == "a"] for text in references]
    found = [["B-P O O", "O O"], ["B-P I-P O", "O O"]]
    for k in (0, 1):
        score = label_metrics.score_labels(references, systems[k])
        write_run(tmp_path / f"classifier-{k}", references, systems[k], score)
        guess = [found[k][text == "a"] for text in references]
        split = [[text.split() for text in side] for side in (tags, guess)]
        score = span_metrics.score_tags(*split)
        write_run(tmp_path / f"tagger-{k}", tags, guess, score)
    for kind, name in (("classifier", "accuracy"), ("tagger", "f1")):
        cards = ",".join(str(tmp_path / f"{kind}-{k}") for k in (0, 1))
        done = run("analysis/significance.py", f"--cards={cards}")
        assert done.returncode == 0, done.stderr.decode()
        tests = done.stdout.decode().partition(" minus ")[2].splitlines()
        [line] = [line.split() for line in tests if line.split()[:1] == [name]]
        assert float(line[1]) > 20
        assert float(line[3]) < 0.01
    done = run("analysis/significance.py", f"{tmp_path}/tagger-0")
    assert_refused(done, "flag --cards is missing")
