"""Lines of the report that explains a step."""

from types import SimpleNamespace

from analysis.explain import report


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
