"""Storage of a sweep on a disk and in a bucket: exclusive creation, and retries."""

import errno
import json
import threading

import pytest
from fsspec.spec import AbstractFileSystem

from helpers import fake_bucket
from sweeps.storage import Storage
from training.signals import StopRequested
from utils.errors import UserError


@pytest.fixture(scope="module")
def server():
    with fake_bucket.serve() as (fake, environment), pytest.MonkeyPatch.context() as m:
        for name, value in environment.items():
            m.setenv(name, value)
        yield fake


@pytest.fixture
def bucket(server):
    server.faults.clear()
    yield server
    server.faults.clear()


@pytest.fixture(params=["disk", "bucket"])
def storage(request, tmp_path):
    if request.param == "disk":
        return Storage(tmp_path / "sweep", timeout=5)
    request.getfixturevalue("bucket")
    return Storage(f"gs://bucket/{tmp_path.name}", timeout=5)


def test_a_document_is_created_once_and_stays(storage):
    storage.check()
    assert storage.read("study/a.json") is None
    assert storage.create("study/a.json", {"value": 1})
    assert not storage.create("study/a.json", {"value": 2})
    assert storage.read("study/a.json")["value"] == 1
    storage.write("study/a.live.json", {"value": 3})
    storage.write("study/a.live.json", {"value": 4})
    assert storage.read("study/a.live.json") == {"value": 4}
    assert storage.list("study") == ["study/a.json", "study/a.live.json"]
    assert storage.list("nothing") == []
    assert storage.size("study/a.live.json") == len(b'{\n "value": 4\n}\n')
    assert storage.size("study/b.json") is None
    storage.delete("study/a.json")
    storage.delete("study/a.json")
    assert storage.list("study") == ["study/a.live.json"]


def test_of_many_simultaneous_creations_exactly_one_succeeds(storage):
    found, ready = [], threading.Barrier(8)

    def create(number):
        ready.wait()
        found.append((storage.create("a.json", {"number": number}), number))

    threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = [number for is_mine, number in found if is_mine]
    assert storage.read("a.json")["number"] == winner


def test_numbers_that_are_not_finite_are_stored_as_null(storage):
    storage.write("a.json", {"value": float("nan"), "values": {3: 1.0}})
    assert storage.read("a.json") == {"value": None, "values": {"3": 1.0}}


