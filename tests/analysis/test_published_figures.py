"""Tests of the table of published figures beside kept runs."""

from pathlib import Path

import pytest

from analysis.published_figures import Figure, published_rows, read_figures
from benchmarks.reproduce import RUNGS
from helpers.small_reports import make_run
from models.registry import ARCHITECTURES
from utils.errors import UserError

FIGURES = Path(__file__).parents[2] / "docs/results/published.toml"
TOY = """
[[figures]]
title = "toy"
score = "bleu"
digits = 1
rung = "toy"
published = [{{ model = "{model}", value = {value}, source = "us" }}]
"""


def row(folder, model="rnn", value=91.0, scores=(90.0, 92.0)):
    """The row of runs of an RNN with these scores."""
    for seed, bleu in enumerate(scores):
        card = {"bleu": {"value": bleu}}
        make_run(folder / "toy" / f"rnn-{seed}", scores=card, baselines={})
    path = folder / "published.toml"
    path.write_text(TOY.format(model=model, value=value))
    [found] = published_rows(path)
    return found


def test_a_row_has_mean_deviation_seeds_and_minutes(tmp_path):
    assert row(tmp_path) == {
        "figure": "toy",
        "published": "91.0 (rnn, us)",
        "rnn": "91.0 ± 1.4 (2 seeds, 1 min)",
        "transformer": "",
        "transformer_xl": "",
        "reached": "rnn: yes",
        "rung": "toy",
    }


@pytest.mark.parametrize(
    ("options", "reached"),
    [
        ({"value": 91.1}, "rnn: no, by 0.1"),
        ({"scores": (90.96,)}, "rnn: yes"),  # rounded as the published one
        ({"scores": (90.94,)}, "rnn: no, by 0.1"),
        ({"model": "any"}, "rnn: yes"),
        ({"model": "transformer"}, "transformer: not trained yet"),
        ({"scores": ()}, "not trained yet"),
    ],
)
def test_a_row_says_which_figure_is_reached(tmp_path, options, reached):
    assert row(tmp_path, **options)["reached"] == reached


def test_lower_is_better_where_the_figure_says_so():
    figure = Figure("toy", "loss", "toy", (), digits=2, lower=True)
    assert figure.is_as_good(1.884, 1.88)
    assert not figure.is_as_good(1.886, 1.88)


def test_the_best_architecture_stands_for_any(tmp_path):
    card = {"bleu": {"value": 95.0}}
    run = tmp_path / "toy" / "transformer"
    make_run(run, scores=card, baselines={})
    found = row(tmp_path, model="any", value=94.0)
    assert found["reached"] == "transformer: yes"
    assert found["transformer"] == "95.0 (1 seed, 1 min)"


def test_a_file_without_a_key_is_refused(tmp_path):
    path = tmp_path / "published.toml"
    for text in ('[[figures]]\ntitle = "toy"\n', "figures = [", "other = 1\n"):
        path.write_text(text)
        with pytest.raises(UserError, match="is no list of published figures"):
            read_figures(path)


def test_every_published_figure_is_of_a_rung_and_of_an_architecture():
    for figure in read_figures(FIGURES):
        assert figure.rung in RUNGS
        models = {one["model"] for one in figure.published}
        assert models <= {"any", *ARCHITECTURES}
