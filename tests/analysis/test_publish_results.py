"""Tests of kept runs, and of the tables of the results pages."""

import json
import re
import shutil
import statistics
from pathlib import Path

import pytest

from analysis.publish_results import MARKED_TABLES, PAGES, keep, update_tables
from helpers.entry_points import ROOT, assert_refused, run
from helpers.small_reports import SAMPLES, make_run
from utils.errors import UserError

FIRST_TABLE = (
    ("cldr", "bleu", 1),
    ("python_stdlib", "bits_per_byte", 3),
    ("multi30k", "bleu", 1),
)
TEXT = "before\n<!-- results/toy -->\n{}<!-- end -->\nafter\n"


@pytest.fixture
def kept(tmp_path):
    """A folder with a kept run in results/toy."""
    run = Path(make_run(tmp_path / "runs" / "rnn"))
    lines = "".join(f"{sample['hypothesis']}\n" for sample in SAMPLES)
    (run / "samples" / "test-4.hypotheses.txt").write_text(lines)
    (run / "samples" / "test-4.references.txt").write_text("the corpus's\n")
    (run / "changes.patch").write_text("code of the user")
    (run / "checkpoints").mkdir()
    keep(str(run), tmp_path / "results" / "toy")
    return tmp_path


def test_a_kept_run_has_no_text_of_the_corpus_and_no_path_of_the_machine(kept):
    folder = kept / "results" / "toy"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    assert files == {
        *("rnn/about.json", "rnn/config.json", "rnn/metrics.jsonl"),
        *("rnn/eval/test-4.json", "rnn/samples/test-4.hypotheses.txt"),
    }
    for path in folder.rglob("*.json*"):
        assert str(kept) not in path.read_text()
    assert json.loads((folder / "rnn/config.json").read_text())["data"]["dir"] is None


def test_a_table_is_regenerated_and_other_text_stays(kept):
    first = update_tables(TEXT.format(""), kept)
    assert first.startswith("before\n")
    assert first.endswith("<!-- end -->\nafter\n")
    assert re.search(r"\| rnn \| 91\.3 \| 90\.1 to 92\.4 \|", first)
    assert update_tables(first, kept) == first
    assert update_tables(first.replace("91.3", "99.9"), kept) == first


def test_the_curve_of_the_first_seed_stands_for_all(kept):
    other = kept / "results" / "toy" / "rnn-1"
    shutil.copytree(other.with_name("rnn"), other)
    config = json.loads((other / "config.json").read_text())
    config["seed"] = config["data"]["seed"] = 1
    (other / "config.json").write_text(json.dumps(config))
    tables = update_tables(TEXT.format(""), kept)
    assert "| rnn (rnn) and 1 more seed | 3, 1 |" in tables
    assert "| rnn (rnn-1) |" in tables
    curves = tables[tables.index("| run | step |") :]
    assert "| rnn (rnn) |" in curves
    assert "| rnn (rnn-1) |" not in curves


def test_a_run_that_is_kept_again_replaces_its_copy(kept):
    made = kept / "runs" / "rnn"
    (made / "eval" / "test-4.json").rename(made / "eval" / "test-5.json")
    keep(str(made), kept / "results" / "toy")
    names = [path.name for path in (kept / "results/toy/rnn/eval").iterdir()]
    assert names == ["test-5.json"]


def test_a_kept_run_survives_a_failed_copy(kept):
    folder = kept / "results" / "toy"
    with pytest.raises(UserError, match="is the kept copy itself"):
        keep(str(folder / "rnn"), folder)
    assert (folder / "rnn" / "config.json").exists()
    (kept / "runs" / "rnn" / "config.json").write_text("nothing")
    with pytest.raises(UserError):
        keep(str(kept / "runs" / "rnn"), folder)
    assert json.loads((folder / "rnn" / "config.json").read_text())
    assert update_tables(TEXT.format(""), kept)  # what was begun is not taken for a run


def test_a_folder_that_is_no_kept_run_is_not_replaced(kept):
    file = kept / "results/toy/rnn/thesis.txt"
    file.write_text("precious")
    with pytest.raises(UserError, match=r"thesis\.txt is of no kept run"):
        keep(str(kept / "runs" / "rnn"), kept / "results" / "toy")
    assert file.read_text() == "precious"


def test_runs_with_the_same_name_are_refused(kept):
    twice = f"--keep={kept / 'runs/rnn'},{kept / 'results/toy/rnn'}"
    done = run("analysis/publish_results.py", twice, f"--into={kept / 'results/new'}")
    assert_refused(done, "same name")
    assert not (kept / "results" / "new").exists()


def test_missing_marks_and_runs_are_refused(kept):
    with pytest.raises(UserError, match="No <!-- results/NAME -->"):
        update_tables("nothing", kept)
    with pytest.raises(UserError, match="contains no runs"):
        update_tables(TEXT.replace("toy", "tay").format(""), kept)
    with pytest.raises(UserError, match="is not a run directory with a score card"):
        keep(str(kept), kept / "results" / "toy")


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_this_project_are_up_to_date(page):
    text = (ROOT / page).read_text(encoding="utf8")
    assert MARKED_TABLES.search(text)
    assert update_tables(text, ROOT / "docs") == text


@pytest.mark.parametrize("model", ["rnn", "transformer", "transformer_xl"])
def test_the_first_table_of_the_readme_matches_the_kept_cards(model):
    shown = []
    for rung, score, digits in FIRST_TABLE:
        seeds = re.compile(rf"{model}(-\d+)?")
        folders = (ROOT / "docs" / "results" / rung).iterdir()
        runs = [folder for folder in folders if seeds.fullmatch(folder.name)]
        cards = [card for run in runs for card in run.glob("eval/test-*.json")]
        assert len(cards) == len(runs) >= 1
        values = [
            json.loads(card.read_text())["scores"][score]["value"] for card in cards
        ]
        text = f"{statistics.mean(values):.{digits}f}"
        if len(values) > 1:
            text += f" ± {statistics.stdev(values):.{digits}f}"
        shown.append(text)
    line = f"| {model} | {' | '.join(shown)} |"
    assert line in (ROOT / "README.md").read_text().splitlines()
