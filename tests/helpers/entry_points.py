"""The entry points as a user runs them: a process a command, files, exit codes.

Imports are most of the time of a short command. So `run` asks one process, which has
imported what all need, for a fork of itself; `start` begins from nothing. Workers of
pytest-xdist share that process. For commands of a shell, this module is a program that
does in a fork what Python does:

    python -S tests/helpers/entry_points.py SOCKET SCRIPT|-m MODULE ARGUMENTS

A fork starts the modules of FORKED in the same way, by its `sys.executable`.
"""

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRELOADED = (  # takes seconds to import
    *("experiment.train", "experiment.inference", "sweeps.study"),
    *("matplotlib.pyplot", "optuna", "scipy.stats.qmc", "tensorflow_datasets"),
)
FORKED = ("sweeps.trial_process", "analysis.compare.score")
SHARED = "FORKING_PROCESS"  # variable with the path of the socket
MODES = (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2)  # of the standard streams


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


def run(script, *flags, given=b"", cwd=ROOT):
    """The same, but the process is a fork of one that has imported the libraries."""
    argv = command(script, *flags)[1:]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        paths[0].write_bytes(given)
        streams = [os.open(*how, 0o600) for how in zip(paths, MODES, strict=True)]
        order = {"argv": argv, "cwd": str(cwd)}
        code = _run_in_fork(_socket_path(), order, streams)
        for stream in streams:
            os.close(stream)
        _, out, err = (path.read_bytes() for path in paths)
    return subprocess.CompletedProcess(argv, code, out, err)


def forked_python():
    """Arguments of a shell's command that does in a fork what `python` does."""
    return f"{sys.executable} -S {__file__} {_socket_path()}"


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
def _forking_process():
    """The folder with the socket of a process that forks, which ends with its input."""
    folder = tempfile.TemporaryDirectory()
    executable = Path(folder.name, "python")
    modules = "|".join(f'"-m {name}"' for name in FORKED)
    executable.write_text(
        f'#!/bin/sh\ncase "$1 $2" in\n{modules})\n'
        f'exec {sys.executable} -S {__file__} {folder.name}/socket "$@" ;;\n'
        f'*) exec {sys.executable} "$@" ;;\nesac\n'
    )
    executable.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder.name}/socket")
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, __file__, str(listener.fileno()), str(executable)],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    return folder, process


def share_forking_process():
    """Starts the process that forks for the workers of pytest-xdist, too."""
    os.environ[SHARED] = _socket_path()


def _socket_path():
    return os.environ.get(SHARED) or f"{_forking_process()[0].name}/socket"


def _run_in_fork(path, order, streams, on_start=lambda pid: None):
    """Exit code of a program with these standard streams.

    Args:
      order: arguments of `_become`.
      on_start: function that is called with the number of the process.
    """
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile() as replies:
        connection.connect(path)
        socket.send_fds(connection, [json.dumps(order).encode()], streams)
        on_start(int(replies.readline()))
        return int(replies.readline())


def _forward_signals(pid):
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(pid, number))


def _run_as_python(path, argv):
    """Ends as the program in a fork ends, which has this environment and input."""
    order = {"argv": argv, "cwd": os.getcwd(), "environment": dict(os.environ)}
    code = _run_in_fork(path, order, [0, 1, 2], _forward_signals)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _serve(listener, executable):
    import gc
    import importlib
    import select

    sys.executable = executable  # before a module keeps it
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # collecting what all share would copy it into every fork
    gc.set_threshold(100_000)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection = listener.accept()[0]
        order, streams, _, _ = socket.recv_fds(connection, 2**16, len(MODES))
        if os.fork() == 0:
            pid = os.fork()
            if pid == 0:
                return _become(streams, **json.loads(order))
            connection.sendall(b"%d\n" % pid)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            connection.sendall(b"%d\n" % code)
            os._exit(0)
        for number in (connection.detach(), *streams):
            os.close(number)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    return None


def _become(streams, argv, cwd, environment=None):
    """Ends as the program ends, by its own exit code or traceback."""
    import runpy

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.environ.update(environment or {})
    os.chdir(cwd)
    sys.path[0] = str(ROOT)
    is_module = argv[0] == "-m"
    sys.argv = argv[is_module:]
    if is_module:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
    else:
        _run_as_python(sys.argv[1], sys.argv[2:])
