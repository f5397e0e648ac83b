"""A run shows a progress bar on a terminal, and plain lines elsewhere."""

import os
import pty
import subprocess
import sys

import pytest

from conftest import ROOT

PROGRAM = """
import sys
from training.metric_writers import open_console

console = open_console(4, 0, "tokens")
for step in (1, 2):
    console.write(step, "train", {"loss": 2.5 / step, "tokens_per_second": 1234.0})
console.write(2, "validation", {"loss": 1.5, "bleu": 20.0})
print("a warning", file=sys.stderr)
console.write(3, "train", {"loss": 0.75, "tokens_per_second": 1000.0})
"""
PLAIN = [
    "step 1/4  loss 2.5000  1,234 tokens/s  0:00 left",
    "step 2/4  loss 1.2500  1,234 tokens/s  0:00 left",
    "step 2/4  validation: loss 1.5  bleu 20",
    "a warning",
    "step 3/4  loss 0.7500  1,000 tokens/s  0:00 left",
]
BAR, COLOR = "━", "\x1b[38;"


def terminal_output(**settings) -> str:
    """Returns what the program writes to a pseudo-terminal of 120 columns."""
    main, side = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    environment |= {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environment | settings,
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    output = b""
    try:
        while chunk := os.read(main, 4096):
            output += chunk
    except OSError:  # Linux: the other side is closed
        pass
    os.close(main)
    assert process.wait() == 0
    return output.decode()


def test_a_terminal_has_a_bar_below_other_lines():
    output = terminal_output()
    assert BAR in output
    assert COLOR in output
    above = output.index("step 2/4  validation: loss 1.5  bleu 20")
    assert above < output.index("a warning") < output.index("step 3/4  loss 0.7500")
    for line in PLAIN[:2]:
        assert line in output
    assert output.rstrip().endswith("\x1b[?25h")  # the cursor is shown again


@pytest.mark.parametrize("columns", ["64", "80"])
def test_the_bar_leaves_room_for_the_text(columns):
    assert "step 3/4  loss 0.7500  1,000 tokens/s  0:00 left" in terminal_output(
        COLUMNS=columns
    )


def test_a_terminal_without_color_has_a_bar_without_color():
    output = terminal_output(NO_COLOR="1")
    assert BAR in output
    assert COLOR not in output


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_move_its_cursor_has_plain_lines(term):
    assert terminal_output(TERM=term).splitlines() == PLAIN


def test_a_pipe_has_plain_lines():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    lines = sorted(done.stdout.splitlines())  # two streams: the order may differ
    assert lines == sorted(PLAIN)
