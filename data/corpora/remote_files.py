"""The public files of a corpus: found in a folder or fetched, and verified."""

import gzip
import hashlib
import http.client
import io
import posixpath
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError

TIMEOUT = 20  # seconds without a byte
AGENT = {"User-Agent": "attention-lab"}  # some hosts refuse the default of urllib
ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}  # by hexadecimal digits
DAMAGED = (
    EOFError,
    OSError,
    KeyError,
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class RemoteFile:
    """One text of a corpus, known by its content however it is packed.

    Attributes:
      url: where it is published: as it is, as `.gz`, or with others in a `.zip` or
        `.tgz`.
      checksum: of the text itself, unpacked: MD5, SHA-1 or SHA-256 by its length.
      names: what it may be called in a source folder, where `.gz` may follow. The
        published file is taken there, too.
      member: its path inside the archive.
    """

    url: str
    checksum: str
    names: tuple[str, ...]
    member: str = ""

    @property
    def published(self) -> str:
        """The name of the published file."""
        return self.url.rsplit("/", 1)[-1]

    def find(self, folder: Path) -> Path | None:
        """The file of `folder` that holds this text, if there is one."""
        names = [*self.names, *(f"{name}.gz" for name in self.names), self.published]
        return next(
            (folder / name for name in names if (folder / name).is_file()), None
        )


def read_texts(
    sources: Mapping[str, RemoteFile], source_dir: str | None = None
) -> dict[str, str]:
    """The text of every source; see `read_bytes`. UserError where it is not UTF-8."""
    found = read_bytes(sources, source_dir)
    return {key: decode(sources[key].names[0], found[key]) for key in found}


def read_bytes(
    sources: Mapping[str, RemoteFile], source_dir: str | None = None
) -> dict[str, bytes]:
    """What every source holds, verified, from `source_dir` or else its address.

    Raises UserError where a file is missing, damaged, empty, not the published text,
    or out of reach.
    """
    wanted = sources.values()
    if source_dir is None:
        packed = {url: _fetch(url, wanted) for url in {s.url for s in wanted}}
        found = {key: (s.url, packed[s.url]) for key, s in sources.items()}
    else:
        files = _find_all(sources, Path(source_dir).expanduser())
        found = {key: (str(path), path.read_bytes()) for key, path in files.items()}
    return {key: _unpack(*found[key], source) for key, source in sources.items()}


def exists(source: RemoteFile, source_dir: str | None = None) -> bool:
    """Whether `source_dir`, or else the address, has the source.

    Raises UserError where the address is out of reach.
    """
    if source_dir is not None:
        return source.find(Path(source_dir).expanduser()) is not None
    try:
        _request(source.url, [source], "HEAD")
    except UserError as error:
        if getattr(error.__cause__, "code", None) == http.HTTPStatus.NOT_FOUND:
            return False
        raise
    return True


def split_lines(text: str) -> list[str]:
    r"""The lines of `text`, cut at "\n" alone: some hold other line separators."""
    return text.removesuffix("\n").split("\n")


def decode(name: str, text: bytes, line: int = 1) -> str:
    """`text` of the file `name`, of which it begins in line number `line`.

    Raises UserError where it is not UTF-8.
    """
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        line += text.count(b"\n", 0, error.start)
        raise UserError(
            f"{name} is not UTF-8 in line {line} ({error.reason}): give a copy in UTF-8"
        ) from error


def _find_all(sources: Mapping[str, RemoteFile], folder: Path) -> dict[str, Path]:
    found = {key: source.find(folder) for key, source in sources.items()}
    missing = [sources[key] for key, path in found.items() if path is None]
    if missing:
        raise UserError(
            f"source_dir {folder} lacks {_file_names(missing)}; they are published at "
            f"{', '.join(dict.fromkeys(source.url for source in missing))}"
        )
    return found


def _file_names(sources: Iterable[RemoteFile]) -> str:
    """What to put in a source folder, as a phrase."""
    names = ", ".join(dict.fromkeys(source.names[0] for source in sources))
    archives = dict.fromkeys(source.published for source in sources if source.member)
    return " or ".join([f"{names} (plain or .gz)", *archives])


def _fetch(url: str, sources: Iterable[RemoteFile]) -> bytes:
    return _request(url, sources, "GET")


def _request(url: str, sources: Iterable[RemoteFile], method: str) -> bytes:
    try:
        request = urllib.request.Request(url, headers=AGENT, method=method)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return response.read()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"cannot download {url} ({error}): connect to the network, or give "
            f"--config.data.source_dir=DIR, a folder that holds {_file_names(sources)}"
        ) from error


def _unpack(origin: str, packed: bytes, source: RemoteFile) -> bytes:
    """The text inside `packed`, which came from the file or address `origin`."""
    try:
        if origin.endswith((".tgz", ".tar.gz")):
            text = _read_tar(packed, source.member)
        elif origin.endswith(".gz"):
            text = gzip.decompress(packed)
        elif origin.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(packed)) as archive:
                text = archive.read(source.member)
        else:
            text = packed
    except DAMAGED as error:
        raise UserError(
            f"{origin} is damaged or cut short ({error}): fetch {source.url} again"
        ) from error
    _verify(origin, text, source)
    return text


def _read_tar(packed: bytes, member: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for info in archive:
            if posixpath.normpath(info.name) == member:
                return archive.extractfile(info).read()
    raise KeyError(f"it holds no {member}")


def _verify(origin: str, text: bytes, source: RemoteFile) -> None:
    algorithm = ALGORITHMS[len(source.checksum)]
    got = hashlib.new(algorithm, text).hexdigest()
    if got != source.checksum:
        raise UserError(
            f"checksum mismatch: {origin} unpacks to {len(text)} bytes with "
            f"{algorithm} {got}, expected {source.checksum}; put the file of "
            f"{source.url} in a folder and give it as --config.data.source_dir"
        )
    if not text.strip():
        raise UserError(f"{origin} is empty: fetch {source.url} again")
