"""Packages of a notebook's kernel: a check, and their installation on Colab.

Imports only the standard library, so that it runs where packages are missing.
"""

import importlib
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from utils.errors import UserError

REQUIREMENT = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?([^#;]*)")
# The packages that bring an accelerator's driver to JAX.
JAX = re.compile(r"^(jax|jaxlib|libtpu)$|^jax-(cuda|rocm)")
LISTED = 4  # missing packages that an error names
IMPORTED = ("experiment.train", "analysis.attention.render", "analysis.report.content")


def check_packages(root: Path) -> None:
    """Checks that this kernel can import what the project requires.

    Args:
      root: the project, which has requirements.txt.

    Raises:
      UserError: a package is missing, has a version that is not allowed, or fails.
    """
    required = read_requirements(root / "requirements.txt")
    missing = [name for name in required if installed_version(name) is None]
    if missing:
        more = len(missing) - LISTED
        names = ", ".join(missing[:LISTED]) + (f" and {more} more" if more > 0 else "")
        raise UserError(f"this kernel has no {names}: {remedy(root)}")
    for name, allowed in required.items():
        version = installed_version(name)
        if not is_allowed(version, allowed):
            raise UserError(
                f"this kernel has {name} {version}, and {name}{allowed} is needed: "
                f"{remedy(root)}"
            )
    for name in IMPORTED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            package = error.name or name
            raise UserError(
                f"this kernel cannot import {package} ({error}): {remedy(root)}"
            ) from error


def remedy(root: Path) -> str:
    """Returns the command that installs the packages into this kernel."""
    return (
        f"run `{sys.executable} -m pip install -r {root / 'requirements.txt'}` in a "
        "terminal, then restart the kernel"
    )


def read_requirements(path: Path) -> dict[str, str]:
    """Returns the allowed versions by package, such as {"optax": ">=0.2.8,<0.3"}."""
    lines = path.read_text(encoding="utf8").splitlines()
    found = filter(None, map(REQUIREMENT.match, lines))
    return {match[1]: match[2].strip() for match in found}


def installed_version(name: str) -> str | None:
    """Returns the version of a package in this kernel; None if it is missing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def is_allowed(version: str, allowed: str) -> bool:
    """Whether a version is one of those that a requirement allows."""
    from packaging.specifiers import SpecifierSet  # ipykernel requires it

    return SpecifierSet(allowed).contains(version, prereleases=True)


def install_packages(root: Path) -> None:
    """Installs the requirements into this kernel, as a hosted notebook needs.

    A JAX that requirements.txt allows stays, with the plugin of its accelerator.
    Another one is replaced by the JAX of the accelerator: requirements/cuda.txt where
    there is an NVIDIA GPU, requirements/tpu.txt where there is a TPU.

    Raises:
      UserError: pip fails, or the kernel already uses packages that were replaced.
    """
    allowed = read_requirements(root / "requirements.txt")["jax"]
    version = installed_version("jax")
    file, kept = root / "requirements.txt", []
    if version is not None and is_allowed(version, allowed):
        kept = [each for each in installed_packages() if JAX.match(each)]
    elif shutil.which("nvidia-smi"):
        file = root / "requirements" / "cuda.txt"
    elif has_tpu():
        file = root / "requirements" / "tpu.txt"
    before = {name: installed_version(name) for name in ("jax", "numpy")}
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        pins = [f"{name}=={installed_version(name)}\n" for name in kept]
        constraints.write_text("".join(pins), encoding="utf8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "-r", str(file)]
        done = subprocess.run([*pip, "-c", str(constraints)], check=False)
    if done.returncode:
        raise UserError(f"pip cannot install {file}: its messages are above")
    replaced = [name for name, v in before.items() if installed_version(name) != v]
    if used := [name for name in replaced if name in sys.modules]:
        raise UserError(
            f"{' and '.join(used)} was replaced while in use: restart the kernel "
            "(Runtime > Restart session), then run all cells again"
        )


def installed_packages() -> list[str]:
    """Returns the normalized names of the packages in this kernel."""
    names = {each.metadata["Name"] for each in metadata.distributions()}
    return sorted(name.lower().replace("_", "-") for name in names if name)


def has_tpu() -> bool:
    """Whether this machine has a TPU, by its device files."""
    return any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists()
