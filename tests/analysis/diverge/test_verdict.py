"""Verdicts are functions of the evidence alone."""

import dataclasses

import pytest

from analysis.diverge.evidence import ArrayDifference, Changed, Comparison, Difference
from analysis.diverge.programs import OperationDifference, ProgramComparison
from analysis.diverge.replay import Parting, Replayed
from analysis.diverge.report import format_report
from analysis.diverge.verdict import Evidence, judge

SEED = Changed("seed", 0, 1)
SMOOTHING = Changed("label_smoothing", 0.0, 0.1)
DEVICES = Changed("devices", ["cpu"], ["cpu", "cpu"])
KERNEL = ArrayDifference("params/kernel", 1e-2, 3.0, 0.1, (1, 2), 50)
MOMENT = ArrayDifference("opt_state/mu/kernel", 1e-2, 1.0, 0.1, (1, 2), 50)
TOKENS = ArrayDifference("batch/tokens", 0.5, 9.0, 3.0, (0, 1), 4)
BIT = dataclasses.replace(KERNEL, count=1, bit=27)
INPUTS = (object(), object())  # of the step before, which no verdict reads


def programs(**changes):
    found = {"first": None, "split": None, "modules": (), "loss": (3.0, 3.0)}
    distances = {"gradients": (), "gradient_distance": 0.0, "update_distance": 0.0}
    return ProgramComparison(**{**found, **distances, **changes})


def operation(name="mul", constants=None):
    return OperationDifference(name, name.startswith("random"), constants, KERNEL)


def parted(*arrays, step=2, before=INPUTS, **evidence):
    replayed = Replayed(0, step, Parting(step, arrays, before), (None, None), (0, 0))
    return Evidence(replayed=replayed, **evidence)


def scaled(size):
    return tuple(dataclasses.replace(one, relative=size) for one in (KERNEL, MOMENT))


def recorded(arrays, *, step=18, equal=17, whose=1, both=False, **evidence):
    """Evidence of replays that are equal, unlike the records of one run or of both."""
    found = Difference("fingerprint", step, equal, arrays)
    mismatches = [found if both or k == whose else None for k in (0, 1)]
    replayed = Replayed(0, step, None, tuple(mismatches), (9, 9))
    records = (Comparison("fingerprint", (1, equal, step), found),)
    return Evidence(records=records, replayed=replayed, **evidence)


def test_runs_whose_records_are_equal_are_equal():
    records = Comparison("log", (1, 2, 3)), Comparison("checkpoint", (3, 5))
    verdict = judge(Evidence(records=records))
    assert str(verdict) == "equal: all arrays and logged values are equal up to step 4"


def test_another_batch_is_different_data():
    key = Changed("data.seed", 0, 1)
    verdict = judge(parted(TOKENS, step=1, before=None, config=(key,)))
    assert verdict.kind == "different data"
    assert "step 1" in verdict.reason
    assert "data.seed is 0 in A and 1 in B" in verdict.reason


def test_other_first_parameters_are_those_of_the_seed_or_of_another_origin():
    assert judge(parted(KERNEL, step=1, before=None, config=(SEED,))).kind == (
        "different random numbers"
    )
    other = Changed("init_from", None, "runs/b")
    verdict = judge(parted(KERNEL, step=1, before=None, config=(SEED, other)))
    assert verdict.kind == "different parameters"
    assert "params/kernel" in verdict.reason


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ({"first": operation("random_seed", ("0", "1"))}, "different random numbers"),
        ({"first": operation("mul", ("0.1", "0.2"))}, "different program"),
        ({"first": operation("mul", ("1", "1.00001"))}, "different program"),
        ({"split": ("exp", "log"), "gradient_distance": 1e-2}, "different program"),
        ({"split": ("exp", "log"), "gradient_distance": 1e-6}, "rounding"),
        ({"split": ("exp", "log"), "loss": (3.0, 3.1)}, "different program"),
        ({"split": ("exp", "log"), "update_distance": 0.5}, "different program"),
    ],
)
def test_a_step_with_equal_inputs_is_judged_by_its_operations(found, kind):
    assert judge(parted(KERNEL, programs=programs(**found))).kind == kind


