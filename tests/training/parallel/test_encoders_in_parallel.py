"""A step of an encoder's task is the same on every mesh, by pmap and in microbatches.

One program of 8 virtual devices makes all runs (helpers/encoder_parallel_runs.py).
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "helpers" / "encoder_parallel_runs.py"


@pytest.mark.parametrize("which", ["fast", pytest.param("all", marks=pytest.mark.slow)])
def test_three_steps_are_the_same_wherever_their_rows_are(which):
    done = subprocess.run(
        [sys.executable, PROGRAM, which], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == {"tagging", "classification", "masked_documents"}
    layouts = {layout for case in found.values() for layout in case}
    expected = {"data=2 x fsdp=2 x tensor=2", "pmap=8", "3 microbatches"}
    assert layouts == expected
    for case, table in found.items():
        for layout, quantities in table.items():
            assert quantities.keys() == {"loss", "norm", "parameters", "carry"}
            assert max(quantities.values()) < 1e-9, (case, layout, quantities)
