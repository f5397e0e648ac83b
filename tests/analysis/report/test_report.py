"""Tests of the command report.py, on small run directories."""

from types import SimpleNamespace

import pytest

from analysis.report.renderers import render_html
from analysis.report.runs import read_run, read_runs
from helpers.entry_points import run
from helpers.small_reports import (
    ROOT,
    compare,
    content_of,
    make_run,
    make_sweep,
    two_runs,
)
from utils.errors import UserError


@pytest.fixture
def two(tmp_path):
    return two_runs(tmp_path)


def message_of(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def report(*flags, cwd=ROOT):
    """The finished command, and the text of its standard output and error."""
    done = run("report.py", *flags, cwd=cwd)
    return SimpleNamespace(
        returncode=done.returncode,
        stdout=done.stdout.decode(),
        stderr=done.stderr.decode(),
    )


def test_runs_of_other_tasks_or_splits_are_refused(tmp_path):
    one = make_run(tmp_path / "a")
    text = make_run(tmp_path / "b", task="language_modeling")
    other = make_run(tmp_path / "c", "transformer", split="validation")
    assert "language_modeling: rnn (b)" in message_of(compare, one, text)
    assert "validation: transformer" in message_of(compare, one, other)


def test_a_path_without_a_scored_run_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    path = make_run(tmp_path / "a")
    (tmp_path / "a" / "eval" / "test-4.json").unlink()
    assert "not a directory" in message_of(read_run, str(tmp_path / "none"))
    assert "no config.json" in message_of(read_run, str(tmp_path / "empty"))
    assert f"run eval.py --workdir={path} first" in message_of(read_run, path)
    assert "given twice" in message_of(read_runs, [make_run(tmp_path / "b")] * 2)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"split": "test"}', "\udcff"])
def test_a_damaged_score_card_is_refused_in_one_line(tmp_path, content):
    path = make_run(tmp_path / "a")
    card = tmp_path / "a" / "eval" / "test-4.json"
    card.write_bytes(content.encode(errors="surrogateescape"))
    assert str(card) in message_of(read_run, path)


def test_the_command_writes_the_page_and_prints_the_table(two, tmp_path):
    output = tmp_path / "new" / "folder" / "page.html"
    done = report(f"--runs={','.join(two)}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "translation, toy/en-de, test split"
    assert lines[2].split()[:2] == ["rnn", "91.3"]
    assert lines[-1] == str(output)
    assert output.read_text(encoding="utf8") == render_html(content_of(*two))


@pytest.mark.parametrize(
    "flags", [(), ("--runs=",), ("--runs=,",), ("--runs=nowhere",)]
)
def test_the_command_refuses_a_mistake_in_one_line(flags, tmp_path):
    done = report(*flags, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_command_writes_every_format_and_the_best_config_of_a_sweep(tmp_path):
    sweep = make_sweep(tmp_path / "lr")
    names = [tmp_path / "out" / f"page{ending}" for ending in (".html", ".md", ".json")]
    done = report(f"--runs={sweep}", f"--output={','.join(map(str, names))}")
    assert done.returncode == 0, done.stderr
    best = tmp_path / "out" / "best-lr.py"
    assert done.stdout.splitlines()[-4:] == [*map(str, names), str(best)]
    assert sorted((tmp_path / "out").iterdir()) == sorted([*names, best])


def test_best_configs_of_sweeps_of_one_name_have_different_names(tmp_path):
    runs = ",".join(make_sweep(tmp_path / place / "lr") for place in ("a", "b"))
    done = report(f"--runs={runs}", f"--output={tmp_path}/out/page.md")
    assert done.returncode == 0, done.stderr
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["best-a-lr.py", "best-b-lr.py", "page.md"]


def test_an_output_that_cannot_be_written_is_refused(two, tmp_path):
    wrong = (tmp_path, tmp_path / "a" / "config.json" / "page.html", tmp_path / "a.pdf")
    for output in wrong:
        done = report(f"--runs={two[0]}", f"--output={output}")
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"--output={output}" in done.stderr
