"""Imports run downwards only; see the layout in README.md."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "models",
    "data",
    "training",
    "decoding",
    "tasks",
    "configs",
    "analysis",
    "sweeps",
)
SPACES = ROOT / "configs" / "sweeps"
PURE = ("distributions", "halton", "points", "spaces", "devices", "leases", "ledger")
GLUE = ("assembly", "checks", "trained_run", "trainable", "experiment")

# Who may name meshes and shardings: training/partitioning.py and its parts.
DEVICES = (
    "partitioning.py",
    "meshes.py",
    "jit_partitioner.py",
    "pmap_partitioner.py",
    "population_partitioner.py",
    "checkpoints.py",
    "device_parts.py",
)

# What a file of each place may import of ours, beside its own package and the three
# that all may import: errors, working_memory and places.
ALLOWED = {
    "models": (),
    "data": ("cli",),
    "training": (),
    "decoding": (),
    "configs": (),
    "spaces": ("sweeps",),
    "tasks": ("decoding",),
    "analysis": ("cli", *GLUE, *PACKAGES),
    "sweeps": (
        "cli",
        "assembly",
        "checks",
        "trainable",
        "experiment",
        "tasks",
        "training",
    ),
    "benchmarks": ("cli", "analysis", *GLUE, *PACKAGES),
    "assembly": ("models", "tasks", "data"),
    "checks": ("assembly", "models", "tasks", "data", "training"),
    "trained_run": ("assembly", "checks", "tasks", "data", "training", "configs"),
    "trainable": ("assembly", "data", "training"),
    "experiment": (*GLUE, "tasks", "data", "training"),
    "cli": (),
    "errors": (),
    "working_memory": (),
    "places": (),
    "entry points": (
        "cli",
        "experiment",
        "trained_run",
        "analysis",
        "configs",
        "sweeps",
    ),
}


def ours() -> set[str]:
    modules = {path.stem for path in ROOT.glob("*.py")}
    return modules | {*PACKAGES, "benchmarks"}


def files():
    for path in sorted(ROOT.glob("*.py")):
        yield path, path.stem if path.stem in ALLOWED else "entry points"
    for package in (*PACKAGES, "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, "spaces" if path.parent == SPACES else package


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(("path", "place"), list(files()), ids=lambda x: str(x))
def test_imports_run_downwards(path, place):
    allowed = {*ALLOWED[place], place, "errors", "working_memory", "places"}
    forbidden = (imported(path) & ours()) - allowed
    assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def test_configs_import_nothing_of_ours_but_the_base():
    for path in (ROOT / "configs").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "configs":
                assert [alias.name for alias in node.names] == ["base"], path


def test_data_does_not_know_jax():
    for path in (ROOT / "data").rglob("*.py"):
        assert not imported(path) & {"jax", "flax", "optax"}, path


def test_spaces_know_neither_jax_nor_optuna():
    files = [ROOT / "sweeps" / f"{name}.py" for name in PURE]
    for path in [*files, *SPACES.rglob("*.py")]:
        assert not imported(path) & {"jax", "flax", "optax", "optuna"}, path


def test_nothing_imports_tensorflow():
    for path, _ in files():
        assert "tensorflow" not in imported(path), path


def test_only_partitioning_names_meshes_and_shardings():
    for path, _ in files():
        if path.name in DEVICES:
            continue
        text = path.read_text(encoding="utf8")
        for word in ("NamedSharding", "pmap(", "make_mesh", "shard_map"):
            assert word not in text, f"{path.relative_to(ROOT)} names {word}"


def test_no_two_modules_that_tests_import_define_the_same_flag():
    # They would be one process's, where absl refuses the second.
    defined = {}
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.ImportFrom) and node.col_offset == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                for module in (node.module, *names):
                    file = ROOT / f"{module.replace('.', '/')}.py"
                    if file.exists():
                        text = file.read_text(encoding="utf8")
                        for flag in re.findall(r'DEFINE_\w+\(\s*"(\w+)"', text):
                            defined.setdefault(flag, set()).add(file.name)
    assert defined  # there are some to be found
    assert not {flag: files for flag, files in defined.items() if len(files) > 1}
