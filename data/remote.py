"""A data directory in a bucket: what is used of it is copied to a local disk.

Records and encoded texts are mapped into memory, which only a local file can be. So
a folder that is missing here is looked for in the bucket and copied, and one that is
made here is copied there, for other machines and the next time:

    gs://bucket/data/encoded/...  <->  <data.cache_dir>/gs/bucket/data/encoded/...

In a bucket nothing gets its name at once. A folder there counts as whole once it
holds the list of its files, which is written last.
"""

import json
import shutil
import tempfile
from pathlib import Path

from etils import epath

from utils.paths import is_remote, resolve_path

ORIGIN = ".copy-of"  # in the local root: the address
LIST = ".files.json"  # in a bucket's folder: sizes of its files by name
PREPARED = "dataset_info.json"  # what TFDS writes last


def local_root(address: str, cache_dir: str) -> Path:
    """The local folder that stands for a data directory.

    Raises UserError for an address that cannot be reached from here.

    Args:
      cache_dir: where copies of buckets are kept.
    """
    root = resolve_path(address)
    if not is_remote(root):
        return root
    scheme, _, rest = str(address).partition("://")
    local = Path(cache_dir).expanduser() / scheme / rest
    local.mkdir(parents=True, exist_ok=True)
    (local / ORIGIN).write_text(str(root), encoding="utf8")
    return local


def counterpart(folder: Path) -> epath.Path | None:
    """What a local folder is a copy of, or would be; None if of nothing."""
    for parent in folder.parents:
        origin = parent / ORIGIN
        if origin.is_file():
            address = origin.read_text(encoding="utf8")
            return epath.Path(address) / folder.relative_to(parent).as_posix()
    return None


def is_there(folder: Path) -> bool:
    """Whether a whole folder is here, by now: if it is in the bucket, it is copied."""
    if folder.exists():
        return True
    remote = counterpart(folder)
    if remote is None:
        return False
    names = files_of(remote)
    if names is None:
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name in names:
            copy(remote / name, draft / name)
        draft.chmod(0o755)
        draft.rename(folder)
    except FileExistsError:  # another process was faster
        pass
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return True


def files_of(remote: epath.Path) -> list[str] | None:
    """Names of the files of a whole folder in a bucket; None if none is there."""
    if (remote / LIST).exists():
        return list(json.loads((remote / LIST).read_text()))
    if (remote / PREPARED).exists():  # by TFDS itself
        return [path.name for path in remote.iterdir() if not path.is_dir()]
    return None


def send(folder: Path) -> None:
    """Copies a whole folder to the bucket that its parents are a copy of, if any."""
    remote = counterpart(folder)
    if remote is None or files_of(remote) is not None:
        return
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    for name in sizes:
        copy(folder / name, remote / name)
    (remote / LIST).write_text(json.dumps(sizes))


def bring_all(folder: Path, version: str) -> None:
    """Copies every prepared `<folder>/<config>/<version>` that is in the bucket."""
    remote = counterpart(folder)
    if remote is None or not remote.exists():
        return
    for config in remote.iterdir():
        is_there(folder / config.name / version)


def copy(source: Path | epath.Path, target: Path | epath.Path) -> None:
    """Copies a file, some megabytes of it in memory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written, 16 * 2**20)
