"""Text formats that several analyses share: aligned columns and filled templates."""

from collections.abc import Sequence
from pathlib import Path

import jinja2


def align_columns(rows: Sequence[Sequence[str]], alignment: str) -> list[str]:
    """Formats rows with columns of equal width, each aligned by `<` or `>`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [f"{{:{a}{w}}}" for a, w in zip(alignment, widths, strict=True)]
    return ["  ".join(cells).format(*row).rstrip() for row in rows]


def render_template(path: Path, **values) -> str:
    """Fills an HTML template, all texts escaped; an undefined name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(path.name).render(values)
