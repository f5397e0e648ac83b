"""Imports run downwards only; see the layout in README.md."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "utils",
    "models",
    "data",
    "training",
    "decoding",
    "tasks",
    "experiment",
    "configs",
    "analysis",
    "sweeps",
)
SPACES = ROOT / "configs" / "sweeps"
PURE = (
    "search_space",
    "devices",
    "trial_state",
)

# Who may name meshes and shardings: training/parallel/ and these.
DEVICES = (
    "training/parallel",
    "training/vmapped_trials/partitioner.py",
    "training/checkpoint.py",
    "models/attention/pallas_tpu/attention.py",
)

# The packages that a file of each package may import, beside its own and `utils`.
ALLOWED = {
    "utils": (),
    "models": (),
    "data": (),
    "training": (),
    "decoding": (),
    "configs": (),
    "search spaces": ("sweeps",),
    "tasks": ("data", "decoding", "models"),
    "experiment": ("configs", "data", "decoding", "models", "tasks", "training"),
    "sweeps": ("experiment", "tasks", "training"),
    "analysis": PACKAGES,
    "benchmarks": (*PACKAGES, "benchmarks"),
    "entry points": ("analysis", "configs", "experiment", "sweeps"),
}

# The same inside of `models`, whose registry names modules as strings.
MODELS = {
    "common": (),
    "attention": ("common",),
    "rnn": ("api", "common"),
    "transformer": ("api", "common", "attention"),
    "transformer_xl": ("common", "attention", "transformer"),
    "heads": ("api", "common"),
}


def files():
    for path in sorted(ROOT.glob("*.py")):
        yield path, "entry points"
    for package in (*PACKAGES, "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, "search spaces" if path.parent == SPACES else package


# A class or function that is imported by its name, such as "data.mixtures:mix".
NAMED = re.compile(rf"({'|'.join(PACKAGES)})(\.\w+)+:\w+")


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of the syntax tree of a file."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf8"))))


@functools.cache
def modules(path: Path) -> set[str]:
    names = set(named_in_strings(path))
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@functools.cache
def named_in_strings(path: Path) -> set[str]:
    """Names "module.name" of strings "module:name"."""
    values = (node.value for node in nodes(path) if isinstance(node, ast.Constant))
    texts = (value for value in values if isinstance(value, str))
    return {text.replace(":", ".") for text in texts if NAMED.fullmatch(text)}


def imported(path: Path) -> set[str]:
    return {name.split(".")[0] for name in modules(path)}


@pytest.mark.parametrize(("path", "place"), list(files()), ids=lambda x: str(x))
def test_imports_run_downwards(path, place):
    allowed = {*ALLOWED[place], place, "utils"}
    entry_points = {file.stem for file in ROOT.glob("*.py")}
    forbidden = (imported(path) & {*PACKAGES, "benchmarks", *entry_points}) - allowed
    assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def test_what_strings_name_exists():
    named = {name: path for path, _ in files() for name in named_in_strings(path)}
    assert len(named) > 10  # there are some to be found
    for name, path in named.items():
        module, _, attribute = name.rpartition(".")
        file = ROOT / f"{module.replace('.', '/')}.py"
        assert file.exists(), f"{path}: {name}"
        body = ast.parse(file.read_text(encoding="utf8")).body
        defined = {getattr(node, "name", None) for node in body}
        assert attribute in defined, f"{path}: {name}"


@pytest.mark.parametrize("package", MODELS)
def test_imports_inside_models_run_downwards(package):
    for path in (ROOT / "models" / package).rglob("*.py"):
        names = {name for name in modules(path) if name.startswith("models.")}
        found = {name.split(".")[1] for name in names}
        assert found <= {package, *MODELS[package]}, path.relative_to(ROOT)


def test_configs_import_nothing_of_ours_but_the_base():
    for path in (ROOT / "configs").glob("*.py"):
        for node in nodes(path):
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
        if path.relative_to(ROOT).as_posix().startswith(DEVICES):
            continue
        text = path.read_text(encoding="utf8")
        for word in ("NamedSharding", "pmap(", "make_mesh", "shard_map"):
            assert word not in text, f"{path.relative_to(ROOT)} names {word}"


def test_no_two_modules_that_tests_import_define_the_same_flag():
    # They would be one process's, where absl refuses the second.
    defined = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
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
