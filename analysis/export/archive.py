"""The archive of an exported run: a zip file with a digest of all its bytes."""

import hashlib
import io
import zipfile
from pathlib import Path

RUNNER = Path(__file__).parent / "bundled"  # modules that run in an exported file
DIGEST_SIZE = 64  # hexadecimal digits


def pack(files: dict[str, bytes]) -> bytes:
    """Returns an archive of files, equal for equal files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name)
            is_dense = name.endswith(".safetensors")
            kind = zipfile.ZIP_STORED if is_dense else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content, kind)
        archive.comment = b"0" * DIGEST_SIZE
    body = buffer.getvalue()[:-DIGEST_SIZE]
    return body + hashlib.sha256(body).hexdigest().encode()
