"""The published files of a corpus too large for memory, as files that can be read."""

import os
import posixpath
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.corpora.archives import digest, download, extract
from data.corpora.lines import open_packed, open_unpacked
from data.corpora.remote_files import ALGORITHMS
from utils.errors import UserError

PACKED = (".gz", ".bz2")

Checksums = Mapping[str, str | None]


@dataclass(frozen=True)
class RemoteArchive:
    """A published archive.

    Attributes:
      url: its address.
      checksum: MD5, SHA-1 or SHA-256 by its length; None: none was published, or
        those of its members are known instead.
    """

    url: str
    checksum: str | None

    @property
    def name(self) -> str:
        """The file's."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class ArchiveStore:
    """Where the files of one corpus are.

    Attributes:
      source_dir: folder that has them, or None: they are downloaded.
      folder: for what is downloaded and unpacked, kept for the next preparation.
      seen: SHA-256 of files for which none is published, by name.
    """

    source_dir: Path | None
    folder: Path
    seen: dict[str, str]

    def members(self, published: RemoteArchive, wanted: Checksums) -> dict[str, Path]:
        """A readable file for each of the `wanted`; some end in `.gz` or `.bz2`.

        A source folder may hold the archive, or its files with or without their
        folders, plain or packed.

        Args:
          wanted: paths inside the archive and the checksums of their unpacked text,
            None where only the archive's is known.

        Raises UserError.
        """
        plain = {member: self._find_plain(member) for member in wanted}
        if all(plain.values()):
            for member, path in plain.items():
                self._verify(path, wanted[member], published.url)
            return plain
        try:
            return self._unpack(published, wanted)
        except UserError:
            if self.source_dir is None:  # the next attempt fetches it anew
                (self.folder / published.name).unlink(missing_ok=True)
            raise

    def _unpack(self, published: RemoteArchive, wanted: Checksums) -> dict[str, Path]:
        archive, key = self._find_archive(published, wanted)
        folder = self.folder / "extracted" / f"{archive.name}-{key[:12]}"
        found = extract(archive, wanted, folder)
        for member, path in found.items():
            if wanted[member]:
                self._verify(path, wanted[member], published.url)
        return found

    def _find_plain(self, member: str) -> Path | None:
        if self.source_dir is None:
            return None
        name = member.removesuffix(".gz")
        stems = self.source_dir / name, self.source_dir / posixpath.basename(name)
        paths = [Path(f"{stem}{end}") for stem in stems for end in ("", *PACKED)]
        return next((path for path in paths if path.is_file()), None)

    def _find_archive(
        self, published: RemoteArchive, wanted: Checksums
    ) -> tuple[Path, str]:
        """The verified archive and its checksum."""

        def check(path: Path) -> str:
            if published.checksum or None in wanted.values():
                return self._verify(
                    path, published.checksum, published.url, open_packed
                )
            return digest(path, "sha256")

        if self.source_dir is not None:
            path = self.source_dir / published.name
            if not path.is_file():
                raise UserError(self._lacks(published, wanted))
            return path, check(path)
        path = self.folder / published.name
        if path.exists():
            return path, check(path)
        return path, download(published.url, path, check)

    def _lacks(self, published: RemoteArchive, wanted: Checksums) -> str:
        missing = [
            posixpath.basename(member).removesuffix(".gz")
            for member in wanted
            if self._find_plain(member) is None
        ]
        others = f" and {len(missing) - 3} more" if missing[3:] else ""
        return (
            f"source_dir {self.source_dir} lacks {published.name}, or of what is in "
            f"it {', '.join(missing[:3])}{others}; published at {published.url}"
        )

    def _verify(
        self, path: Path, checksum: str | None, url: str, opener=open_unpacked
    ) -> str:
        """Holds a file against its checksum, or remembers what it has."""
        algorithm = ALGORITHMS[len(checksum)] if checksum else "sha256"
        got = digest(path, algorithm, opener)
        if checksum is None:
            self._remember(path, got)
        elif got != checksum:
            raise UserError(
                f"checksum mismatch: {path} has {algorithm} {got}, expected "
                f"{checksum}; put the file of {url} in a folder and give it as "
                "--config.data.source_dir"
            )
        return got

    def _remember(self, path: Path, got: str) -> None:
        name = path.name.removesuffix(f".{os.getpid()}.part")
        if name not in self.seen:
            self.seen[name] = got
            note = "no checksum is published, so it is taken as it is"
            print(f"{name} has sha256 {got}: {note}", file=sys.stderr)


def open_store(builder, dl_manager) -> ArchiveStore:
    """The files of the corpus that `builder` prepares.

    What has no published checksum is recorded in the prepared folder's metadata.json.
    """
    source = builder.source_dir
    return ArchiveStore(
        source_dir=None if source is None else Path(source).expanduser(),
        folder=Path(os.fspath(dl_manager.download_dir)) / builder.name,
        seen=builder.info.metadata,
    )
