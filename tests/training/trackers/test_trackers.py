"""Runs in the local stores of trackers, by their real libraries."""

import importlib.util
import json
import sqlite3
import subprocess
import sys
import time

import pytest

from training.run_dir import RunDirectory
from training.trackers import registry, upload
from training.trackers.registry import tracking, upload_results
from utils.errors import UserError

CONFIG = {"seed": 1, "optim": {"lr": 0.1, "name": "adamw"}, "init_from": None}
CARD = {"split": "test", "step": 4, "scores": {"loss": {"value": 2.5, "low": 2.0}}}


@pytest.fixture
def directory(tmp_path):
    """A run directory that was just begun."""
    directory = RunDirectory(tmp_path / "rnn")
    directory.write_json("config.json", CONFIG)
    directory.write_about({})
    return directory


def add_lines(directory, *steps, loss=1.0):
    with (directory.path / "metrics.jsonl").open("a") as file:
        for step in steps:
            row = {"step": step, "split": "train", "loss": loss, "mfu": None}
            file.write(json.dumps(row) + "\n")


def state(directory, name):
    return json.loads((directory.path / "tracker" / f"{name}.json").read_text())


class Mlflow:
    """A store of MLflow in an SQLite file."""

    def __init__(self, folder, monkeypatch):
        self.uri = f"sqlite:///{folder}/mlflow.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", self.uri)

    def read(self, run_id):
        """Returns (step, loss) of training, the score, and the names of files."""
        from mlflow import MlflowClient

        client = MlflowClient(self.uri)
        (experiment,) = client.search_experiments(filter_string="name != 'Default'")
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.info.run_id == run_id
        assert run.data.params["optim.lr"] == "0.1"
        losses = client.get_metric_history(run_id, "train/loss")
        files = [file.path for file in client.list_artifacts(run_id)]
        files += [file.path for file in client.list_artifacts(run_id, "eval")]
        rows = sorted((one.step, one.value) for one in losses)
        return rows, run.data.metrics.get("test/loss"), files


class Trackio:
    """A local database of trackio."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder / "trackio"
        monkeypatch.setenv("TRACKIO_DIR", str(self.folder))

    def read(self, run_id):
        """Returns (step, loss) of training, the score, and the names of files."""
        with sqlite3.connect(self.folder / "attention-lab.db") as database:
            query = "SELECT run_name, step, metrics FROM metrics"
            rows = [(*row[:2], json.loads(row[2])) for row in database.execute(query)]
            query = "SELECT name FROM artifacts"
            names = [name for (name,) in database.execute(query)]
        assert {name for name, _, _ in rows} == {run_id}
        scores = [one["test/loss"] for _, _, one in rows if "test/loss" in one]
        losses = [(k, one["train/loss"]) for _, k, one in rows if "train/loss" in one]
        names = [name.removeprefix(f"{run_id}-") for name in names]
        files = [name.replace("eval-", "eval/") for name in names]
        return sorted(losses), (scores or [None])[0], files


class Wandb:
    """Local files of the offline mode of Weights & Biases."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.setenv("WANDB_DIR", str(folder))

    def read(self, run_id):
        """Returns (step, loss) of training, the score, and the names of files."""
        rows, files = [], []
        for path in sorted(self.folder.glob(f"wandb/*/run-{run_id}.wandb")):
            for record in wandb_records(path):
                items = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                rows += [items] * bool(items)
                files += [file.path for file in record.files.files]
        losses = [(x["step"], x["train/loss"]) for x in rows if "train/loss" in x]
        scores = [one["test/loss"] for one in rows if "test/loss" in one]
        return sorted(losses), (scores or [None])[0], files


def wandb_records(path):
    """Yields the records of a file in the format of LevelDB's log, without checksums.

    The file is a header of 7 bytes, then blocks of 32 KiB with pieces: checksum (4),
    length (2), kind (1: whole, 2: first, 3: middle, 4: last), data.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, data = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length = int.from_bytes(content[place + 4 : place + 6], "little")
        kind = content[place + 6]
        data += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(data)
            data = b""


STORES = {"wandb": Wandb, "trackio": Trackio, "mlflow": Mlflow}


@pytest.fixture(params=STORES)
def store(request, tmp_path, monkeypatch):
    """A local store of a tracker whose package is installed."""
    name = request.param
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} of requirements/trackers.txt is not installed")
    monkeypatch.setattr(registry, "END_SECONDS", 120)  # of a busy machine
    monkeypatch.chdir(tmp_path)
    return name, STORES[name](tmp_path, monkeypatch)


def test_a_resumed_run_goes_on_in_the_same_remote_run_with_each_step_once(
    store, directory, capfd
):
    name, reader = store
    with tracking(name, directory):
        add_lines(directory, 1, 2, 3)
    first = state(directory, name)
    # Steps after the newest checkpoint are trained again.
    (directory.path / "metrics.jsonl").unlink()
    add_lines(directory, 1)
    with tracking(name, directory):
        add_lines(directory, 2, 3, 4)
    assert state(directory, name)["id"] == first["id"]
    directory.write_json("eval/test-4.json", CARD)
    report = directory.path.parent / "report.html"
    report.write_text("<p>")
    upload_results(directory, [report])
    rows, score, files = reader.read(first["id"])
    assert rows == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0)]
    assert score == 2.5
    assert {"config.json", "eval/test-4.json", "report.html"} <= set(files)
    assert state(directory, name)["last"] == {"train": 4}
    assert capfd.readouterr() == ("", "")


def test_a_tracker_that_cannot_be_reached_warns_once(
    directory, monkeypatch, nowhere, capfd
):
    pytest.importorskip("mlflow", reason="of requirements/trackers.txt")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nowhere)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(registry, "END_SECONDS", 120)
    with tracking("mlflow", directory):
        add_lines(directory, 1)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: mlflow fails")


FAKE = """
import time
from training.trackers import registry
class Fake:
    url = None
    def __init__(self, run_id, title, own_id, config):
        self.id = own_id
        {init}
    def log(self, step, metrics):
        {log}
    def log_file(self, path, name): pass
    def close(self): pass
