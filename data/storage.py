"""Folders of prepared data: written atomically, and mirrored in a bucket if asked.

Records and token ids are memory-mapped, which needs local files. When `data.dir` is a
bucket, a folder that is missing locally is downloaded from it, and one that is made
locally is uploaded, for other machines and later runs:

    gs://bucket/data/encoded/...  <->  <data.cache_dir>/gs/bucket/data/encoded/...

A bucket cannot rename a folder, so a folder there is complete once it holds the list
of its files, which is uploaded last.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from utils.paths import is_remote, resolve_path

ORIGIN = ".copy-of"  # file of a local root that holds the bucket's address
LIST = ".files.json"  # file of a bucket's folder: sizes of its files by name
PREPARED = "dataset_info.json"  # the file that TFDS writes last


def short_hash(*parts) -> str:
    """Returns 16 hexadecimal digits that depend on all parts."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def atomic_directory(target: Path, *, mirror: bool = True) -> Iterator[Path]:
    """Yields an empty folder that is renamed to `target` if no exception occurs.

    If another process created `target` meanwhile, that one stays. With `mirror` it is
    uploaded to the bucket that it belongs to, if any.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield draft
        draft.chmod(0o755)  # mkdtemp hides the folder from other users
        with contextlib.suppress(FileExistsError):
            os.rename(draft, target)
            if mirror:
                upload(target)
    except OSError:
        if not target.exists():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def local_root(address: str, cache_dir: str) -> Path:
    """Returns the local folder of a data directory, which may be a bucket's address.

    Copies of buckets are in `cache_dir`. Raises UserError if an address is not
    accessible.
    """
    root = resolve_path(address)
    if not is_remote(root):
        return root
    scheme, _, rest = str(address).partition("://")
    local = Path(cache_dir).expanduser() / scheme / rest
    local.mkdir(parents=True, exist_ok=True)
    (local / ORIGIN).write_text(str(root), encoding="utf8")
    return local


def remote_path(folder: Path) -> epath.Path | None:
    """Returns the bucket's path of a local folder, or None if it is not mirrored."""
    for parent in folder.parents:
        origin = parent / ORIGIN
        if origin.is_file():
            address = origin.read_text(encoding="utf8")
            return epath.Path(address) / folder.relative_to(parent).as_posix()
    return None


def ensure_local(folder: Path) -> bool:
    """Downloads a folder that is missing locally; returns whether it exists now."""
    if folder.exists():
        return True
    remote = remote_path(folder)
    names = None if remote is None else list_files(remote)
    if names is None:
        return False
    with atomic_directory(folder, mirror=False) as draft:
        for name in names:
            copy_file(remote / name, draft / name)
    return True


def list_files(remote: epath.Path) -> list[str] | None:
    """Returns the file names of a complete folder in a bucket, or None."""
    if (remote / LIST).exists():
        return list(json.loads((remote / LIST).read_text()))
    if (remote / PREPARED).exists():  # uploaded by TFDS itself
        return [path.name for path in remote.iterdir() if not path.is_dir()]
    return None


def upload(folder: Path) -> None:
    """Uploads a local folder to the bucket that it belongs to, if any."""
    remote = remote_path(folder)
    if remote is None or list_files(remote) is not None:
        return
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    for name in sizes:
        copy_file(folder / name, remote / name)
    (remote / LIST).write_text(json.dumps(sizes))


def download_all(folder: Path, version: str) -> None:
    """Downloads every prepared `<folder>/<config>/<version>` of the bucket."""
    remote = remote_path(folder)
    if remote is None or not remote.exists():
        return
    for config in remote.iterdir():
        ensure_local(folder / config.name / version)


def copy_file(source: Path | epath.Path, target: Path | epath.Path) -> None:
    """Copies a file in blocks of 16 MiB."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, target.open("wb") as write:
        shutil.copyfileobj(read, write, 16 * 2**20)
