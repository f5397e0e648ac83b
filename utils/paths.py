"""Paths of runs and data: local folders, or folders of a bucket such as gs://..."""

import errno
import importlib
import os
import re
from pathlib import Path

import fsspec
from etils import epath

from utils.errors import UserError

# Scheme of a bucket -> the package through which epath reads it.
PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}

DATA_PLACES = ("dir", "cache_dir", "source_dir")  # folders, keys of `cfg.data`


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is in a bucket."""
    return "://" in str(path)


def resolve_path(path: str | os.PathLike) -> epath.Path | Path:
    """Returns a path that a user named, after a check that it can be reached.

    Raises:
      UserError: an address is of another kind or cannot be reached, or a name cannot
        be given to the libraries that write there.
    """
    if not is_remote(path):
        local = Path(os.path.expanduser(path))
        _check_name(os.path.realpath(local))
        return local
    scheme = str(path).partition("://")[0]
    if scheme not in PACKAGES:
        known = ", ".join(f"{name}://" for name in PACKAGES)
        raise UserError(f"Unknown address {path}; choose a local folder or {known}")
    package = PACKAGES[scheme]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{path} needs the package {package}, which is missing ({error}): "
            f"pip install {package}"
        ) from error
    # A cached listing would not show what other processes write.
    fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False
    remote = epath.Path(path)
    try:
        remote.exists()
    except Exception as error:  # each of those packages raises its own classes
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} cannot be reached ({type(error).__name__}: {reason[:300]}): are "
            "its name and your credentials right?"
        ) from error
    return remote


def absolute_address(path: str) -> str:
    """Returns the address of a path in any working directory."""
    return path if is_remote(path) or path.startswith("~") else os.path.abspath(path)


def _check_name(path: str) -> None:
    """Raises UserError for a path that libraries take for another one.

    Orbax and TFDS take it for a pattern, TensorStore takes a backslash for a slash, and
    libraries in C++ read names as UTF-8.
    """
    if found := re.search(r"[\\\[*?\x00-\x1f\x7f]", path):
        raise UserError(
            f"{path!r} has the character {found[0]!r}: choose a path without control "
            "characters and \\ [ * ?"
        )
    try:
        is_utf8 = os.fsencode(path) == path.encode()
    except UnicodeEncodeError:
        is_utf8 = False
    if not is_utf8:
        raise UserError(
            f"{path} is no UTF-8, or Python is not in UTF-8 mode: choose a path of "
            "ASCII letters, or set PYTHONUTF8=1 in the environment"
        )


def is_read_only(error: OSError) -> bool:
    """Whether an error says that a place may not be written to."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def canonical_path(path: epath.Path | Path) -> epath.Path | Path:
    """Returns the one name of a folder that may have several."""
    return path if is_remote(path) else path.resolve()
