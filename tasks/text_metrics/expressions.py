"""Arithmetic expressions and systems of equations, parsed and checked against answers.

An expression is in prefix or infix notation. Its operands are numbers, the numbers of
a question as `number0`, `number1` and so on, and unknowns of one letter. Equations have
infix notation, with ";" between two.
"""

import cmath
import itertools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

TOLERANCE = 1e-4  # relative, and absolute for answers below 1
NEWTON_STEPS = 20
COMPLEX_STEP = 1e-20  # of derivatives (Squire and Trapp 1998)

Values = Mapping[str, complex]  # of the unknowns
Term = Callable[[Values], complex]

OPERATORS: dict[str, Callable[[complex, complex], complex]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": operator.pow,
}
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 3}
SPELLINGS = str.maketrans("×÷−–（）［］[]{}", "*/--()()()()")
TOKEN = re.compile(r"\s*(number\d+|\d+\.?\d*(?:e[+-]?\d+)?|\.\d+|[a-z]\b|[-+*/^()])")
NUMBER = re.compile(r"number(\d+)")


class InvalidExpressionError(ValueError):
    """Error of a text that is no expression, or of one without a value."""


def is_correct(text: str, numbers: Sequence[float], answers: Sequence[float]) -> bool:
    """Returns whether a text has the value of the answer, or the answers as solution.

    Equations are right if the answers, in some order, are an isolated solution of
    theirs, which Newton's method reaches from the answers. An unknown alone may have
    several answers, each a solution.

    Args:
      numbers: the values of `number0`, `number1` and so on.
      answers: one value, or the values of the unknowns; none is never right.

    Raises:
      InvalidExpressionError: the text cannot be evaluated.
    """
    if "=" not in text and ";" not in text:
        value = evaluate(text, numbers)
        return len(answers) == 1 and is_close(value, answers[0])
    residuals, unknowns = parse_equations(text, numbers)
    if len(unknowns) == 1:
        return bool(answers) and all(
            is_solution(residuals, unknowns, [answer]) for answer in answers
        )
    if len(unknowns) != len(answers):
        return False
    orders = itertools.permutations(answers)
    return any(is_solution(residuals, unknowns, order) for order in orders)


def is_close(value: float, answer: float) -> bool:
    """Returns whether a value equals an answer up to TOLERANCE."""
    return abs(value - answer) <= TOLERANCE * max(1.0, abs(answer))


def evaluate(text: str, numbers: Sequence[float] = ()) -> float:
    """Returns the value of an expression without unknowns.

    Raises InvalidExpressionError if there is none.
    """
    term, unknowns = parse(text, numbers)
    if unknowns:
        raise InvalidExpressionError(f"{unknowns[0]} has no value")
    value = _call(term, {})
    if not cmath.isfinite(value) or abs(value.imag) > 1e-9 * max(1, abs(value)):
        raise InvalidExpressionError(f"its value {value} is no real number")
    return value.real


def parse(text: str, numbers: Sequence[float] = ()) -> tuple[Term, list[str]]:
    """Returns a function of the unknowns, and their names in alphabetical order.

    No text is an expression in both notations with different values, except for one
    operand: two operands stand side by side in prefix notation only.

    Raises InvalidExpressionError if the text has neither notation.
    """
    tokens = tokenize(text)
    for token in tokens:
        index = NUMBER.fullmatch(token)
        if index and (len(index[1]) > 9 or int(index[1]) >= len(numbers)):
            raise InvalidExpressionError(
                f"{token[:20]} is not one of the {len(numbers)} numbers of the question"
            )
    try:
        term = _Parser(tokens, numbers).whole("prefix")
    except InvalidExpressionError:
        try:
            term = _Parser(tokens, numbers).whole("infix")
        except RecursionError as error:
            raise InvalidExpressionError("it is nested too deeply") from error
    except RecursionError as error:
        raise InvalidExpressionError("it is nested too deeply") from error
    return term, sorted({token for token in tokens if token.isalpha()})


def tokenize(text: str) -> list[str]:
    """Returns the numbers, unknowns, operators and parentheses of an expression.

    Raises InvalidExpressionError for any other text.
    """
    text = text.translate(SPELLINGS).replace("**", "^").rstrip()
    tokens, position = [], 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if not match:
            rest = text[position:].strip()
            raise InvalidExpressionError(f"{rest[:20]!r} is no part of an expression")
        tokens.append(match[1])
        position = match.end()
    if not tokens:
        raise InvalidExpressionError("it is empty")
    return tokens


