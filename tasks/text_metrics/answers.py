"""Accuracy of arithmetic expressions, by the values that they have."""

from tasks.text_metrics.base import RowStatistics, Texts, mean_statistics
from tasks.text_metrics.expressions import (
    TOLERANCE,
    InvalidExpressionError,
    is_correct,
    parse_numbers,
)
from utils.errors import UserError


def answer_accuracy(texts: Texts) -> RowStatistics:
    """Computes the percentage of expressions with the value in the column "answer".

    The column "numbers", if there is one, has the values of number0, number1 and so
    on. Systems of equations are right if the answers solve them; see `expressions.py`.
    An expression that cannot be evaluated is wrong; the details have the reason, and
    the protocol their number. An example without an answer is wrong, too.
    """
    answers = _read_numbers(texts, "answer")
    numbers = [[] for _ in answers]
    if "numbers" in texts.columns:
        numbers = _read_numbers(texts, "numbers")
    values, reasons = [], []
    for text, known, answer in zip(texts.hypotheses, numbers, answers, strict=True):
        is_right, reason = False, None
        try:
            is_right = is_correct(text, known, answer)
        except InvalidExpressionError as error:
            reason = str(error)
        values.append(is_right)
        reasons.append(reason)
    protocol = {
        "answer_tolerance": TOLERANCE,
        "invalid_expressions": sum(reason is not None for reason in reasons),
    }
    return mean_statistics(values, protocol, {"invalid": reasons})


def _read_numbers(texts: Texts, column: str) -> list[list[float]]:
    """Reads a column of numbers. Raises UserError for what is no number."""
    rows = []
    for row, text in enumerate(texts.columns[column], start=1):
        try:
            rows.append(parse_numbers(text))
        except ValueError as error:
            raise UserError(
                f"example {row} of the column {column!r} is {text!r}; "
                "eval.metrics='answer_accuracy' needs numbers with spaces between them"
            ) from error
    return rows
