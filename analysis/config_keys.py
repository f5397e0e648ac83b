"""Keys of a config with their defaults and meanings, as configs/base.py has them."""

import ast
from pathlib import Path

from ml_collections import ConfigDict

from configs import base
from training.run_dir import flatten_config

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
COLUMN = 46  # where meanings begin
SHARED = "transformer and transformer_xl"
Row = tuple[str, str, str]


def parse_base() -> tuple[ast.Module, list[str]]:
    """Returns the syntax tree and the lines of configs/base.py."""
    source = Path(base.__file__).read_text(encoding="utf8")
    return ast.parse(source), source.split("\n")


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
    sections = {SHARED: values["STACK"]}
    sections |= {key.value: value for key, value in models}
    return {
        name: [
            (key.value, default(value), comment(lines, value))
            for key, value in zip(node.keys, node.values, strict=True)
            if key is not None
        ]
        for name, node in sections.items()
    }


def meanings(model: str) -> dict[str, str]:
    """Returns the meaning of every key of an experiment with this model."""
    tree, lines = parse_base()
    of_models = model_rows(tree, lines)
    shared = of_models[SHARED] if model in SHARED.split(" and ") else []
    sections = {**key_rows(tree, lines), "model": [*shared, *of_models[model]]}
    named = {
        f"{section}.{key}".removeprefix("."): meaning
        for section, rows in sections.items()
        for key, _, meaning in rows
    }
    return {"model.name": "name of the architecture", **named}


def format_config(cfg: ConfigDict) -> str:
    """Formats every key with its value and meaning, one a line.

    A star marks a value that differs from that of configs/base.py, in brackets.
    """
    name = cfg.model.name
    defaults = flatten_config(base.get_config(name).to_dict())
    texts, lines = meanings(name), []
    for key, value in sorted(flatten_config(cfg.to_dict()).items(), key=_section):
        is_default = value == defaults[key]
        setting = f"{' ' if is_default else '*'} {key} = {value!r}"
        default = "" if is_default else f"[{defaults[key]!r}] "
        lines.append(f"{setting:<{COLUMN}}  # {default}{texts[key]}")
    return "\n".join(lines)


def _section(item: tuple) -> int:
    """Returns the rank of a key's section: experiment, model, then as in `SECTIONS`."""
    section, _, _ = item[0].rpartition(".")
    return ["", "model", *SECTIONS].index(section)
