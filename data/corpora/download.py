"""Published files of a corpus: found in a folder or downloaded, verified, unpacked.

Pooch downloads and verifies; what is unpacked is verified here, where only the texts'
checksums are published. Pooch's own processors are not used: they extract no member of
an archive whose paths begin with "./", and leave half a file when they are interrupted.
"""

import contextlib
import errno
import hashlib
import http
import os
import posixpath
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pooch
import requests

from data.corpora.text_files import explain_damage, open_unpacked
from utils.errors import UserError

TIMEOUT = 20  # seconds without a byte
# Some hosts refuse the agents of libraries; others would unpack `.gz` files.
HEADERS = {"User-Agent": "attention-lab", "Accept-Encoding": "identity"}
ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}  # by hexadecimal digits
PACKED = (".gz", ".bz2")
BLOCK_BYTES = 2**20  # in memory at a time
MAX_NAMES = 3  # missing files that a message names
REPLACE = "; put the file of {url} in a folder and give it as --config.data.source_dir"


@dataclass(frozen=True)
class RemoteArchive:
    """A published archive, or a single published text.

    Attributes:
      checksum: MD5, SHA-1 or SHA-256, by its length; None: unknown.
    """

    url: str
    checksum: str | None = None

    @property
    def name(self) -> str:
        """Name of the published file."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class RemoteFile:
    """A text of a corpus.

    Attributes:
      archive: where it is published: as it is, as `.gz`, or in a `.zip` or `.tar`.
      member: path inside the archive; the name of a text published alone.
      checksum: checksum of the unpacked text; None: only the archive's is known.
      aliases: other names that it may have in a source folder.
    """

    archive: RemoteArchive
    member: str
    checksum: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the unpacked text."""
        return posixpath.basename(self.member).removesuffix(".gz")

    @property
    def is_published_alone(self) -> bool:
        """Whether the published file is the text itself, plain or packed."""
        return self.archive.name.removesuffix(".gz") == self.name


@dataclass(frozen=True)
class ArchiveStore:
    """The files of one corpus.

    A source folder may hold the published files, or the texts with or without their
    folders, plain or packed.

    Attributes:
      source_dir: folder with the files; None: they are downloaded.
      folder: folder for downloads and extracted texts, kept for later preparations.
      recorded: SHA-256 of files without a published checksum, by name.
    """

    source_dir: Path | None
    folder: Path
    recorded: dict[str, str]

    def fetch(self, files: Iterable[RemoteFile]) -> dict[RemoteFile, Path]:
        """Returns a verified, readable file for each text; some are `.gz` or `.bz2`.

        Raises UserError if one is missing, damaged, out of reach, or not the published.
        """
        by_archive: dict[RemoteArchive, list[RemoteFile]] = {}
        for file in (files := list(dict.fromkeys(files))):
            by_archive.setdefault(file.archive, []).append(file)
        source = self.source_dir
        if source and (missing := [file for file in files if not self.exists(file)]):
            urls = dict.fromkeys(file.archive.url for file in missing)
            raise UserError(
                f"source_dir {source} lacks {list_names(missing)}; published at "
                f"{', '.join(urls)}"
            )
        paths = {}
        for archive, group in by_archive.items():
            texts = {file: self._find_text(file) for file in group}
            if all(texts.values()):
                for file, path in texts.items():
                    self._verify(path, file.checksum, archive.url)
            else:
                texts = self._fetch_archive(archive, group, files)
            paths |= texts
        return paths

    def exists(self, file: RemoteFile) -> bool:
        """Returns whether the source folder, or else the address, has a file.

        Raises UserError if the address is out of reach.
        """
        if self.source_dir is not None:
            archive = self.source_dir / file.archive.name
            return archive.is_file() or self._find_text(file) is not None
        with explain_download(file.archive.url, [file]):
            response = requests.head(
                file.archive.url, headers=HEADERS, timeout=TIMEOUT, allow_redirects=True
            )
            if response.status_code == http.HTTPStatus.NOT_FOUND:
                return False
            response.raise_for_status()
        return True

    def _find_text(self, file: RemoteFile) -> Path | None:
        """Returns the text's path in the source folder, or None."""
        if self.source_dir is None:
            return None
        names = (file.member.removesuffix(".gz"), file.name, *file.aliases)
        paths = [self.source_dir / f"{n}{end}" for n in names for end in ("", *PACKED)]
        return next((path for path in paths if path.is_file()), None)

    def _fetch_archive(
        self, archive: RemoteArchive, group: list[RemoteFile], files: list[RemoteFile]
    ) -> dict[RemoteFile, Path]:
        """Finds or downloads an archive, extracts texts and verifies them."""
        path = (self.source_dir or self.folder) / archive.name
        try:
            if self.source_dir is None:
                download(archive, path, files)
            key = self._verify_archive(path, archive, group)
            if all(file.is_published_alone for file in group):
                texts = dict.fromkeys(group, path)
            else:
                folder = self.folder / "extracted" / f"{path.name}-{key[:12]}"
                members = extract(path, [file.member for file in group], folder)
                texts = {file: members[file.member] for file in group}
            for file, text in texts.items():
                if file.checksum:
                    self._verify(text, file.checksum, archive.url)
        except UserError:
            if self.source_dir is None:  # the next attempt downloads it again
                path.unlink(missing_ok=True)
            raise
        return texts

    def _verify_archive(
        self, path: Path, archive: RemoteArchive, files: list[RemoteFile]
    ) -> str:
        """Returns the checksum of an archive, verified if it is known."""
        if archive.checksum and self.source_dir is None:  # `download` verified it
            return archive.checksum
        if archive.checksum or any(file.checksum is None for file in files):
            return self._verify(path, archive.checksum, archive.url, packed=True)
        return hash_file(path, "sha256", packed=True)

    def _verify(
        self, path: Path, checksum: str | None, url: str, *, packed: bool = False
    ) -> str:
        """Compares a file or its unpacked text with its checksum, or records that."""
        algorithm = ALGORITHMS[len(checksum)] if checksum else "sha256"
        actual = hash_file(path, algorithm, packed=packed)
        if checksum is None and path.name not in self.recorded:
            self.recorded[path.name] = actual
            note = "no checksum is published, so it is taken as it is"
            print(f"{path.name} has sha256 {actual}: {note}", file=sys.stderr)
        if actual != (checksum or actual):
            raise UserError(
                f"checksum mismatch: {path} has {algorithm} {actual}, expected "
                f"{checksum}{REPLACE.format(url=url)}"
            )
        return actual


