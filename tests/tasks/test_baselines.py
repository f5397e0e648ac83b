"""Trivial baselines of translation."""

from types import SimpleNamespace

import pytest

from data.tokenizers.normalization import Normalizer
from data.tokenizers.symbols import ByteTokenizer
from tasks.baselines import first_words, nearest_neighbours, score_baselines
from tasks.text_metrics.scorer import Scorer
from tasks.translation import Task

TRAIN = [
    ("the red house is big", "das rote Haus ist groß"),
    ("5 March 2024", "5. März 2024"),
    ("one of the cats", "eine der Katzen"),
]


def trivial_baselines(train, split, task=None):
    """Scores of the baselines of translation into German."""
    scorer = task.scorer if task else Scorer((), "de", str, lowercase=False)
    normalize_source = task.source.normalizer.normalize_reference if task else str
    corpus = SimpleNamespace(splits={"train": len(train)})
    dataset = SimpleNamespace(corpus=corpus, texts=lambda split: train)
    references = [[target] for _, target in split]
    systems = Task.baseline_names, scorer, normalize_source
    sources = [source for source, _ in split]
    return score_baselines(*systems, dataset, sources, references, {})


def test_the_nearest_neighbour_shares_most_with_the_query():
    known = [source for source, _ in TRAIN]
    queries = ["a red house", "6 March 2024", "cats", "the red house is big"]
    assert nearest_neighbours(known, queries).tolist() == [0, 1, 2, 0]


def test_a_query_without_common_features_gets_some_neighbour():
    assert nearest_neighbours(["abc", "def"], ["東京"])[0] in (0, 1)


def test_baselines_score_copies_and_neighbours():
    found = trivial_baselines(TRAIN, [("5 March 2024", "5. März 2024")])
    assert found["nearest_neighbour"]["exact_match"] == 100
    assert found["copy"]["exact_match"] == 0
    assert found["nearest_neighbour"]["bleu"] == pytest.approx(100)
    assert found["copy"]["bleu"] < 50


@pytest.mark.parametrize("tag", ["", "<2de>"])
def test_baselines_are_scored_with_the_references_of_models(tag):
    """References are lowercased, and the tag of a source is not copied."""
    train = [(f"{tag} {source}".strip(), target) for source, target in TRAIN]
    split = [
        (f"{tag} ONE of the cats".strip(), "One OF the cats"),
        (f"{tag} the red house is big".strip(), "das rote haus ist GROSS"),
    ]
    vocabulary = ByteTokenizer()
    source = vocabulary.with_normalizer(Normalizer("en", True, True, tag))
    target = vocabulary.with_normalizer(Normalizer("de", True, True))
    task = Task({"source": source, "target": target}, languages=("en", "de"))
    found = trivial_baselines(train, split, task)
    assert found["copy"]["exact_match"] == 50
    plain = [(s.removeprefix(f"{tag} ").lower(), t.lower()) for s, t in split]
    lowered = [(s.removeprefix(f"{tag} "), t.lower()) for s, t in train]
    expected = trivial_baselines(lowered, plain)
    assert found["copy"] == expected["copy"]
    assert found["nearest_neighbour"] == expected["nearest_neighbour"]


def test_without_training_pairs_only_copying_is_scored():
    assert trivial_baselines([], [("a", "b")]).keys() == {"copy"}


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("one two three", 2, "one two"),
        ("Dampfschifffahrtskapitän ahoi", 1, "Dampfschifffahrtskapitän"),
        ("naïveté", 2, "naïveté"),
        ("한국어 문장", 1, "한국어"),
        ("the sign 出口 is green", 3, "the sign 出口"),
        ("今天 天气很好", 4, "今天 天"),
        ("我在手机上写中文 on it", 3, "我在手"),
        ("", 3, ""),
    ],
)
def test_the_lead_has_words_or_characters_by_its_script(text, count, expected):
    assert first_words(text, count) == expected
