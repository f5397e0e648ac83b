"""Settings of all tests: compilation cache, fast compilation, download fixtures."""

import functools
import gc
import http.server
import os
import socket
import threading
from pathlib import Path

import pytest

from helpers.xla_options import FAST_COMPILATION, as_flags, known_options

ROOT = Path(__file__).parents[1]

# Set in the environment, so that subprocesses and workers of pytest-xdist inherit it.
# Small programs are cached too: there are hundreds, and every process needs them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    flags = as_flags(known_options(FAST_COMPILATION))
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"

import jax  # noqa: E402, F401

# Tracing creates many objects and little garbage.
gc.freeze()
gc.set_threshold(100_000)


@pytest.fixture
def serve():
    """Serves a folder on loopback; returns its address."""
    servers = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    def start(folder):
        handler = functools.partial(Handler, directory=folder)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def nowhere():
    """Returns an address at which no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