def test_equal_operations_that_compile_differently_are_rounding():
    assert judge(parted(*scaled(1e-6), programs=programs())).kind == "rounding"
    assert judge(parted(*scaled(1e-2), programs=programs())).kind == "different program"


def test_one_flipped_bit_is_a_change_outside_of_the_program():
    verdict = judge(recorded((BIT,)))
    assert verdict.kind == "different parameters"
    assert "after step 17" in verdict.reason
    assert "bit 27 of params/kernel[1, 2]" in verdict.reason
    assert "the records of A, not of B" in verdict.reason


def test_what_one_run_alone_does_not_repeat_was_changed_outside():
    verdict = judge(recorded(scaled(1e-2), equal=11, step=21, whose=0))
    assert verdict.kind == "different parameters"
    assert "between steps 11 and 21" in verdict.reason
    assert "the records of B, not of A" in verdict.reason


def test_a_small_difference_of_two_machines_is_rounding():
    verdict = judge(recorded(scaled(1e-6), environment=(DEVICES,)))
    assert verdict.kind == "rounding"
    assert "devices" in verdict.reason
    assert judge(recorded(scaled(1e-6), both=True)).kind == "rounding"


def test_a_small_change_of_one_run_on_the_same_machine_is_no_rounding():
    assert judge(recorded(scaled(1e-6))).kind == "different parameters"


def test_a_small_difference_from_the_first_step_is_another_compiled_program():
    """As between a run and the same trial of a population."""
    found = judge(recorded(scaled(1e-6), equal=1, step=2))
    assert found.kind == "rounding"
    assert "the records of A, not of B" in found.reason


def test_a_large_difference_from_the_first_step_is_another_program():
    verdict = judge(recorded(scaled(1e-2), equal=1, step=2))
    assert verdict.kind == "different program"
    assert "after step 1 the runs come apart by 1.0e-02" in verdict.reason


def test_records_alone_are_judged_where_nothing_can_be_replayed():
    def alone(arrays, *, step, equal, **evidence):
        found = Difference("fingerprint", step, equal, arrays)
        return judge(
            Evidence(records=(Comparison("fingerprint", (1, step), found),), **evidence)
        ).kind

    assert alone((TOKENS,), step=5, equal=4) == "different data"
    assert alone((KERNEL,), step=1, equal=0) == "different parameters"
    assert alone((BIT,), step=5, equal=4) == "different parameters"
    assert alone(scaled(1e-6), step=2, equal=1) == "rounding"
    assert alone(scaled(1e-2), step=2, equal=1, config=(SMOOTHING,)) == (
        "different program"
    )
    assert alone(scaled(1e-2), step=2, equal=1, config=(SEED,)) == (
        "different random numbers"
    )


def test_the_smaller_of_parameters_and_moments_tells_rounding():
    # Adam divides rounding errors by themselves, where a gradient is zero.
    arrays = dataclasses.replace(KERNEL, relative=1e-2), scaled(1e-6)[1]
    assert judge(recorded(arrays, environment=(DEVICES,))).kind == "rounding"


def test_the_report_ends_with_the_verdict_and_shortens_lists():
    arrays = [dataclasses.replace(KERNEL, name=f"params/{k}") for k in range(30)]
    growth = tuple((step, 1e-3 * step) for step in range(2, 30))
    evidence = parted(*arrays, config=(SMOOTHING,), programs=programs())
    records = Comparison(
        "log", (1, 2), Difference("log", 2, 1, (), (SMOOTHING,)), growth
    )
    evidence = dataclasses.replace(evidence, records=(records,))
    lines = format_report(evidence, ("runs/a", "runs/b"), ["a note"]).splitlines()
    assert lines[:2] == ["A  runs/a", "B  runs/b"]
    assert "  label_smoothing is 0.0 in A and 0.1 in B" in lines
    assert "  ... and 22 more" in lines
    assert lines[-2] == "a note"
    assert lines[-1] == f"verdict: {judge(evidence)}"
    assert len(lines) < 30