@pytest.mark.parametrize("supported", [True, False])
def test_a_write_that_fails_leaves_no_part_of_a_file(tmp_path, monkeypatch, supported):
    storage = Storage(tmp_path, timeout=0)
    if not supported:

        def link(*_):
            raise OSError(errno.EPERM, "no links")

        monkeypatch.setattr("os.link", link)
    assert storage.create("a.json", {})
    assert not storage.create("a.json", {})

    def full(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(UserError, match="no space left"):
        storage.write("b.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


class Unreachable:
    """Files that fail a number of times."""

    def __init__(self, times, error=None):
        self.times, self.error = times, error or ConnectionResetError("refused")

    def list(self, folder):
        self.times -= 1
        if self.times >= 0:
            raise self.error
        return ["answer"]


class FakeTime(threading.Event):
    """Clock and event whose time passes only in `wait`."""

    def __init__(self):
        super().__init__()
        self.pauses = []

    def wait(self, timeout=None):
        self.pauses.append(timeout)
        return self.is_set()

    def clock(self):
        return sum(self.pauses)


def with_files(path, files, stopped, timeout=600):
    clock = stopped.clock
    return Storage(path, stopped, timeout=timeout, clock=clock, files=files)


def test_a_storage_is_retried_with_growing_pauses(tmp_path, capsys):
    fake_time = FakeTime()
    storage = with_files(tmp_path, Unreachable(6), fake_time)
    assert storage.list("") == ["answer"]
    assert fake_time.pauses == sorted(fake_time.pauses)
    assert len(set(fake_time.pauses)) > 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_storage_that_stays_unreachable_is_an_error_in_one_line(tmp_path):
    fake_time = FakeTime()
    with pytest.raises(UserError) as error:
        with_files(tmp_path, Unreachable(10**6), fake_time, 100).list("")
    assert "no trial is lost" in str(error.value)
    assert "refused" in str(error.value)
    assert 100 <= fake_time.clock() < 131


def test_a_signal_ends_the_retries(tmp_path):
    fake_time = FakeTime()
    fake_time.set()
    with pytest.raises(StopRequested):
        with_files(tmp_path, Unreachable(1), fake_time).list("")


@pytest.mark.parametrize(
    "error",
    [PermissionError(errno.EACCES, "no"), NotADirectoryError(), TypeError("ours")],
)
def test_errors_that_stay_are_not_retried(tmp_path, error):
    fake_time = FakeTime()
    with pytest.raises(type(error)):
        with_files(tmp_path, Unreachable(1, error), fake_time).list("")
    assert not fake_time.pauses


def test_refused_access_to_a_bucket_is_one_line(bucket):
    storage = Storage("gs://bucket/refused", timeout=5)
    bucket.refuses = True
    try:
        with pytest.raises(UserError, match=r"gs://bucket/refused refuses access"):
            storage.create("a.json", {})
    finally:
        bucket.refuses = False


@pytest.mark.parametrize("name", ["PermissionError", "NoCredentialsError"])
def test_refusals_of_other_libraries_are_one_line(bucket, monkeypatch, name):
    error = {"PermissionError": PermissionError}.get(name, type(name, (Exception,), {}))

    def refuse(path):
        raise error("Access Denied")

    storage = Storage("gs://bucket/refused", timeout=5)
    monkeypatch.setattr(storage.files.system, "cat_file", refuse)
    with pytest.raises(UserError, match=rf"refuses access \({name}: Access Denied\)"):
        storage.read("a.json")


def test_a_bucket_that_does_not_exist_is_named(bucket):
    with pytest.raises(UserError, match="the bucket missing does not exist"):
        Storage("gs://missing/sweep", timeout=5).check()


def test_a_server_that_ignores_conditions_is_refused(bucket):
    bucket.ignores_conditions = True
    try:
        with pytest.raises(UserError, match="server ignores the condition"):
            Storage("gs://bucket/ignoring", timeout=5).check()
    finally:
        bucket.ignores_conditions = False
    assert not [name for name in bucket.names() if "ignoring" in name]


def test_a_library_without_conditional_writes_is_refused(bucket, monkeypatch):
    storage = Storage("gs://bucket/older", timeout=5)
    system = storage.files.system
    monkeypatch.setattr(system, "pipe_file", lambda path, value: None)
    with pytest.raises(UserError, match="no conditional writes"):
        storage.check()
    default = AbstractFileSystem.pipe_file.__get__(system)
    monkeypatch.setattr(system, "pipe_file", default)
    with pytest.raises(UserError, match="no conditional writes"):
        storage.check()


def test_the_answer_of_s3_is_understood(bucket, tmp_path, monkeypatch):
    """s3fs raises an OSError where the name of a conditional write is taken."""
    storage = Storage(f"gs://bucket/{tmp_path.name}", timeout=5)
    put = storage.files.system.pipe_file

    def pipe_file(path, value, **options):
        try:
            put(path, value, **options)
        except FileExistsError:
            text = "At least one of the pre-conditions you specified did not hold"
            raise OSError(errno.EINVAL, f"{text}, HTTP Status code: 412") from None

    monkeypatch.setattr(storage.files.system, "pipe_file", pipe_file)
    storage.check()
    assert storage.create("a.json", {})
    assert not storage.create("a.json", {})


@pytest.mark.parametrize("fault", ["lost", 429, 503])
def test_a_creation_survives_faults_of_the_server(bucket, tmp_path, fault):
    """Each second request fails, before or after it took effect."""
    storage = Storage(f"gs://bucket/{tmp_path.name}", timeout=60)
    bucket.faults += [fault, None] * 3
    assert storage.create("a.json", {"number": 1})
    assert not storage.create("a.json", {"number": 2})
    bucket.faults.clear()
    assert storage.read("a.json")["number"] == 1
    stored = bucket.objects["bucket", f"{tmp_path.name}/a.json"][0]
    assert json.loads(stored)["number"] == 1
