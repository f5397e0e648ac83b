"""Tests of the table of scores, and of the differences between runs."""

import re
from pathlib import Path

import pytest

from analysis.report.comparison import Comparison
from analysis.report.runs import read_run, read_runs
from analysis.report.tables import (
    format_console_table,
    format_duration,
    format_number,
    score_rows,
)
from helpers.small_reports import (
    METRICS,
    TEXT,
    TRANSLATION,
    compare,
    make_run,
    page_of,
    text_of,
    two_runs,
)
from utils.errors import UserError


@pytest.fixture
def two(tmp_path):
    return two_runs(tmp_path)


def cells(comparison):
    return {row.label: row.cells for row in score_rows(comparison)}


def test_a_row_has_scores_and_logged_costs(two):
    row = cells(compare(*two))["rnn"]
    assert row == {
        "BLEU": "91.3",
        "95% interval": "90.1 to 92.4",
        "chrF": "95.5",
        "exact match, %": "80.0",
        "loss": "0.123",
        "parameters": "1,234,567",
        "tokens/s": "60",
        "training time": "1:15",
        "steps": "4",
        "scored step": "4",
    }


def test_baselines_follow_the_runs_in_their_columns(two):
    rows = score_rows(compare(*two))
    labels = ["rnn", "transformer", "copy the source", "nearest neighbour", "unigram"]
    assert [row.label for row in rows] == labels
    assert [row.run for row in rows] == [0, 1, None, None, None]
    found = {row.label: row.cells for row in rows}
    assert found["copy the source"]["BLEU"] == "13.7"
    assert found["nearest neighbour"]["exact match, %"] == "0.0"
    assert found["unigram"]["loss"] == "3.706"
    assert not found["unigram"]["parameters"]


def test_a_baseline_that_differs_names_its_runs(tmp_path):
    one = make_run(tmp_path / "a", baselines={"unigram": {"loss": 3.0}})
    two = make_run(tmp_path / "b", "transformer", baselines={"unigram": {"loss": 2.0}})
    found = cells(compare(one, two))
    assert found["unigram (rnn)"]["loss"] == "3.000"
    assert found["unigram (transformer)"]["loss"] == "2.000"


def test_language_models_have_columns_of_their_own(tmp_path):
    baselines = {"unigram": {"loss": 6.5}}
    path = make_run(
        tmp_path / "a",
        task="language_modeling",
        scores=TEXT,
        baselines=baselines,
        samples=[],
        attention=None,
    )
    row = cells(compare(path))["rnn"]
    scores = ["loss", "perplexity", "word perplexity", "bits/byte"]
    assert [row[name] for name in scores] == ["4.500", "90.02", "130.50", "1.432"]
    assert "BLEU" not in row
    _, tree = page_of(path)
    headings = [text_of(heading) for heading in tree.iter("h2")]
    assert headings == ["Cost", "Runs", "Learning curves"]


def test_an_unknown_score_gets_a_column(tmp_path):
    path = make_run(tmp_path / "a", scores={**TRANSLATION, "comet_da": {"value": 0.5}})
    assert cells(compare(path))["rnn"]["comet da"] == "0.500"


def test_the_latest_scored_step_is_reported(tmp_path):
    make_run(tmp_path / "a", step=12, scores={"bleu": {"value": 2.0}})
    path = make_run(tmp_path / "a", step=9, scores={"bleu": {"value": 1.0}})
    assert cells(compare(path))["rnn"]["BLEU"] == "2.0"


