"""The same run on any number of devices, in any mode: to rounding the same numbers.

One program of 8 virtual devices makes all runs, in float64 (helpers/parallel_runs.py).
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "helpers" / "parallel_runs.py"
LAYOUTS = {"data=8", "fsdp=8", "data=2 x fsdp=2 x tensor=2", "pmap=8"}


def runs(which, folder):
    done = subprocess.run(
        [sys.executable, PROGRAM, which, folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return runs("fast", tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def found_in_all(tmp_path_factory):
    return runs("all", tmp_path_factory.mktemp("runs"))


def check_equality(table, *expected):
    """Loss, gradient norm, parameters and carry, each a share of its size.

    Args:
      expected: layouts of every case.
    """
    for (case, layouts), names in zip(table.items(), expected, strict=True):
        assert layouts.keys() == names
        for layout, quantities in layouts.items():
            assert quantities.keys() == {"loss", "norm", "parameters", "carry"}
            assert max(quantities.values()) < 1e-9, (case, layout, quantities)


def test_ten_steps_are_the_same_on_every_mesh_and_under_pmap(found):
    # Both tasks, both optimisers, with layers that scan and without; all: below.
    mesh = {"data=2 x fsdp=2 x tensor=2"}
    check_equality(found["equality"], mesh, LAYOUTS - {"data=8"})


@pytest.mark.slow
def test_they_are_for_every_architecture_task_and_optimizer(found_in_all):
    check_equality(found_in_all["equality"], *[LAYOUTS] * 12)


@pytest.mark.slow
def test_in_float32_they_are_close(found_in_all):
    assert found_in_all["float32"].keys() == {"data=8"}
    for layout, quantities in found_in_all["float32"].items():
        assert max(quantities.values()) < 1e-5, (layout, quantities)


def test_a_run_goes_on_with_fewer_devices_and_the_same_batches(found):
    assert max(found["resumed"].values()) < 1e-9


@pytest.mark.slow
def test_a_run_in_float32_goes_on_with_fewer_devices(found_in_all):
    assert max(found_in_all["resumed, float32"].values()) < 1e-4


def test_a_watched_step_has_the_same_numbers_on_a_mesh_and_under_pmap(found):
    assert found["watched"] < 1e-4  # norms are in float32


def test_dropout_does_not_depend_on_the_number_of_devices(found):
    assert max(found["dropout"].values()) < 1e-9
    assert found["dropout matters"] > 1e-3


@pytest.mark.slow
def test_a_kernel_on_each_device_gives_what_one_gives(found_in_all):
    assert len(found_in_all["kernel"]) == 2
    for layout, quantities in found_in_all["kernel"].items():
        assert max(quantities.values()) < 1e-5, (layout, quantities)


def test_a_plan_tells_what_a_device_holds_to_the_byte(found):
    assert len(found["planned"]) == 1 + len(LAYOUTS)
    for there, planned in found["planned"]:
        assert there == planned
    one, *others = (there for there, _ in found["planned"])
    assert all(there[2] < one[2] for there in others)  # the carry has rows
    assert any(there[0] < one[0] for there in others)
