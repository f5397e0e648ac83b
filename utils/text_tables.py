"""Tables of plain text, with aligned columns."""

from collections.abc import Sequence


def align_columns(rows: Sequence[Sequence[str]], alignment: str) -> list[str]:
    """Formats rows with columns of equal width, each aligned by `<` or `>`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [f"{{:{a}{w}}}" for a, w in zip(alignment, widths, strict=True)]
    return ["  ".join(cells).format(*row).rstrip() for row in rows]
