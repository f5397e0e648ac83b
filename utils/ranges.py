"""Ranges of the numbers that a user sets."""

import math

from utils.errors import UserError

LARGEST_INT = 2**31 - 1  # of int32, in which devices count
LARGEST_FLOAT = 3e38  # about that of float32
BELOW_ONE = math.nextafter(1, 0)


def check_range(
    name: str, value: float, low: float = -math.inf, high: float = math.inf
) -> None:
    """Checks that a number is in a range and that devices can represent it.

    Raises:
      UserError: it is outside, not finite, or too large for int32 or float32.
    """
    largest = LARGEST_INT if isinstance(value, int) else LARGEST_FLOAT
    lowest, highest = max(low, -largest), largest if high == math.inf else high
    if lowest <= value <= highest:
        return
    allowed = f"in {lowest} to {highest}"
    if high == BELOW_ONE:
        allowed = f"at least {low} and less than 1"
    elif high == math.inf and value < low:
        allowed = f"{low} or more"
    raise UserError(f"{name}={value} must be {allowed}")
