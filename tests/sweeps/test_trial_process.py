"""Tests of the process that trains trials."""

import subprocess
import sys

from helpers.entry_points import ROOT

LEAVE = """
import atexit, time
from sweeps.trial_process import leave

atexit.register(time.sleep, 600)
print("saved", end="")
leave(75)
"""


def test_a_process_whose_clean_up_would_hang_ends_with_its_output():
    command = [sys.executable, "-c", LEAVE]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=120)
    assert (done.returncode, done.stdout) == (75, b"saved")
