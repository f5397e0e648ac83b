"""Lines of the report that explains a step."""

from types import SimpleNamespace

from analysis.explain import report
from analysis.explain.operations import Operation, Size
from analysis.step_replay.trace import LOOP_INPUT


def operation(primitive, module, direction, inputs, results):
    return Operation((), (), module, direction, primitive, "", inputs, results, False)


def test_a_null_of_the_log_is_told_from_a_value_that_it_lacks():
    row = {"loss": None, "gradient_norm": 0.0}
    assert report._log_row(4, row, 3) == ("4", "not finite", "0", "", "3")
    assert report._log_row(4, row, None)[-1] == ""


def test_no_cause_is_named_without_a_step_to_compare_with():
    finite = SimpleNamespace(is_finite=True)
    explained = SimpleNamespace(
        cause=None, growth=None, examination=finite, reference=None
    )
    assert report._causes(explained) == [
        "no cause is named: there is no other step to compare with"
    ]


def test_the_state_before_the_first_step_is_the_first_one():
    assert [report._steps_after(k) for k in (0, 1, 9)] == [
        "",
        "1 step after ",
        "9 steps after ",
    ]


def test_an_activation_that_a_loop_of_the_backward_pass_reads_is_no_gradient():
    forward, backward = ("decoder", "forward"), ("decoder", "backward")
    operations = [
        operation("dot", "decoder", "forward", (), (1,)),
        operation("dot", "head", "backward", (1,), (2,)),
        operation(LOOP_INPUT, "decoder", "backward", (1, 2), (3, 4)),
        operation("dot", "decoder/cells", "backward", (3, 4), (5,)),
        operation("dot", "decoder", "backward", (5,), (6,)),
    ]
    sizes = {i: Size(0, 0, float(i)) for i in range(1, 7)} | {3: Size(0, 0, 99.0)}
    found = SimpleNamespace(operations=operations, sizes=sizes, masks=())
    assert backward not in (sized := report.layer_sizes(found))
    assert forward not in sized
    assert sized["head", "backward"] == (4.0, 0)
