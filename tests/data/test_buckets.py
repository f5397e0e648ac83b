"""Run and data directories in a bucket, through gcsfs and orbax, on loopback."""

import json
import shutil
import sys

import pytest
from etils import epath

import analysis.report.runs
from analysis.diverge.records import differences, read_checkpoint
from data import storage
from data.dataset import open_dataset
from experiment import inference, restore, train
from helpers import fake_bucket
from helpers.small_runs import PLAIN_RNN, config
from training.loop import ExitStatus
from training.metric_writers import MetricsFile
from utils.errors import UserError
from utils.paths import resolve_path

STEPS = 6


@pytest.fixture(scope="module")
def bucket():
    with fake_bucket.serve() as (fake, environment), pytest.MonkeyPatch.context() as m:
        for name, value in environment.items():
            m.setenv(name, value)
        yield fake


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    for split, lines in {"train": 300, "validation": 40, "test": 40}.items():
        text = "".join(f"{i} times {i} is {i * i}\n" for i in range(lines))
        (folder / f"{split}.txt").write_text(text)
    return folder


def settings(source, **changes):
    """Returns the config of a small model of a user's own text, which has a carry."""
    changes = {
        **PLAIN_RNN,
        "data.name": "plain_text",
        "data.source_dir": source and str(source),
        "every.log": 1,
        "every.eval": STEPS,
        "every.checkpoint": 2,
        "eval.batch_size": 4,
        "steps": STEPS,
        **changes,
    }
    return config("python_stdlib", "rnn", "unused", **changes)


@pytest.fixture(scope="module")
def runs(bucket, source, tmp_path_factory):
    """Trains the same run on disk and in a bucket; the second is interrupted.

    It goes on on another machine: nothing is left there but what is in the bucket.
    """
    folder = tmp_path_factory.mktemp("runs")
    here = settings(source, **{"data.dir": str(folder / "data")})
    assert train.train(here, folder / "run") is ExitStatus.FINISHED
    address = "gs://bucket/runs/one"
    places = {"data.dir": "gs://bucket/data", "data.cache_dir": str(folder / "first")}
    assert train.train(settings(source, **places), address) is ExitStatus.FINISHED
    for key in list(bucket.objects):
        if key[1].startswith(f"runs/one/checkpoints/{STEPS}/"):
            del bucket.objects[key]
    shutil.rmtree(folder / "first")
    places["data.cache_dir"] = str(folder / "second")
    elsewhere = settings(None, **places)
    assert train.train(elsewhere, address) is ExitStatus.FINISHED
    return folder / "run", epath.Path(address)


def test_a_run_in_a_bucket_resumes_to_the_same_bit(runs):
    on_disk, in_bucket = runs
    assert differences(on_disk, in_bucket) == []
    assert any("carry" in name for name in read_checkpoint(on_disk, STEPS))
    steps = [
        (line["split"], line["step"])
        for line in map(
            json.loads, (in_bucket / "metrics.jsonl").read_text().splitlines()
        )
    ]
    assert len(set(steps)) == len(steps)
    assert [step for split, step in steps if split == "train"] == [*range(1, STEPS + 1)]


def test_a_run_in_a_bucket_has_event_files(runs):
    assert len(list((runs[1] / "tensorboard").glob("events.out.tfevents.*"))) == 2


def test_a_run_in_a_bucket_is_scored_like_a_local_run(runs):
    scores = []
    for path in runs:
        run = restore.open_run(str(path))
        card, written = inference.evaluate(run, "test")
        assert written.exists()
        scores.append(card["scores"]["loss"]["value"])
    assert scores[0] == scores[1]
    read = analysis.report.runs.read_run(str(runs[1]))
    assert read.steps == STEPS


def test_token_ids_are_computed_once_for_all_machines(
    runs, bucket, tmp_path, monkeypatch
):
    def refuse(*args, **kwargs):
        raise AssertionError("encoded again")

    monkeypatch.setattr("data.token_writer.write_token_cache", refuse)
    places = {"data.dir": "gs://bucket/data", "data.cache_dir": str(tmp_path)}
    dataset = open_dataset(settings(None, **places).data)
    assert dataset.corpus.splits["train"] == 300


def test_an_incomplete_upload_does_not_count_as_a_folder(bucket, tmp_path):
    root = storage.local_root("gs://bucket/other", str(tmp_path / "here"))
    folder = root / "encoded" / "tokens"
    folder.mkdir(parents=True)
    (folder / "a.npy").write_bytes(b"numbers")
    storage.upload(folder)
    there = storage.local_root("gs://bucket/other", str(tmp_path / "there"))
    copied = there / "encoded" / "tokens"
    del bucket.objects["bucket", f"other/encoded/tokens/{storage.LIST}"]
    assert not storage.ensure_local(copied)
    storage.upload(folder)
    assert storage.ensure_local(copied)
    assert (copied / "a.npy").read_bytes() == b"numbers"


def test_lines_are_appended_to_a_file_in_a_bucket(bucket):
    def steps():
        return [json.loads(line)["step"] for line in path.read_text().splitlines()]

    path = epath.Path("gs://bucket/grows.jsonl")
    file = MetricsFile(path, {})
    file.write(1, "train", {})
    file.flush()
    file.write(2, "train", {})
    assert steps() == [1]  # what is not flushed may wait
    file.flush()
    again = MetricsFile(path, {"train": 2})
    again.write(3, "train", {})
    again.flush()
    assert steps() == [1, 2, 3]


def test_a_missing_package_for_a_bucket_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match="pip install gcsfs"):
        resolve_path("gs://bucket/run")


def test_an_unknown_kind_of_address_is_refused():
    with pytest.raises(UserError, match="gs://"):
        resolve_path("ftp://bucket/run")


def test_an_unreachable_bucket_is_reported_in_one_line(bucket, monkeypatch):
    def fail(*args):
        raise ConnectionError("nobody\nthere")

    monkeypatch.setattr(type(epath.Path("gs://b")), "exists", fail)
    with pytest.raises(UserError, match=r"cannot be reached.*nobody there"):
        resolve_path("gs://bucket/run")
