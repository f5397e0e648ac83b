"""Prepares a corpus through TFDS: fetched, verified, written whole or not at all."""

import contextlib
import errno
import functools
import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from etils import epath, epy

from data.spool import Spool
from utils.errors import UserError
from utils.locks import file_lock

with epy.lazy_imports():  # seconds that only opening a corpus should cost
    import requests
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module
    from tensorflow_datasets.core import shuffle
    from tensorflow_datasets.core.download import (
        download_manager,
        downloader,
        extractor,
    )
    from tensorflow_datasets.core.download import util as download_util

NO_SPACE = os.strerror(errno.ENOSPC)  # all that ArrayRecord's writer says of it
PATIENCE = 5  # seconds between two lines about progress


def prepare(builder, source_dir: str | None) -> None:
    """Fetches, verifies and writes the corpus, whole or not at all.

    Waits while another process prepares the same corpus.
    """
    name = full_name(builder)
    if source_dir is not None and not Path(source_dir).expanduser().is_dir():
        raise UserError(
            f"source_dir {source_dir} is no folder: give the one that holds the "
            f"published files of {name}, or none to download them"
        )
    if builder.data_path.exists() and not builder.is_prepared():
        raise UserError(f"{builder.data_path} is no prepared corpus: remove it")
    try:
        with _alone(builder):
            if not builder.is_prepared():
                _prepare_alone(builder, source_dir)
    except UserError:
        raise
    except Exception as error:
        if builder.is_prepared():  # by another process, which was faster
            return
        explained = _explain_failure(builder, error)
        if explained is None:
            raise
        raise explained from error


def _prepare_alone(builder, source_dir: str | None) -> None:
    print(
        f"preparing {full_name(builder)} in {builder.data_dir_root} ...",
        file=sys.stderr,
    )
    start = time.monotonic()
    builder.source_dir = source_dir
    if sys.stderr.isatty():
        _report_progress(builder)
    config = tfds.download.DownloadConfig(manual_dir=source_dir, try_download_gcs=False)
    with _plain_downloads(), _bounded_memory(builder):
        builder.download_and_prepare(download_config=config)
    counts = [f"{s.num_examples} {name}" for name, s in builder.info.splits.items()]
    print(
        f"prepared {full_name(builder)} in {time.monotonic() - start:.0f} s: "
        f"{', '.join(counts)}",
        file=sys.stderr,
    )


def _explain_failure(builder, error: Exception) -> UserError | None:
    """The UserError behind `error`, or None if preparing met a bug."""
    name, reason = full_name(builder), one_line(error)
    where = f"{name} in {builder.data_dir_root}"
    if NO_SPACE in reason:
        return UserError(
            f"no space left to prepare {where} ({reason}): free some, or give another "
            "--config.data.dir"
        )
    if isinstance(error, requests.RequestException | download_util.DownloadError):
        return UserError(
            f"cannot download {name} ({reason}): connect to the network, or give "
            "--config.data.source_dir=DIR, a folder that holds the file of that address"
        )
    if isinstance(error, download_manager.NonMatchingChecksumError):
        return UserError(
            f"checksum mismatch: {reason}; put the right file in a folder and give it "
            "as --config.data.source_dir"
        )
    if "No module named" in reason:
        return UserError(
            f"cannot prepare {where} ({reason}): install that module, or prepare the "
            "corpus where it is installed, as array_record, and copy it here"
        )
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and isinstance(error, AssertionError):
        return UserError(
            f"{name} has to be fetched by hand and given as --config.data.source_dir: "
            f"{' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())}"
        )
    if isinstance(error, OSError):
        return UserError(f"cannot prepare {where}: {reason}")
    return None


def check_whole(builder) -> None:
    """Raises UserError unless every shard holds the records it should."""
    for split in builder.info.splits.values():
        for path, count in zip(split.filepaths, split.shard_lengths, strict=True):
            if _num_records(path) != count:
                raise UserError(
                    f"{path} does not hold its {count} records: remove "
                    f"{builder.data_path}, to have the corpus prepared again"
                )


def _num_records(path: epath.Path) -> int | None:
    """The records of a shard; None or 0 if it is cut short."""
    reader = array_record_module.ArrayRecordReader(os.fspath(path))
    count = reader.num_records()
    try:
        reader.close()
    except RuntimeError:
        return None
    return count


def full_name(builder) -> str:
    """With its config, such as `multi30k/en-de`."""
    config = builder.builder_config
    return f"{builder.name}/{config.name}" if config else builder.name


def one_line(error: Exception) -> str:
    """What an error says, without line breaks."""
    return " ".join(str(error).split())


@contextlib.contextmanager
def _alone(builder) -> Iterator[None]:
    """Holds the corpus's lock."""
    root = builder.data_dir_root
    name = full_name(builder)
    file = f".{name}-{builder.version}.lock".replace("/", "-")
    with file_lock(Path(root) / file, f"prepares {name}"):
        yield


def _report_progress(builder) -> None:
    """Has the builder say now and then how many examples it has written."""
    make = builder._split_generators

    @functools.wraps(make)  # TFDS looks at its parameters
    def split_generators(*args, **kwargs):
        found = make(*args, **kwargs)
        return {
            split: _counted(split, rows) if isinstance(rows, Iterator) else rows
            for split, rows in found.items()
        }

    builder._split_generators = split_generators


def _counted(split: str, examples: Iterator) -> Iterator:
    due = time.monotonic() + PATIENCE
    for number, example in enumerate(examples):
        if time.monotonic() > due:
            print(f"  {split}: {number} examples ...", file=sys.stderr)
            due = time.monotonic() + PATIENCE
        yield example


@contextlib.contextmanager
def _bounded_memory(builder) -> Iterator[None]:
    """TFDS without a split in memory, where examples keep their order."""
    shuffler = shuffle.Shuffler
    if builder.info.disable_shuffling:
        shuffle.Shuffler = Spool
    try:
        yield
    finally:
        shuffle.Shuffler = shuffler


@contextlib.contextmanager
def _plain_downloads() -> Iterator[None]:
    """TFDS without its minutes of retries and without TensorFlow to unpack archives."""
    gfile = SimpleNamespace(io=SimpleNamespace(gfile=SimpleNamespace(GFile=open)))
    gfile.compat = SimpleNamespace(as_text=str)
    retries, tensorflow = downloader.MAX_RETRIES, extractor.tf
    downloader.MAX_RETRIES = 0
    if importlib.util.find_spec("tensorflow") is None:
        extractor.tf = gfile
    try:
        yield
    finally:
        downloader.MAX_RETRIES, extractor.tf = retries, tensorflow
