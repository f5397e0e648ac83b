"""Files of any size fetched, hashed and unpacked in bounded memory."""

import errno
import hashlib
import http.client
import os
import posixpath
import shutil
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from data.corpora.lines import open_packed, open_unpacked, readable
from data.corpora.remote_files import AGENT, TIMEOUT
from utils.errors import UserError

BLOCK = 2**20  # bytes in memory at a time


def digest(
    path: Path, algorithm: str, opener: Callable[[Path], BinaryIO] = open_packed
) -> str:
    """The checksum of a file, or of what `opener` reads from it."""
    found = hashlib.new(algorithm)
    with readable(path), opener(path) as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def open_address(url: str):
    """The open answer of `url`."""
    request = urllib.request.Request(url, headers=AGENT)
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def download(url: str, target: Path, check: Callable[[Path], str]) -> str:
    """Puts what stands at `url` in `target`; under that name only when whole.

    Args:
      check: raises for a file that is not to have that name; what it returns is
        returned.

    Raises UserError where the address is out of reach or breaks off.
    """
    part = _beside(target)
    try:
        _fetch(url, part)
        checked = check(part)
        part.rename(target)
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        raise UserError(
            f"cannot download {url} ({error}): connect to the network, or give "
            f"--config.data.source_dir=DIR, a folder that holds {target.name}"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return checked


def _fetch(url: str, path: Path) -> None:
    with open_address(url) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file, BLOCK)
        # A connection that ends early is no error to `read`.
        expected = response.headers.get("Content-Length")
    size = path.stat().st_size
    if expected is not None and size != int(expected):
        raise OSError(f"{size} of {expected} bytes came")


def extract(archive: Path, members: Iterable[str], folder: Path) -> dict[str, Path]:
    """The `members` of a `.zip` or any `.tar` as files of `folder`, kept from before.

    Raises UserError where the archive is damaged or lacks one.
    """
    targets = {member: folder / member for member in members}
    wanted = {member for member, path in targets.items() if not path.exists()}
    read = _read_zip if archive.suffix == ".zip" else _read_tar
    parts = {}
    try:
        with readable(archive):
            for member, file in read(archive, wanted):
                parts[member] = _beside(targets[member])
                with parts[member].open("wb") as copy:
                    shutil.copyfileobj(file, copy, BLOCK)
        lacking = sorted(wanted - parts.keys())
        if lacking:
            raise UserError(f"{archive} lacks {', '.join(lacking)}: fetch it again")
        for member, part in parts.items():
            part.rename(targets[member])
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return targets


def _beside(target: Path) -> Path:
    """Where to write what is to be `target` once it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f"{target.name}.{os.getpid()}.part")


def _read_zip(archive: Path, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
    with zipfile.ZipFile(archive) as packed:
        for name in wanted.intersection(packed.namelist()):
            with packed.open(name) as file:
                yield name, file


def _read_tar(archive: Path, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
    if not wanted:
        return
    with open_unpacked(archive) as file:
        with tarfile.open(fileobj=file, mode="r|") as packed:
            for info in packed:
                name = posixpath.normpath(info.name)
                if name in wanted and info.isfile():
                    yield name, packed.extractfile(info)
        while file.read(BLOCK):  # to its end, where gzip's own checksum stands
            pass
