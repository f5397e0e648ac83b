"""Settings of all tests: compilation cache, fast compilation, download fixtures."""

import functools
import gc
import http.server
import os
import socket
import threading
from pathlib import Path

import pytest

from helpers.entry_points import share_forking_process
from helpers.xla_options import FAST_COMPILATION, as_flags, known_options

ROOT = Path(__file__).parents[1]

# Set in the environment, so that subprocesses and workers of pytest-xdist inherit it.
# Small programs are cached too: there are hundreds, and every process needs them.
is_set = any(name in os.environ.get("XLA_FLAGS", "") for name in FAST_COMPILATION)
if "PYTEST_XDIST_WORKER" not in os.environ and not is_set:
    flags = as_flags(known_options(FAST_COMPILATION))
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"

import jax  # noqa: E402, F401

# Files that take longest, in order. They begin first, so that no worker is left alone
# with one of them at the end.
LONGEST = (
    "test_end_to_end.py",
    "test_learning.py",
    "test_population.py",
    "test_compare_command.py",
    "test_tpu_script.py",
    "test_repeated_training.py",
    "test_parallel.py",
    "test_check_results.py",
    "test_train.py",
    "test_fine_tuning.py",
    "test_dispatch.py",
    "test_classification.py",
    "test_inference.py",
    "test_fault_injection.py",
    "test_doc_commands.py",
    "test_knockout.py",
    "test_plan.py",
    "test_token_scores.py",
    "test_text_pair_commands.py",
    "test_quickstart.py",
    "test_encoders.py",
    "test_contracts.py",
    "test_search.py",
    "test_goldens.py",
    "test_precision.py",
    "test_resume.py",
    "test_distributed.py",
    "test_masked_language_modeling.py",
    "test_inference_batches.py",
    "test_loop.py",
    "test_understanding_commands.py",
    "test_encoders_in_parallel.py",
    "test_flops.py",
    "test_scan_layers.py",
    "test_sizes.py",
    "test_configs.py",
    "test_kv_cache.py",
    "test_inspection.py",
    "test_labeled_mistakes.py",
    "test_exported_files.py",
    "test_aot_compile.py",
    "test_document_translation.py",
    "test_encoder_population.py",
    "test_resume_understanding.py",
    "test_tagging.py",
    "test_remat.py",
    "test_sweep.py",
)
INDEPENDENT = ("test_doc_commands.py",)  # their tests share nothing but imports

# Tracing creates many objects and little garbage.
gc.freeze()
gc.set_threshold(100_000)


def pytest_configure(config):
    """Starts one process for the commands of all workers, before they begin."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        share_forking_process()


def pytest_collection_modifyitems(items):
    """Sorts the files that take longest to the front."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


def pytest_collection_finish():
    """Keeps what all tests have imported out of the searches for garbage."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Returns two more than there are cores, since some tests wait for processes."""
    return os.cpu_count() + 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Returns a scheduler by file that keeps the order of collection."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class FileScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return nodeid if file.endswith(INDEPENDENT) else file

    config.option.loadscopereorder = False
    return FileScheduling(config, log)


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


@pytest.fixture(scope="session")
def small_data_dir(tmp_path_factory):
    """Where a worker prepares each of the small corpora once, for all its tests."""
    return tmp_path_factory.mktemp("small_data")


@pytest.fixture(scope="module")
def data_dir(small_data_dir):
    """`cfg.data.dir` of small parts of the embedded corpora."""
    from helpers.small_runs import small_corpora  # it imports what few tests need

    with pytest.MonkeyPatch.context() as monkeypatch:
        small_corpora(monkeypatch)
        yield small_data_dir
