"""Exits of entry points: pipes, closed streams, and a JAX without devices."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from conftest import ROOT
from utils import cli

HEAD = "import os, sys; from utils.cli import exit_with\n"
ENDLESS = """
def main():
    while True:
        print("x" * 100, flush={})
"""
STREAMS = """
def main():
    with open(sys.argv[1], "w") as file:
        print(len(sys.stdin.read()), "bytes", file=file)
        os.write(1, b"for the output")
        print("for the output")
"""
DEVICES = """
import jax
def main():
    jax.numpy.zeros(3)
"""


def started(program, *arguments, shell='exec "$@"', **options):
    """A process of a program, by a shell command that gives it its streams."""
    code = f"{HEAD}{program}\nexit_with(main)"
    command = ["sh", "-c", shell, "sh", sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT, **options)


@pytest.mark.parametrize("flush", [True, False])
def test_a_reader_that_ends_first_ends_the_program_silently(flush):
    process = started(ENDLESS.format(flush), stdout=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == -signal.SIGPIPE


def test_another_broken_pipe_is_an_error_in_one_line(capsys):
    def main():
        raise BrokenPipeError(32, "Broken pipe", "a database")

    with pytest.raises(SystemExit, match="2"):
        cli.exit_with(main)
    assert capsys.readouterr().err.startswith("error: [Errno 32] Broken pipe")


def test_closed_streams_are_empty_and_no_file_gets_their_output(tmp_path):
    process = started(STREAMS, tmp_path / "file", shell='exec "$@" <&- >&-')
    assert process.stderr.read() == b""
    assert process.wait() == 0
    assert (tmp_path / "file").read_text() == "0 bytes\n"


def test_output_to_a_full_disk_is_an_error_in_one_line():
    process = started(ENDLESS.format(False), shell='exec "$@" > /dev/full')
    assert process.stderr.read() == b"error: [Errno 28] No space left on device\n"
    assert process.wait() == 2


@pytest.mark.parametrize(
    ("platform", "reason"),
    [("cuda", "none of that kind is visible"), ("nonsense", "known backends")],
)
def test_jax_without_a_device_is_one_line_that_names_the_variable(platform, reason):
    choice = f"JAX_PLATFORMS={platform}"
    process = started(DEVICES, shell=f'{choice} exec "$@"')
    error = process.stderr.read().decode()
    assert error.startswith(f"error: JAX has no device with {choice}: ")
    assert reason in error
    assert error.count("\n") == 1
    assert process.wait() == 2


def test_a_variable_of_jax_with_an_invalid_value_is_named_in_one_line():
    program = "def main():\n    import jax"
    process = started(program, shell='JAX_ENABLE_X64=maybe exec "$@"')
    error = process.stderr.read().decode()
    assert error.startswith("error: ")
    assert error.endswith("'maybe' for environment 'JAX_ENABLE_X64'\n")
    assert process.wait() == 2


def test_a_device_that_another_process_holds_is_told_in_its_words(monkeypatch, capsys):
    def devices():
        raise RuntimeError("The TPU is already in use by process 7")

    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(devices=devices))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    with pytest.raises(SystemExit, match="2"):
        cli.exit_with(devices)
    error = capsys.readouterr().err
    assert "with JAX_PLATFORMS not set: The TPU is already in use" in error


@pytest.mark.parametrize(
    "error", [MemoryError("9 bytes"), RuntimeError("RESOURCE_EXHAUSTED: 9 bytes")]
)
def test_a_lack_of_memory_is_one_line(error, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit, match="2"):
        cli.exit_with(main)
    assert capsys.readouterr().err.startswith("error: out of memory (")


def test_an_error_of_a_program_that_has_devices_keeps_its_traceback():
    def main():
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        cli.exit_with(main)


def test_every_program_exits_so():
    others = ("peers", "bundled")  # which import nothing of this project
    packages = ("analysis", "benchmarks", "data", "sweeps")
    files = [p for name in packages for p in (ROOT / name).rglob("*.py")]
    for path in [*ROOT.glob("*.py"), *files]:
        _, program, block = path.read_text().partition('\nif __name__ == "__main__"')
        if program and path.parent.name not in others and path.name != "our_batches.py":
            assert "run_main(main)" in block or "exit_with(main)" in block, path


NOISY = """
import logging, subprocess, sys, warnings
from utils import cli

def main():
    warnings.warn("noise of this process")
    for name in ("absl", "jax._src.xla_bridge", "orbax", "sacrebleu"):
        logging.getLogger(name).warning("noise of a logger")
    noisy = [sys.executable, "-c", "import warnings; warnings.warn('noise of a child')"]
    subprocess.run(noisy, check=True)
    print("a line of ours", file=sys.stderr)

cli.run_main(main)
"""


@pytest.mark.parametrize("flags", [[], ["-W", "default"]])
def test_libraries_warn_on_the_console_only_if_asked_to(flags, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "noisy.py").write_text(NOISY)
    done = subprocess.run(
        [sys.executable, *flags, tmp_path / "noisy.py"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if flags:
        assert "noise of this process" in done.stderr
    else:
        assert done.stderr == "a line of ours\n"