registry.TRACKERS["fake"] = "fake:Fake"
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Installs a tracker that does what it is told."""

    def install(init="pass", log="pass"):
        text = FAKE.format(init=init, log=log)
        (tmp_path / "fake.py").write_text(text)
        (tmp_path / "sitecustomize.py").write_text("import fake")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return install


def test_a_tracker_that_hangs_delays_the_end_and_nothing_else(
    directory, fake, monkeypatch, capfd
):
    fake(log="time.sleep(1000)")
    monkeypatch.setattr(registry, "END_SECONDS", 0.5)
    begin = time.monotonic()
    with tracking("fake", directory):
        add_lines(directory, 1)
        assert time.monotonic() - begin < 2
    assert time.monotonic() - begin < 20
    (line,) = capfd.readouterr().err.splitlines()
    assert "fake has not taken everything" in line


def test_what_a_tracker_refused_is_uploaded_the_next_time(directory, fake, capfd):
    fake(log="raise OSError('no route')")
    with tracking("fake", directory):
        add_lines(directory, 1, 2)
    (line,) = capfd.readouterr().err.splitlines()
    assert "no route" in line
    assert state(directory, "fake")["last"] == {}
    out = directory.path.parent / "out"
    fake(log=f"print(step, metrics, file=open({str(out)!r}, 'a'))")
    with tracking("fake", directory):
        pass
    assert out.read_text() == "1 {'train/loss': 1.0}\n2 {'train/loss': 1.0}\n"


def test_steps_before_a_failure_are_not_uploaded_again(directory, fake, capfd):
    out = directory.path.parent / "out"
    log = f"assert step != 2 or {{ready}}; print(step, file=open({str(out)!r}, 'a'))"
    for ready in (False, True):
        fake(log=log.format(ready=ready))
        with tracking("fake", directory):
            add_lines(directory, *([] if ready else (1, 2, 3)))
    assert out.read_text() == "1\n2\n3\n"
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_plain_run_imports_no_tracker_and_starts_no_process(directory):
    with tracking("", directory):
        add_lines(directory, 1)
    assert not (directory.path / "tracker").exists()
    upload_results(directory)
    code = (
        "import sys, experiment.train\n"
        f"assert not {{*{[*STORES]}, 'training.trackers.upload'}} & {{*sys.modules}}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=registry.ROOT)


def test_a_tracker_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"wandb.*requirements/trackers\.txt"):
        registry.check_tracker("wandb")
    registry.check_tracker("")


def test_a_folder_with_the_name_of_a_tracker_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: importlib.machinery.PathFinder.find_spec(name, [str(tmp_path)]),
    )
    with pytest.raises(UserError, match="mlflow, which is not installed"):
        registry.check_tracker("mlflow")


def test_an_unknown_tracker_is_refused():
    from configs import base
    from experiment import validate

    cfg = base.get_config()
    cfg.track = "excel"
    with pytest.raises(UserError, match="Unknown track 'excel'"):
        validate.check_keys(cfg)


def test_a_log_that_a_rewind_made_shorter_is_read_again(directory, monkeypatch):
    sent = []

    class Fake:
        id, url = "fake", None

        def __init__(self, *inputs):
            del inputs

        def log(self, step, metrics):
            sent.append((step, metrics["train/loss"]))

    monkeypatch.setattr(upload.pkgutil, "resolve_name", lambda name: Fake)
    monkeypatch.setitem(upload.TRACKERS, "fake", "fake")
    log = upload.Upload("fake", directory)
    add_lines(directory, 1, 2, 3, 4)
    log.send_log()
    (directory.path / "metrics.jsonl").unlink()
    add_lines(directory, 1, 2, 3)
    add_lines(directory, 4, 5, loss=2.0)
    log.send_log()
    add_lines(directory, 6)
    log.send_log()
    assert sent == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0), (6, 1.0)]
