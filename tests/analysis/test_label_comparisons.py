"""Score cards of labels can be compared whatever reads the texts."""

import pytest

from analysis import paired_tests
from analysis.report.comparison import Comparison
from analysis.report.runs import read_runs
from analysis.report.score_cards import card_statistics, open_card, protocol_differences
from experiment.inference import evaluate, open_runs
from experiment.train import train
from helpers.labeled_runs import labeled_config, write_colored
from helpers.tagged_runs import tagged_config, write_tagged

CLASSIFIERS = (
    {"head.pooling": "max"},
    {"data.tokenizer": "char", "data.lowercase": True, "data.max_length": 40},
)
TAGGERS = {"head.crf": True}, {"data.tokenizer": "char", "data.max_length": 40}


@pytest.fixture(autouse=True)
def few_trials(monkeypatch):
    monkeypatch.setattr(paired_tests, "TRIALS", 100)
    monkeypatch.setattr(paired_tests, "SAMPLES", 100)


@pytest.mark.parametrize(
    ("write", "config", "systems", "score"),
    [
        (write_colored, labeled_config, CLASSIFIERS, "accuracy"),
        (write_tagged, tagged_config, TAGGERS, "f1"),
    ],
)
def test_models_that_read_the_same_texts_in_other_ways_are_compared(
    tmp_path, write, config, systems, score
):
    write(tmp_path / "texts")
    runs = [str(tmp_path / f"run-{number}") for number in range(len(systems))]
    for workdir, changes in zip(runs, systems, strict=True):
        train(config(tmp_path / "texts", steps=2, **changes), workdir)
        evaluate(open_runs([workdir]), "test")
    cards = [open_card(workdir, "test") for workdir in runs]
    assert not protocol_differences(cards)
    statistics, reasons = card_statistics(cards)
    assert score in statistics
    assert reasons == ["loss: the cards are not of the same tokens"]
    warnings = Comparison.from_runs(read_runs(runs)).warnings()
    assert not [text for text in warnings if "differ" in text]

    write(tmp_path / "others")
    path = next((tmp_path / "others").glob("dev.*"))
    path.with_stem("test").write_text(path.read_text())
    other = str(tmp_path / "other")
    train(config(tmp_path / "others", steps=2), other)
    evaluate(open_runs([other]), "test")
    differences = protocol_differences([cards[0], open_card(other, "test")])
    assert any(text.startswith("labeled_texts is") for text in differences)
