"""Where runs and data are kept: folders of this machine, or of a bucket, gs://..."""

import importlib
import os
from pathlib import Path

import fsspec
from etils import epath

from utils.errors import UserError

PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}  # through which epath goes


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is an address, not a folder of this machine."""
    return "://" in str(path)


def resolve_path(path: str | os.PathLike) -> epath.Path | Path:
    """The folder that a user named.

    Raises UserError for an address that cannot be reached from here.
    """
    if not is_remote(path):
        return Path(path).expanduser()
    scheme = str(path).partition("://")[0]
    if scheme not in PACKAGES:
        known = ", ".join(f"{name}://" for name in PACKAGES)
        raise UserError(f"{path}: there are folders of this machine, and {known}")
    package = PACKAGES[scheme]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{path} is reached through the package {package}, which is missing "
            f"({error}): pip install {package}"
        ) from error
    # Listings that are kept would not show what other processes write.
    fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False
    found = epath.Path(path)
    try:
        found.exists()
    except Exception as error:  # each of those packages raises classes of its own
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} cannot be reached ({type(error).__name__}: {reason[:300]}): are "
            "its name and your credentials right?"
        ) from error
    return found


def canonical_path(path: epath.Path | Path) -> epath.Path | Path:
    """The one name of a folder that may have several."""
    return path if is_remote(path) else path.resolve()
