"""JSON of RFC 8259, which has neither NaN nor infinities."""

import json
import math
from typing import Any


def dumps(content: Any, **options: Any) -> str:
    """Formats JSON as `json.dumps` does, with null for numbers that are not finite."""
    try:
        return json.dumps(content, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_replace_nonfinite(content), allow_nan=False, **options)


def _replace_nonfinite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
