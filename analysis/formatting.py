"""HTML templates that several analyses fill."""

from pathlib import Path

import jinja2

SHARED = Path(__file__).with_name("report")  # has macros and the style sheet


def render_template(path: Path, **values) -> str:
    """Fills an HTML template, all texts escaped; an undefined name is an error.

    It may include templates of its own folder and of SHARED.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, SHARED]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(path.name).render(values)
