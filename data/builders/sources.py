"""The public files of a corpus: found in a folder or fetched, and verified."""

import gzip
import hashlib
import http.client
import io
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from errors import UserError

TIMEOUT = 20  # seconds without a byte
AGENT = {"User-Agent": "attention-lab"}  # some hosts refuse the default of urllib


@dataclass(frozen=True)
class Source:
    """One text of a corpus, known by its content however it is packed.

    Attributes:
      url: where it is published: as it is, as `.gz`, or in a `.zip` with others.
      sha256: of the text itself, unpacked.
      names: what it may be called in a source folder, where `.gz` may follow. The
        published file is taken there, too.
      member: its path inside the `.zip`.
    """

    url: str
    sha256: str
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
    sources: Mapping[str, Source], source_dir: str | None = None
) -> dict[str, str]:
    """The verified text of every source, from `source_dir` or else its address.

    Raises UserError where a file is missing, damaged, not the published text, or out
    of reach.
    """
    wanted = sources.values()
    if source_dir is None:
        packed = {url: _fetch(url, wanted) for url in {s.url for s in wanted}}
        found = {key: (s.url, packed[s.url]) for key, s in sources.items()}
    else:
        files = _find_all(sources, Path(source_dir).expanduser())
        found = {key: (str(path), path.read_bytes()) for key, path in files.items()}
    return {key: _unpack(*found[key], source) for key, source in sources.items()}


def split_lines(text: str) -> list[str]:
    r"""The lines of `text`, cut at "\n" alone: some hold other line separators."""
    return text.removesuffix("\n").split("\n")


def _find_all(sources: Mapping[str, Source], folder: Path) -> dict[str, Path]:
    found = {key: source.find(folder) for key, source in sources.items()}
    missing = [sources[key] for key, path in found.items() if path is None]
    if missing:
        raise UserError(
            f"source_dir {folder} lacks {_file_names(missing)}; they are published at "
            f"{', '.join(dict.fromkeys(source.url for source in missing))}"
        )
    return found


def _file_names(sources: Iterable[Source]) -> str:
    """What to put in a source folder, as a phrase."""
    names = ", ".join(dict.fromkeys(source.names[0] for source in sources))
    archives = dict.fromkeys(source.published for source in sources if source.member)
    return " or ".join([f"{names} (plain or .gz)", *archives])


def _fetch(url: str, sources: Iterable[Source]) -> bytes:
    try:
        request = urllib.request.Request(url, headers=AGENT)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return response.read()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"cannot download {url} ({error}): connect to the network, or give "
            f"--config.data.source_dir=DIR, a folder that holds {_file_names(sources)}"
        ) from error


def _unpack(origin: str, packed: bytes, source: Source) -> str:
    """The text inside `packed`, which came from the file or address `origin`."""
    try:
        if origin.endswith(".gz"):
            text = gzip.decompress(packed)
        elif origin.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(packed)) as archive:
                text = archive.read(source.member)
        else:
            text = packed
    except (EOFError, OSError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(
            f"{origin} is damaged or cut short ({error}): fetch {source.url} again"
        ) from error
    _verify(origin, text, source)
    return text.decode()


def _verify(origin: str, text: bytes, source: Source) -> None:
    got = hashlib.sha256(text).hexdigest()
    if got != source.sha256:
        raise UserError(
            f"checksum mismatch: {origin} unpacks to {len(text)} bytes with sha256 "
            f"{got}, expected {source.sha256}; put the file of {source.url} in a "
            "folder and give it as --config.data.source_dir"
        )
