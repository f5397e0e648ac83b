"""Progress of a sweep: summary line, live table, final table and files."""

import io
import json
import re
from pathlib import Path

import pytest

from helpers.toy_sweep import LOSS
from sweeps.objective import Metric
from sweeps.progress import (
    ProgressTable,
    TrialProgress,
    best_trial,
    final_table,
    seconds_left,
    summarize,
)
from sweeps.sweep_dir import SweepDirectory
from sweeps.trial_process import write_exit_code
from sweeps.trial_state import (
    DONE,
    ENDED,
    FAILED,
    OPEN,
    PRUNED,
    RUNNING,
    Trial,
    TrialAttempt,
)


def trial(number, state, value=None, seconds=None):
    attempt = TrialAttempt(
        number,
        number,
        0,
        state if state in ENDED else None,
        point={"optim.lr": 0.1 * number},
        value=value,
        error="boom",
        seconds=seconds,
    )
    return Trial(number, state, () if state == OPEN else (attempt,))


TRIALS = [
    trial(0, DONE, 2.0, 10.0),
    trial(1, DONE, 1.0, 20.0),
    trial(2, PRUNED, 0.5, 6.0),
    trial(3, FAILED, None, 4.0),
    trial(4, RUNNING),
    trial(5, OPEN),
]


def test_one_line_sums_up_a_sweep():
    line = summarize(TRIALS, LOSS, workers=1, fractions=[0.5])
    expected = (
        "2 done, 1 running, 1 pruned, 1 failed, best loss 1 (trial 1), 0:00:15 left"
    )
    assert line == f"6 trials: {expected}"  # 1.5 trials of 10 seconds


def test_a_pruned_trial_is_never_the_best():
    assert best_trial(TRIALS, LOSS).number == 1
    assert best_trial(TRIALS[2:], LOSS) is None
    assert seconds_left(TRIALS[4:], 1, []) is None


def test_the_final_table_begins_with_the_best_and_ends_with_errors():
    lines = final_table(TRIALS[:4], LOSS).splitlines()
    assert [line.split()[0] for line in lines] == ["trial", "1", "0", "2", "3", "boom"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    return Terminal()


def test_on_a_terminal_the_table_is_redrawn_in_place(terminal):
    table = ProgressTable(LOSS, 10, 1, terminal)
    table.show(TRIALS, {4: None})
    first = terminal.getvalue()
    # The summary, the head of the table and the trial that runs.
    text = re.sub(r"\x1b\[[?\d]*[a-zA-Z]", "", first)
    assert [line.split()[0] for line in text.splitlines()] == ["6", "trial", "4"]
    table.show(TRIALS, {4: None})
    second = terminal.getvalue().removeprefix(first)
    assert second.count("\x1b[1A") == 2  # up to the summary
    table.show(TRIALS[:4], {})
    assert "4 trials: " in terminal.getvalue().splitlines()[-1]  # no empty table
    table.close()
    assert terminal.getvalue().rstrip().endswith("\x1b[?25h")  # shows the cursor


def test_elsewhere_a_line_is_written_only_for_news():
    out = io.StringIO()
    table = ProgressTable(LOSS, 10, 1, out)
    for _ in range(3):
        table.show(TRIALS, {4: None})
    table.close()
    (line,) = out.getvalue().splitlines()
    assert line == summarize(TRIALS, LOSS, 1)


def test_the_time_left_is_not_negative_for_trials_of_unknown_length(terminal):
    for steps, cell in ((None, "30"), (10, "30/10")):
        table = ProgressTable(LOSS, steps, 1, terminal)
        table.show(TRIALS, {4: TrialProgress(30, "train loss 1.0")})
        table.close()
        row = rf"4 +optim.lr=0.4 +{cell} +train loss 1.0"
        assert re.search(row, terminal.getvalue())
        *_, left = re.findall(r"(\S+) left", terminal.getvalue())
        assert not left.startswith("-")


def test_damaged_lines_of_metrics_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = [
        json.dumps({"step": step, "split": "validation", "loss": 3.0 - step})
        for step in (1, 2)
    ]
    path.write_text(f'{whole[0]}\n\0\0\0\n[1]\n{{"step": 9}}\n{whole[1]}\n\0\0\n{{"st')
    assert Metric("validation", "loss", "min").values(path) == {1: 2.0, 2: 1.0}
    assert TrialProgress.read(path).step == 2
    path.write_text("\0\n")
    assert TrialProgress.read(path) is None


def test_two_machines_may_write_results_at_once(tmp_path, monkeypatch):
    replace, others = Path.replace, ["other\n"]

    def slow_replace(draft, target):
        if others:
            SweepDirectory(tmp_path)._write("trials.jsonl", others.pop())
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", slow_replace)
    SweepDirectory(tmp_path)._write("trials.jsonl", "own\n")
    assert [path.name for path in tmp_path.iterdir()] == ["trials.jsonl"]
    assert (tmp_path / "trials.jsonl").read_text() == "own\n"


def test_the_exit_code_of_a_trial_is_written_atomically(tmp_path, monkeypatch):
    def full(path, text, **_):
        path.touch()
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="no space"):
            write_exit_code(tmp_path, 0)
    assert not (tmp_path / "exit_code").exists()
    write_exit_code(tmp_path, 3)
    assert (tmp_path / "exit_code").read_text() == "3\n"
