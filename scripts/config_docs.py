"""Writes docs/configs.md from the keys, defaults and comments of configs/base.py.

python scripts/config_docs.py            writes the page
python scripts/config_docs.py --check    exit code 1 if the page is out of date
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from analysis.config_keys import (  # noqa: E402
    SECTIONS,
    Row,
    key_rows,
    model_rows,
    parse_base,
)

PAGE = ROOT / "docs" / "configs.md"

HEAD = """# Config keys

<!-- Generated from configs/base.py by scripts/config_docs.py (make docs). -->

A config file starts from `configs/base.py` and sets what differs. Any key can be set on
the command line, for example `--config.model.width=512 --config.optim.lr=1e-3`. An
unknown key is refused with the closest known one. `None` means not set; a key with this
default takes `--config.KEY=None`. Seeds are 0 to 2^32 - 1.
`train.py --print_config` prints the keys of an experiment and marks what differs from
the defaults.
"""


def section(title: str, rows: list[Row], prefix: str) -> str:
    """Returns a heading and rows as a Markdown table."""
    lines = [f"## {title}", "", "| key | default | meaning |", "| --- | --- | --- |"]
    for key, value, meaning in rows:
        cells = f"`{prefix}{key}`", f"`{value}`", meaning
        cells = (cell.replace("|", "\\|") for cell in cells)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def page() -> str:
    """Returns the text of docs/configs.md."""
    tree, lines = parse_base()
    sections = key_rows(tree, lines)
    parts = [HEAD, section(SECTIONS[""], sections.pop(""), "")]
    for name, rows in model_rows(tree, lines).items():
        parts.append(section(f"Model: {name}", rows, "model."))
    for name, rows in sections.items():
        parts.append(section(SECTIONS[name], rows, f"{name}."))
    return "\n".join(parts)


def main() -> int:
    """Writes the page, or compares it."""
    if "--check" in sys.argv:
        return int(PAGE.read_text(encoding="utf8") != page())
    PAGE.write_text(page(), encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