def test_an_incomplete_line_of_the_log_is_left_out(tmp_path):
    path = make_run(tmp_path / "a")
    with (tmp_path / "a" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "spl')
    assert read_run(path).steps == 4


def test_runs_of_one_model_are_labelled_by_their_folders(tmp_path):
    paths = [make_run(tmp_path / name) for name in ("a", "b", "c/b")]
    labels = [run.label for run in read_runs(paths)]
    assert labels == ["rnn (a)", f"rnn ({paths[1]})", f"rnn ({paths[2]})"]


def test_differences_are_of_config_and_protocol_but_not_of_paths(two):
    found = dict(compare(*two).differences)
    assert found == {"model.name": ["rnn", "transformer"], "model.width": ["16", "32"]}


def test_other_data_other_devices_and_incomplete_training_cause_warnings(tmp_path):
    one = make_run(tmp_path / "a")
    short = METRICS[:3]
    two = make_run(tmp_path / "b", "transformer", data="bbbb", device="H200")
    three = make_run(tmp_path / "c", "transformer_xl", metrics=short)
    warnings = compare(one, two, three).warnings()
    assert len(warnings) == 3
    assert "aaaa: rnn, transformer_xl; bbbb: transformer" in warnings[0]
    assert "1 x cpu: rnn, transformer_xl; 1 x H200: transformer" in warnings[1]
    assert warnings[2] == "training of transformer_xl is incomplete: step 2 of 4"
    page, _ = page_of(one, two, three)
    assert page.count('class="warning"') == 3
    assert not compare(one).warnings()


def test_a_run_of_epochs_is_complete_at_its_planned_step(tmp_path):
    def warnings(name, about, config=(("steps", 8), ("epochs", 2.0))):
        run = read_run(make_run(tmp_path / name))  # of 4 steps
        run.config.update(config)
        run.about.update(about)
        return Comparison.from_runs([run]).warnings()

    assert not warnings("all", {"steps": 4})
    assert warnings("half", {"steps": 6})[0].endswith("step 4 of 6")
    assert not warnings("unknown", {})
    assert warnings("steps", {}, {"steps": 8})[0].endswith("step 4 of 8")


def test_numbers_and_times_are_legible():
    assert [format_number(x, 2) for x in (0.005, 1234.5, 2.5e9)] == [
        "0.01",
        "1,234.50",
        "2.50e+09",
    ]
    assert [format_number(x, 1) for x in (float("nan"), float("inf"))] == ["nan", "inf"]
    assert [format_duration(x) for x in (6.6, 754, 3723)] == [
        "0:07",
        "12:34",
        "1:02:03",
    ]


def test_columns_of_the_console_table_are_aligned(two):
    lines = format_console_table(score_rows(compare(*two))).split("\n")
    ends = [[m.end() for m in re.finditer(r"\S+(?: \S+)*", line)] for line in lines]
    assert ends[0][1:] == ends[1][1:] == ends[2][1:]
    assert set(ends[3][1:]) < set(ends[0])


def test_runs_that_count_other_units_share_a_table(tmp_path):
    """As taggers with and without a random field, or a run without a log."""
    words = [
        {k.replace("tokens", "words"): x for k, x in row.items()} for row in METRICS
    ]
    one = make_run(tmp_path / "a")
    other = make_run(tmp_path / "b", metrics=words)
    bare = make_run(tmp_path / "c", metrics=[])
    for runs in ((one, other, bare), (bare, other, one)):
        rows = score_rows(Comparison.from_runs(read_runs([*map(str, runs)])))
        titles = [set(row.cells) for row in rows]
        assert titles == [titles[0]] * len(rows)
        assert {"tokens/s", "words/s"} <= titles[0]
        cells = {row.label: row.cells for row in rows}
        assert cells["rnn (b)"]["words/s"]
        assert not cells["rnn (b)"]["tokens/s"]
        assert not cells["rnn (c)"]["tokens/s"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metrics.jsonl", '{"step": 1, "loss": 2}\n', "metrics.jsonl is damaged"),
        (
            "eval/test-4.json",
            '{"split": "test", "step": "4", "scores": {}}',
            "is damaged: its step is '4'",
        ),
    ],
)
def test_files_without_what_a_report_needs_are_refused(tmp_path, name, text, words):
    run = Path(make_run(tmp_path / "a"))
    (run / name).write_text(text)
    with pytest.raises(UserError, match=words):
        read_run(str(run))
