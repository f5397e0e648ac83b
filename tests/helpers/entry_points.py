"""The entry points as a user runs them: a process a command, files, exit codes.

Imports are most of the time of a short command. So `run` starts one process that
imports what all need, and forks it for every command; `start` begins from nothing.
"""

import functools
import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def command(script, *flags):
    return [sys.executable, str(ROOT / script), *map(str, flags)]


def start(script, *flags, given=None, **environment):
    """Runs a command from nothing, as a shell does."""
    return subprocess.run(
        command(script, *flags),
        input=given,
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=300,
    )


def run(script, *flags, given=b""):
    """The same, but the process is a fork of one that has imported the libraries."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        streams[0].write_bytes(given)
        argv = command(script, *flags)[1:]
        order = {"argv": argv, "streams": [str(path) for path in streams]}
        parent = _parent()
        parent.stdin.write(json.dumps(order) + "\n")
        parent.stdin.flush()
        code = int(parent.stdout.readline())
        _, out, err = (path.read_bytes() if path.exists() else b"" for path in streams)
    return subprocess.CompletedProcess(argv, code, out, err)


def assert_refused(done, *words):
    """Exit code 2 and one clear line that holds all words."""
    told = done.stderr.decode()
    assert done.returncode == 2, told
    progress = ("preparing", "prepared", "tokenizing")
    lines = [line for line in told.splitlines() if not line.startswith(progress)]
    assert len(lines) == 1, told
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@functools.cache
def _parent():
    """Ends with its input, that is with the tests."""
    return subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )


def _serve():
    from experiment import train  # noqa: F401

    gc.freeze()  # collecting what all share would copy it into every fork
    gc.set_threshold(100_000)
    while line := sys.stdin.readline():
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return _become(**order)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, flush=True)
    return None


def _become(argv, streams):
    """Ends as the script ends, by its own exit code or traceback."""
    modes = (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2)
    for number, (path, mode) in enumerate(zip(streams, modes, strict=True)):
        os.dup2(os.open(path, mode, 0o600), number)
    sys.stdin = os.fdopen(0)
    sys.argv, sys.path[0] = argv, str(ROOT)
    runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    _serve()
