"""Entry points cache compiled programs by default, and never fail because of it."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT
from utils import compilation_cache
from utils.compilation_cache import (
    FOLDER,
    MIN_SECONDS,
    SWITCH,
    enable_compilation_cache,
    remove_oldest,
)

PROGRAM = """
from utils.cli import run_main

def main():
    import jax
    print(jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache)
    jax.jit(lambda x: x * 2 + 1)(3.0)

run_main(main)
"""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment that says nothing of the cache, in a new home."""
    for name in (FOLDER, SWITCH, MIN_SECONDS, "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_programs_are_kept_in_the_cache_of_the_user(environment, monkeypatch):
    enable_compilation_cache()
    assert os.environ[FOLDER] == f"{environment}/.cache/attention-lab/jax"
    monkeypatch.delenv(FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", f"{environment}/other")
    enable_compilation_cache()
    assert os.environ[FOLDER] == f"{environment}/other/attention-lab/jax"
    assert not os.listdir(os.environ[FOLDER])  # no probe stays


@pytest.mark.parametrize("own", ["/own/folder", ""])
def test_a_folder_of_the_user_wins(environment, monkeypatch, own):
    monkeypatch.setenv(FOLDER, own)
    enable_compilation_cache()
    assert os.environ[FOLDER] == own
    assert MIN_SECONDS not in os.environ
    assert not (environment / ".cache").exists()


@pytest.mark.parametrize("value", ["false", "0", "False", "off"])
def test_one_variable_switches_it_off(environment, monkeypatch, value):
    monkeypatch.setenv(SWITCH, value)
    enable_compilation_cache()
    assert FOLDER not in os.environ
    assert not (environment / ".cache").exists()


def test_a_folder_that_cannot_be_written_is_reported_once(environment, capsys):
    (environment / ".cache").write_text("a file, so that no user can write below it")
    enable_compilation_cache()
    enable_compilation_cache()
    assert FOLDER not in os.environ
    assert os.environ[SWITCH] == "false"
    assert capsys.readouterr().err.count("compiled programs are not cached") == 1


def test_a_full_disk_is_reported(environment, monkeypatch, capsys):
    class Full:
        def __enter__(self):
            raise OSError(28, "No space left on device")

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(compilation_cache.tempfile, "TemporaryFile", lambda dir: Full())
    enable_compilation_cache()
    assert FOLDER not in os.environ
    assert "No space left on device" in capsys.readouterr().err


def test_the_programs_that_were_read_last_stay(tmp_path):
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1000 - age, 1000))
    remove_oldest(tmp_path, 25)
    assert sorted(os.listdir(tmp_path)) == ["middle", "new"]
    remove_oldest(tmp_path, 25)
    assert len(os.listdir(tmp_path)) == 2


def run_program(**settings):
    """Runs a program with an entry point; returns its output and its errors."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split(), done.stderr


def test_an_entry_point_stores_what_it_compiles(environment):
    folder = environment / ".cache" / "attention-lab" / "jax"
    (found, state), errors = run_program(**{MIN_SECONDS: "0"})
    assert (found, state, errors) == (str(folder), "True", "")
    assert os.listdir(folder)


def test_an_entry_point_runs_without_a_home_to_write_to(environment):
    (environment / ".cache").write_text("a file, so that no user can write below it")
    (found, state), errors = run_program()
    assert (found, state) == ("None", "False")
    assert errors.count("compiled programs are not cached") == 1
    assert len(errors.splitlines()) == 1
