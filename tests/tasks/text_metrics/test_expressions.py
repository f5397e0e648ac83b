"""Values of expressions, and equations whose solutions are known."""

import math

import numpy as np
import pytest

from tasks.text_metrics.expressions import (
    InvalidExpressionError,
    evaluate,
    is_correct,
)

OPERATORS = "+-*/"


def random_expression(draw, depth):
    """Returns one expression in prefix notation, and in infix with parentheses."""
    if depth == 0 or draw.random() < 0.2:
        number = f"{draw.integers(1, 20) / 2}"
        return number, number
    operator = OPERATORS[draw.integers(4)]
    (a, b), (c, d) = (random_expression(draw, depth - 1) for _ in range(2))
    return f"{operator} {a} {c}", f"( {b} {operator} {d} )"


def test_both_notations_have_the_value_that_python_computes():
    draw, checked = np.random.default_rng(5), 0
    for _ in range(300):
        prefix, infix = random_expression(draw, 4)
        try:
            expected = eval(infix)  # of numbers and operators made above
        except ZeroDivisionError:
            for text in (prefix, infix):
                with pytest.raises(InvalidExpressionError):
                    evaluate(text)
            continue
        checked += 1
        assert math.isclose(evaluate(prefix), expected, rel_tol=1e-12, abs_tol=1e-12)
        assert math.isclose(evaluate(infix), expected, rel_tol=1e-12, abs_tol=1e-12)
    assert checked > 200


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * 4", 14),
        ("2 - 3 - 4", -5),
        ("2 ^ 3 ^ 2", 512),
        ("-2 ^ 2", -4),
        ("- 3", -3),
        ("2 * -3", -6),
        ("2 ** -1", 0.5),
        ("- 3 5", -2),
        ("12×(4－1)÷2".replace("－", "-"), 18),
        ("3*(4+5)", 27),
        ("/ number1 number0", 2.5),
        ("number1-number0", 3),
        ("* number0 100.0", 200),
        ("1e2", 100),
        (".5 + 5.", 5.5),
    ],
)
def test_precedence_signs_and_numbers_of_the_question(text, value):
    assert evaluate(text, [2.0, 5.0]) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "+",
            "+ 1",
            "1 +",
            "1 2",
            "( 1",
            "1 )",
            "()",
            "* / 1 2",
            "1 + + * 2",
        ),
        *("number2", "1 / 0", "/ 1 - 2 2", "x + 1", "two", "9 ^ 9 ^ 9 ^ 9"),
        *("( 0 - 1 ) ^ 0.5", "__import__('os')", "1 = 2", "x = 1 = 2", "x ; y", "1; 2"),
        "(" * 5000 + "1" + ")" * 5000,
        "+ " * 5000 + "1",
        "number" + "1" * 5000,
    ],
)
def test_what_has_no_value_is_invalid_and_nothing_else_happens(text):
    with pytest.raises(InvalidExpressionError):
        is_correct(text, [2.0, 5.0], [1.0])


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [(1000.05, True), (1000.2, False), (999.95, True), (0.0, False)],
)
def test_the_tolerance_of_an_answer_is_relative(answer, is_right):
    assert is_correct("10 ^ 3", [], [answer]) == is_right


def test_the_tolerance_is_absolute_for_small_answers():
    assert is_correct("0.25 + 0.00009", [], [0.25])
    assert not is_correct("0.25 + 0.0002", [], [0.25])
    assert is_correct("1 - 1", [], [0.0])
    assert not is_correct("3", [], [])
    assert not is_correct("3", [], [3.0, 3.0])


@pytest.mark.parametrize(
    ("equations", "answers"),
    [
        ("2 * x + 3 = 11", [4]),
        ("x + y = 10 ; x - y = 2", [6, 4]),
        ("x + y = 10 ; x - y = 2", [4, 6]),  # the order of the unknowns is open
        ("x ^ 2 = 9", [3]),
        ("x ^ 2 = 9", [-3]),
        ("x ^ 2 - 5 * x + 6 = 0", [2, 3]),
        ("x * ( 20 - x ) = 100", [10]),  # a double root
        ("600 / x - 600 / ( x + 10 ) = 5", [30]),
        ("x = 1 / 3", [0.33333]),
        ("x + y = 3 ; x - y = 1 ; 2 * x + y = 5", [2, 1]),
        ("3 = x ; y = x * 4", [3, 12]),
        ("x * number0 = number1", [2.5]),
    ],
)
def test_answers_that_solve_the_equations_are_right(equations, answers):
    assert is_correct(equations, [2.0, 5.0], answers)
    wrong = [answer * 1.01 + 0.5 for answer in answers]
    assert not is_correct(equations, [2.0, 5.0], wrong)


@pytest.mark.parametrize(
    ("equations", "answers"),
    [
        ("x = x", [4]),
        ("x - x = 0", [0]),
        ("x + y = 10", [6, 4]),
        ("x + y = 10 ; 2 * x + 2 * y = 20", [6, 4]),
        ("x + y = 10 ; x = x", [6, 4]),
        ("x = 6 ; x + y = 10", [6]),
        ("x = 6", [6, 4]),
        ("x = 1 / ( x - x )", [1]),
        ("1 / x = 0", [0]),  # there is a pole
        ("1 / ( x - 2 ) = 0", [2]),
        ("x + y = 3 ; x - y = 1 ; 2 * x + y = 9", [2, 1]),
        ("x = 3", []),
    ],
)
def test_equations_that_do_not_determine_the_answers_are_wrong(equations, answers):
    assert not is_correct(equations, [], answers)
