"""Writes docs/configs.md from the keys, defaults and comments of configs/base.py.

python scripts/config_docs.py            writes the page
python scripts/config_docs.py --check    exit code 1 if the page is out of date
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASE = ROOT / "configs" / "base.py"
PAGE = ROOT / "docs" / "configs.md"

HEAD = """# Config keys

<!-- Generated from configs/base.py by scripts/config_docs.py (make docs). -->

A config file starts from `configs/base.py` and sets what differs. Any key can be set on
the command line, for example `--config.model.width=512 --config.optim.lr=1e-3`. An
unknown key is refused with the closest known one. `None` means not set; a key with this
default takes `--config.KEY=None`. Seeds are 0 to 2^32 - 1.
"""
SECTIONS = {
    "": "Experiment",
    "data": "Data",
    "optim": "Optimiser",
    "keep": "Checkpoints that are kept",
    "every": "Intervals",
    "parallel": "Devices",
    "decode": "Decoding (may change after training)",
    "eval": "Evaluation (may change after training)",
    "head": "Heads of language understanding",
    "mlm": "Masked language modeling",
}
Row = tuple[str, str, str]


def comment(lines: list[str], node: ast.AST) -> str:
    """Returns the comment behind a node, or the comment lines above it."""
    behind = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
    if "#" in behind:
        return behind.partition("#")[2].strip()
    above, row = [], node.lineno - 2
    while lines[row].lstrip().startswith("#"):
        above.insert(0, lines[row].strip().lstrip("# "))
        row -= 1
    return " ".join(above)


def default(node: ast.AST) -> str:
    """Returns a default as a config shows it: placeholders are None."""
    is_placeholder = isinstance(node, ast.Call) and "placeholder" in ast.unparse(node)
    return "None" if is_placeholder else ast.unparse(node)


def key_rows(tree: ast.Module, lines: list[str]) -> dict[str, list[Row]]:
    """Returns (key, default, meaning) of every `cfg.key = default`, by section."""
    rows = {section: [] for section in SECTIONS}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            _, *section, key = ast.unparse(node.targets[0]).split(".")
            if isinstance(node.value, ast.Call) and key in (*SECTIONS, "model"):
                continue
            row = key, default(node.value), comment(lines, node)
            rows["".join(section)].append(row)
    return rows


def model_rows(tree: ast.Module, lines: list[str]) -> dict[str, list[Row]]:
    """Returns the rows of the keys of each architecture, shared ones first."""
    values = {
        ast.unparse(node.targets[0]): node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
    }
    models = zip(values["MODELS"].keys, values["MODELS"].values, strict=True)
    sections = {"transformer and transformer_xl": values["STACK"]}
    sections |= {key.value: value for key, value in models}
    return {
        name: [
            (key.value, default(value), comment(lines, value))
            for key, value in zip(node.keys, node.values, strict=True)
            if key is not None
        ]
        for name, node in sections.items()
    }


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
    source = BASE.read_text(encoding="utf8")
    tree, lines = ast.parse(source), source.split("\n")
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
