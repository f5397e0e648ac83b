"""What all tests share: a compilation cache, programs compiled in haste, a server."""

import functools
import gc
import http.server
import os
import socket
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Compiling is the cost here, and fusion emitters are most of it; a program in one part
# takes two thirds of the time of one in many. Small programs are kept too: there are
# hundreds, and each process needs them anew. By the environment, so that what tests
# start as programs of their own inherits it.
HASTE = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {HASTE}".strip()
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"

import jax  # noqa: E402, F401

# Tracing makes many objects and little garbage.
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
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