class _Parser:
    """Recursive-descent parser of tokens."""

    def __init__(self, tokens: list[str], numbers: Sequence[float]):
        self.tokens, self.numbers, self.position = tokens, numbers, 0

    def whole(self, notation: str) -> Term:
        """Parses all tokens of an expression."""
        term = self.prefix() if notation == "prefix" else self.infix(1)
        if self.position < len(self.tokens):
            raise InvalidExpressionError(f"{self.peek()!r} follows its end")
        return term

    def peek(self) -> str:
        """Returns the next token, or "" at the end."""
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        """Returns the next token and moves on."""
        token = self.peek()
        if not token:
            raise InvalidExpressionError("an operand is missing at its end")
        self.position += 1
        return token

    def operand(self, token: str) -> Term:
        """Returns the value of a number or an unknown."""
        if token.isalpha():
            return lambda values: values[token]
        if token in OPERATORS or token in "()":
            raise InvalidExpressionError(f"{token!r} stands in place of an operand")
        index = NUMBER.fullmatch(token)
        value = complex(self.numbers[int(index[1])] if index else float(token))
        return lambda values: value

    def prefix(self) -> Term:
        """Parses an operator and its operands, or one operand."""
        token = self.take()
        if token not in OPERATORS:
            return self.operand(token)
        return _combine(OPERATORS[token], self.prefix(), self.prefix())

    def infix(self, lowest: int) -> Term:
        """Parses operands with operators of at least a precedence between them."""
        term = self.factor()
        while (token := self.peek()) in OPERATORS and PRECEDENCE[token] >= lowest:
            self.take()
            # A power's exponent may be a power: 2 ^ 3 ^ 2 is 2 ^ 9.
            right = self.infix(PRECEDENCE[token] + (token != "^"))
            term = _combine(OPERATORS[token], term, right)
        return term

    def factor(self) -> Term:
        """Parses an operand, text in parentheses, or a minus sign and its operand."""
        token = self.take()
        if token == "-":
            term = self.infix(PRECEDENCE["^"])
            return lambda values: -term(values)
        if token != "(":
            return self.operand(token)
        term = self.infix(1)
        if self.take() != ")":
            raise InvalidExpressionError("a parenthesis is not closed")
        return term


def _combine(function: Callable, left: Term, right: Term) -> Term:
    return lambda values: function(left(values), right(values))


def parse_equations(
    text: str, numbers: Sequence[float] = ()
) -> tuple[list[Term], list[str]]:
    """Returns left minus right side of each equation, and the unknowns of all.

    Raises InvalidExpressionError for a text without an equation.
    """
    residuals, unknowns = [], set()
    for equation in text.split(";"):
        sides = equation.split("=")
        if len(sides) != 2:
            raise InvalidExpressionError(
                f"{equation.strip()[:40]!r} has {len(sides) - 1} equals signs, not one"
            )
        (left, names), (right, others) = (parse(side, numbers) for side in sides)
        residuals.append(_combine(operator.sub, left, right))
        unknowns |= {*names, *others}
    if not unknowns:
        raise InvalidExpressionError("its equations have no unknown")
    return residuals, sorted(unknowns)


def is_solution(
    residuals: Sequence[Term], unknowns: Sequence[str], answers: Sequence[float]
) -> bool:
    """Returns whether answers are close to an isolated zero of the residuals.

    Newton's method, as least squares where equations outnumber unknowns, starts from
    the answers and must converge to a zero within TOLERANCE of them. Where the Jacobian
    is singular, other values nearby solve the equations, too, but for a double root.
    """
    point = np.asarray(answers, float)
    try:
        for residual in residuals:  # refuses poles, which the complex step misses
            _call(residual, dict(zip(unknowns, map(complex, answers), strict=True)))
        for _ in range(NEWTON_STEPS):
            values, jacobian, scale = _linearize(residuals, unknowns, point)
            if np.linalg.matrix_rank(jacobian) < len(unknowns):
                return len(unknowns) == 1 and _is_double_root(
                    residuals, unknowns, point
                )
            step = np.linalg.lstsq(jacobian, values, rcond=None)[0]
            point = point - step
            if not all(map(is_close, point, answers)):
                return False
            if np.all(np.abs(step) <= 1e-12 * np.maximum(1, np.abs(point))):
                break
        values, _, scale = _linearize(residuals, unknowns, point)
    except (InvalidExpressionError, np.linalg.LinAlgError):
        return False
    return bool(np.all(np.abs(values) <= 1e-9 * np.maximum(1, scale)))


def _is_double_root(residuals, unknowns, point) -> bool:
    """Returns whether the residuals of one unknown are 0 at a point only."""
    nearby = [point * (1 + change) + change for change in (-0.01, 0, 0.01)]
    below, here, above = (_linearize(residuals, unknowns, x)[0] for x in nearby)
    return not here.any() and bool(below.any() and above.any())


def _linearize(residuals, unknowns, point) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the residuals, their Jacobian, and the sizes of their linear terms."""
    columns = []
    for index in range(len(unknowns)):
        moved = dict(zip(unknowns, map(complex, point), strict=True))
        moved[unknowns[index]] += 1j * COMPLEX_STEP
        columns.append([_call(residual, moved) for residual in residuals])
    complete = np.asarray(columns).T
    if not np.isfinite(complete).all():
        raise InvalidExpressionError("it has no finite value")
    jacobian = complete.imag / COMPLEX_STEP
    return complete[:, 0].real, jacobian, np.abs(jacobian) @ np.abs(point)


def _call(term: Term, values: Values) -> complex:
    """Evaluates a term; raises InvalidExpressionError where it has no value."""
    try:
        return complex(term(values))
    except (ZeroDivisionError, OverflowError, RecursionError) as error:
        raise InvalidExpressionError(f"it has no value ({error})") from error


def parse_numbers(text: str) -> list[float]:
    """Returns the numbers of a column, separated by spaces.

    Raises ValueError for a text that is no finite number.
    """
    values = [float(word) for word in text.split()]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{text!r} is not finite")
    return values
