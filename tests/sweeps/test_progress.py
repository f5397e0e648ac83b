"""Progress of a sweep: summary line, live table, final table and files."""

import io
import json
import re

import pytest
from rich.console import Console

from helpers.toy_sweep import LOSS
from sweeps.objective import Metric, parse_metrics
from sweeps.progress import (
    ProgressTable,
    best_trial,
    results_table,
    seconds_left,
    summarize,
)
from sweeps.trial_process import write_exit_code
from sweeps.trial_state import (
    DONE,
    ENDED,
    FAILED,
    OPEN,
    PRUNED,
    RUNNING,
    Attempt,
    Trial,
)


def trial(number, state, value=None, seconds=None):
    cost = {"seconds": seconds, "chip_seconds": 4 * (seconds or 0), "lost_seconds": 36}
    end = {"outcome": state, "value": value, "step": 9, **cost}
    if state == FAILED:
        end["error"] = "boom"
    end = end if state in ENDED else None
    attempt = Attempt(number, 0, {"point": {"optim.lr": 0.1 * number}}, None, end)
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


def test_the_table_of_results_begins_with_the_best_and_sums_up_costs():
    out = io.StringIO()
    Console(file=out, width=120).print(results_table(TRIALS, LOSS))
    rows = [line.split() for line in out.getvalue().splitlines()]
    assert [row[0] for row in rows] == ["trial", *"102345", "total"]
    assert rows[1] == ["1", "done", "1", "9", "1", "0.02", "0.01", "optim.lr=0.1"]
    assert rows[4][-1] == "boom"
    assert rows[-1] == ["total", "0.04", "0.04"]


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
    table.show(TRIALS, {4: []})
    first = terminal.getvalue()
    # The summary, the head of the table and the trial that runs.
    text = re.sub(r"\x1b\[[?\d]*[a-zA-Z]", "", first)
    assert [line.split()[0] for line in text.splitlines()] == ["6", "trial", "4"]
    table.show(TRIALS, {4: []})
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
        table.show(TRIALS, {4: []})
    table.close()
    (line,) = out.getvalue().splitlines()
    assert line == summarize(TRIALS, LOSS, 1)


def test_the_time_left_is_not_negative_for_trials_of_unknown_length(terminal):
    for steps, cell in ((None, "30"), (10, "30/10")):
        table = ProgressTable(LOSS, steps, 1, terminal)
        table.show(TRIALS, {4: [{"step": 30, "split": "train", "loss": 1.0}]})
        table.close()
        row = rf"4 +optim.lr=0.4 +{cell} +train loss 1\b"
        assert re.search(row, terminal.getvalue())
        *_, left = re.findall(r"(\S+) left", terminal.getvalue())
        assert not left.startswith("-")


def test_damaged_lines_of_metrics_are_left_out():
    whole = [
        json.dumps({"step": step, "split": "validation", "loss": 3.0 - step})
        for step in (1, 2)
    ]
    text = f'{whole[0]}\n\0\0\0\n[1]\n{{"step": 9}}\n{whole[1]}\n\0\0\n{{"st'
    rows = parse_metrics(text.encode())
    assert Metric("validation", "loss", "min").values(rows) == {1: 2.0, 2: 1.0}
    assert parse_metrics(b"\0\n") == []


def test_the_exit_code_of_a_trial_is_one_line(tmp_path):
    write_exit_code(tmp_path, 3)
    assert (tmp_path / "exit_code").read_text() == "3\n"
