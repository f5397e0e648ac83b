"""Folders that are whole or not there, and names that say what they depend on."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from data.remote import send


def short_hash(*parts) -> str:
    """Sixteen hexadecimal digits that depend on all parts."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def written_whole(target: Path, *, keep: bool = True) -> Iterator[Path]:
    """A folder to fill that becomes `target` if all goes well, and else nothing.

    When another process was faster, its folder stays and ours goes.

    Args:
      keep: whether a bucket that the folder belongs to gets it too.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield draft
        draft.chmod(0o755)  # others may read what they share
        with contextlib.suppress(FileExistsError):
            os.rename(draft, target)
            if keep:
                send(target)
    except OSError:
        if not target.exists():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
