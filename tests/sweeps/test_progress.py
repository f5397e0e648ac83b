"""How a sweep goes is told in a line, a live table and a last table, and on disk."""

import io
import json
import re
from pathlib import Path

import pytest

from helpers.toy_sweep import LOSS
from sweeps import ledger
from sweeps.ledger import Attempt, Slot
from sweeps.objective import Metric
from sweeps.progress import Progress, Table, best_slot, final_table, summary, time_left
from sweeps.sweep_dir import SweepDirectory
from sweeps.trial_process import note_end


def slot(number, state, value=None, seconds=None):
    ended = state if state in ledger.ENDED else None
    point = {"optim.lr": 0.1 * number}
    attempt = Attempt(
        number,
        number,
        0,
        ended,
        point=point,
        value=value,
        error="boom",
        seconds=seconds,
    )
    return Slot(number, state, () if state == ledger.OPEN else (attempt,))


SLOTS = [
    slot(0, ledger.DONE, 2.0, 10.0),
    slot(1, ledger.DONE, 1.0, 20.0),
    slot(2, ledger.PRUNED, 0.5, 6.0),
    slot(3, ledger.FAILED, None, 4.0),
    slot(4, ledger.RUNNING),
    slot(5, ledger.OPEN),
]


def test_one_line_says_how_a_sweep_goes():
    told = summary(SLOTS, LOSS, workers=1, shares=[0.5])
    expected = (
        "2 done, 1 running, 1 pruned, 1 failed, best loss 1 (trial 1), 0:00:15 left"
    )
    assert told == f"6 trials: {expected}"  # 1.5 trials of 10 seconds


def test_what_was_stopped_early_is_never_the_best():
    assert best_slot(SLOTS, LOSS).number == 1
    assert best_slot(SLOTS[2:], LOSS) is None
    assert time_left(SLOTS[4:], 1, []) is None


def test_the_last_table_begins_with_the_best_and_ends_with_errors():
    told = final_table(SLOTS[:4], LOSS).splitlines()
    assert [line.split()[0] for line in told] == ["trial", "1", "0", "2", "3", "boom"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_the_table_is_drawn_over_itself():
    out = Terminal()
    table = Table(LOSS, 10, 1, out)
    table.show(SLOTS, {4: None})
    assert len(out.getvalue().splitlines()) == 2  # the summary and a trial that runs
    table.show(SLOTS, {4: None})
    assert "\x1b[2A" in out.getvalue()


def test_elsewhere_a_line_is_written_only_for_news():
    out = io.StringIO()
    table = Table(LOSS, 10, 1, out)
    for _ in range(3):
        table.show(SLOTS, {4: None})
    assert len(out.getvalue().splitlines()) == 1


def test_a_trial_of_epochs_or_of_more_steps_leaves_no_time_below_zero():
    for steps, told in ((None, "step 30  "), (10, "step 30/10  ")):
        out = Terminal()
        Table(LOSS, steps, 1, out).show(SLOTS, {4: Progress(30, "train loss 1.0")})
        assert told in out.getvalue()
        (left,) = re.findall(r"(\S+) left", out.getvalue())
        assert not left.startswith("-")


def test_damaged_lines_of_a_log_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = [
        json.dumps({"step": step, "split": "validation", "loss": 3.0 - step})
        for step in (1, 2)
    ]
    path.write_text(f'{whole[0]}\n\0\0\0\n[1]\n{{"step": 9}}\n{whole[1]}\n\0\0\n{{"st')
    assert Metric("validation", "loss", "min").values(path) == {1: 2.0, 2: 1.0}
    assert Progress.of(path).step == 2
    path.write_text("\0\n")
    assert Progress.of(path) is None


def test_two_machines_may_write_at_once(tmp_path, monkeypatch):
    replace, others = Path.replace, ["other\n"]

    def slow(draft, target):
        if others:
            SweepDirectory(tmp_path)._write("trials.jsonl", others.pop())
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", slow)
    SweepDirectory(tmp_path)._write("trials.jsonl", "own\n")
    assert [path.name for path in tmp_path.iterdir()] == ["trials.jsonl"]
    assert (tmp_path / "trials.jsonl").read_text() == "own\n"


def test_the_end_of_a_trial_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(path, text, **_):
        path.touch()
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="no space"):
            note_end(tmp_path, 0)
    assert not (tmp_path / "exit_code").exists()
    note_end(tmp_path, 3)
    assert (tmp_path / "exit_code").read_text() == "3\n"
