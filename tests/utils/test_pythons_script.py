"""scripts/test_pythons.sh, with programs in place of Pythons that note their calls."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "test_pythons.sh"
PYTHON = """#!/bin/sh
echo "$0 $*" >>calls.txt
case "$0 $*" in
  *"{failing}"*) exit 3 ;;
  *"-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  *version_info*) echo {version} ;;
  *__version__*) echo 0.10.2 ;;
esac
"""


@pytest.fixture
def run(tmp_path):
    """Runs the script with Python 3.11, which is absent, and the given ones."""
    requirements = "# all\njax[cpu]>=0.10.2,<0.13  # newest\nBabel==2.18.0\n"
    (tmp_path / "requirements.txt").write_text(requirements)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/dev.txt").write_text("pytest>=8,<10\n")

    def call(*versions, failing="nothing"):
        for version in versions:
            file = tmp_path / f"python{version}"
            file.write_text(PYTHON.format(failing=failing, version=version))
            file.chmod(0o755)
        pythons = [
            str(tmp_path / f"python{version}") for version in ("3.11", *versions)
        ]
        command = ["sh", str(SCRIPT), *pythons]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    return call


def test_each_python_and_the_lowest_versions_are_tried(run, tmp_path):
    ended = run("3.12", "3.13")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "",
        "3.12 (jax 0.10.2): passed",
        "3.13 (jax 0.10.2): passed",
        "lowest (jax 0.10.2): passed",
    ]
    assert (tmp_path / ".venv-lowest.txt").read_text() == "jax==0.10.2\npytest==8\n"
    calls = (tmp_path / "calls.txt").read_text().splitlines()
    assert f"{tmp_path}/python3.12 -m venv .venv-lowest" in calls
    for name in ("3.12", "3.13", "lowest"):
        calls_of_one = [call for call in calls if call.startswith(f".venv-{name}/")]
        for step in ("-m pip install", "-m ruff format", "-m ruff check", "-m pytest"):
            assert sum(step in call for call in calls_of_one) == 1, (name, step)
        (installation,) = (call for call in calls_of_one if "-m pip" in call)
        assert ("--constraint .venv-lowest.txt" in installation) == (name == "lowest")


@pytest.mark.parametrize(
    "failing",
    [
        "-m venv .venv-3.13",
        ".venv-3.13/bin/python -m pip",
        ".venv-3.13/bin/python -m ruff format",
        ".venv-3.13/bin/python -m ruff check",
        ".venv-3.13/bin/python -m pytest",
    ],
)
def test_a_failure_is_named_and_does_not_keep_the_others_from_running(run, failing):
    ended = run("3.12", "3.13", failing=failing)
    assert ended.returncode == 1
    results = [line.split() for line in ended.stdout.splitlines()[-3:]]
    assert [(result[0].rstrip(":"), result[-1]) for result in results] == [
        ("3.12", "passed"),
        ("3.13", "FAILED"),
        ("lowest", "passed"),
    ]


def test_a_failure_with_the_lowest_versions_is_named(run):
    ended = run("3.12", failing=".venv-lowest/bin/python -m pytest")
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1] == "lowest (jax 0.10.2): FAILED"


def test_without_any_python_it_fails(run):
    ended = run()
    assert ended.returncode == 1
    assert "None of these Pythons was found" in ended.stderr