def hash_file(path: Path, algorithm: str, *, packed: bool) -> str:
    """Returns the checksum of a file as it is (`packed`), or of its unpacked text."""
    with (
        explain_damage(path),
        path.open("rb") if packed else open_unpacked(path) as file,
    ):
        return hashlib.file_digest(file, algorithm).hexdigest()


def open_store(builder, dl_manager) -> ArchiveStore:
    """Returns the files of a builder, which records checksums in its metadata."""
    source, metadata = builder.source_dir, builder.info.metadata
    return ArchiveStore(
        source_dir=None if source is None else Path(source).expanduser(),
        folder=Path(os.fspath(dl_manager.download_dir)) / builder.name,
        recorded={} if metadata is None else metadata,
    )


def download(
    archive: RemoteArchive, path: Path, files: Iterable[RemoteFile] = ()
) -> None:
    """Downloads a file, named when it is complete and verified, unless it is there.

    Raises UserError, with the texts wanted in `files`, if the address is out of reach
    or the checksum differs.
    """
    checksum = archive.checksum
    downloader = pooch.HTTPDownloader(
        timeout=TIMEOUT, headers=HEADERS, chunk_size=BLOCK_BYTES
    )
    pooch.get_logger().setLevel("ERROR")
    with explain_download(archive.url, files):
        pooch.retrieve(
            archive.url,
            f"{ALGORITHMS[len(checksum)]}:{checksum}" if checksum else None,
            fname=path.name,
            path=path.parent,
            downloader=downloader,
        )
    path.chmod(0o644)  # pooch hides it from other users


@contextlib.contextmanager
def explain_download(url: str, files: Iterable[RemoteFile] = ()) -> Iterator[None]:
    """Turns errors of a download into UserErrors, except for a full disk."""
    try:
        yield
    except OSError as error:  # of requests too
        if error.errno == errno.ENOSPC:
            raise
        names = list_names(files) or url.rsplit("/", 1)[-1]
        raise UserError(
            f"cannot download {url} ({error}): connect to the network, or give "
            f"--config.data.source_dir=DIR, a folder that holds {names}"
        ) from error
    except ValueError as error:  # of pooch
        reason = f"checksum mismatch: {' '.join(str(error).split())}"
        raise UserError(f"{reason}{REPLACE.format(url=url)}") from error


def list_names(files: Iterable[RemoteFile]) -> str:
    """Returns a phrase with the files to put in a source folder."""
    files = list(files)
    if not files:
        return ""
    names = list(dict.fromkeys(file.name for file in files))
    others = f" and {len(names) - MAX_NAMES} more" if names[MAX_NAMES:] else ""
    archives = dict.fromkeys(f.archive.name for f in files if not f.is_published_alone)
    phrase = f"{', '.join(names[:MAX_NAMES])}{others} (plain or .gz)"
    return " or ".join([phrase, ", ".join(archives)]) if archives else phrase


def extract(archive: Path, members: Iterable[str], folder: Path) -> dict[str, Path]:
    """Extracts members of a `.zip` or any `.tar` to a folder that may hold some.

    Returns their paths. Raises UserError if the archive is damaged or lacks a member.
    """
    targets = {member: folder / member for member in members}
    wanted = {member for member, path in targets.items() if not path.exists()}
    read = _read_zip if archive.suffix == ".zip" else _read_tar
    parts = {}
    try:
        with explain_damage(archive):
            for member, file in read(archive, wanted):
                target = targets[member]
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(f"{target.name}.{os.getpid()}.part")
                parts[member] = part
                with part.open("wb") as copy:
                    shutil.copyfileobj(file, copy, BLOCK_BYTES)
        missing = sorted(wanted - parts.keys())
        if missing:
            raise UserError(f"{archive} lacks {', '.join(missing)}: fetch it again")
        for member, part in parts.items():
            part.rename(targets[member])
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return targets


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
        while file.read(BLOCK_BYTES):  # up to gzip's checksum at the end
            pass
