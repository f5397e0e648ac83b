"""Preparation of a corpus through TFDS: downloaded, verified and written atomically."""

import errno
import os
import sys
import time
from pathlib import Path

from etils import epy

from data.registry import error_line, full_name
from utils.errors import UserError
from utils.locks import file_lock

with epy.lazy_imports():  # takes seconds, and only preparing a corpus needs it
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager
    from tensorflow_datasets.core.download import util as download_util

NO_SPACE = os.strerror(errno.ENOSPC)  # ArrayRecord's writer gives no error number


def prepare(builder, source_dir: str | None) -> None:
    """Downloads, verifies and writes a corpus, completely or not at all.

    Waits while another process prepares the same corpus. `source_dir` is a folder with
    the published files, instead of a download. Raises UserError if that fails.
    """
    name = full_name(builder)
    if source_dir is not None and not Path(source_dir).expanduser().is_dir():
        raise UserError(
            f"source_dir {source_dir} is no folder: give as --config.data.source_dir "
            f"the one that holds the published files of {name}, or none to download "
            "them, or as --config.data.dir one in which they were prepared"
        )
    if builder.data_path.exists() and not builder.is_prepared():
        raise UserError(f"{builder.data_path} is no prepared corpus: remove it")
    lock = f".{name}-{builder.version}.lock".replace("/", "-")
    try:
        with file_lock(Path(builder.data_dir_root) / lock, f"prepares {name}"):
            if not builder.is_prepared():
                _prepare_locked(builder, source_dir)
    except UserError:
        raise
    except Exception as error:
        if builder.is_prepared():  # by another process
            return
        message = _explain_failure(builder, error)
        if message is None:
            raise
        raise UserError(message) from error


def _prepare_locked(builder, source_dir: str | None) -> None:
    from data import tfds_patches  # imports TFDS's parts that prepare

    name, start = full_name(builder), time.monotonic()
    print(f"preparing {name} in {builder.data_dir_root} ...", file=sys.stderr)
    builder.source_dir = source_dir
    config = tfds.download.DownloadConfig(manual_dir=source_dir, try_download_gcs=False)
    with tfds_patches.patched_tfds(builder):
        builder.download_and_prepare(download_config=config)
    counts = [f"{s.num_examples} {split}" for split, s in builder.info.splits.items()]
    seconds = time.monotonic() - start
    print(f"prepared {name} in {seconds:.0f} s: {', '.join(counts)}", file=sys.stderr)


def _explain_failure(builder, error: Exception) -> str | None:
    """Returns the message of a failed preparation, or None if it is a bug."""
    name, reason = full_name(builder), error_line(error)
    where = f"{name} in {builder.data_dir_root}"
    if NO_SPACE in reason:
        return (
            f"no space left to prepare {where} ({reason}): free some, or give another "
            "--config.data.dir"
        )
    if isinstance(error, requests.RequestException | download_util.DownloadError):
        return (
            f"cannot download {name} ({reason}): connect to the network, or give "
            "--config.data.source_dir=DIR, a folder that holds the file of that address"
        )
    if isinstance(error, download_manager.NonMatchingChecksumError):
        return (
            f"checksum mismatch: {reason}; put the right file in a folder and give it "
            "as --config.data.source_dir"
        )
    if "No module named" in reason:
        return (
            f"cannot prepare {where} ({reason}): install that module, or prepare the "
            "corpus where it is installed, as array_record, and copy it here"
        )
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and isinstance(error, AssertionError):
        return (
            f"{name} has to be fetched by hand and given as --config.data.source_dir: "
            f"{' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())}"
        )
    return f"cannot prepare {where}: {reason}" if isinstance(error, OSError) else None
