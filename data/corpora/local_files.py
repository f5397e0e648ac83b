"""Corpora of a user's own text files, stored by content.

They are prepared as `<corpus>/<config>-<key>`, where the key is a hash of the texts: a
changed file is another corpus, and the same texts are found again in any folder. The
simplest one is `plain_text`.
"""

import codecs
import contextlib
import functools
import gzip
import hashlib
import inspect
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tensorflow_datasets as tfds
from etils import epath

from data.corpora.text_files import open_unpacked
from utils.errors import UserError

BLOCK_BYTES = 2**20  # read at once
SETTLED = 2  # seconds after which every change of a file changes its times
ORDER = ("train", "validation", "test")
# Splits by the file name's stem.
STEMS = dict.fromkeys(("valid", "val", "dev"), "validation") | {s: s for s in ORDER}
NAMED_VERSION = re.compile(r"(?:.+-)?[0-9a-f]{12}")


@dataclass(frozen=True)
class SplitFiles:
    """The files of each field of one split, in order."""

    columns: dict[str, tuple[Path, ...]]
    whole: bool = False  # an example is a file; else it is a line


Layout = dict[str, SplitFiles]  # by split
FoundSplit = tuple[str, str, SplitFiles]  # split, name of its file or folder, files


# --- The files of a folder ---


def find_file(folder: Path, name: str) -> Path | None:
    """Returns the path of a file, plain or `.gz`, or None if there is none."""
    paths = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if len(paths) > 1:
        raise UserError(f"{folder} holds both {name} and {name}.gz: remove one")
    return paths[0] if paths else None


def list_names(folder: Path) -> list[str]:
    """Returns the names of a folder's files without `.gz`, sorted."""
    return sorted({p.name.removesuffix(".gz") for p in folder.iterdir() if p.is_file()})


def find_documents(folder: Path) -> list[FoundSplit]:
    """Returns the splits that are folders of documents; UserError if one is empty."""
    splits = []
    for stem, split in STEMS.items():
        if (path := folder / stem).is_dir():
            names = [name for name in list_names(path) if name.endswith(".txt")]
            if not names:
                raise UserError(f"{path} is empty: it holds no .txt or .txt.gz file")
            texts = tuple(find_file(path, name) for name in names)
            splits.append((split, f"{stem}/", SplitFiles({"text": texts}, whole=True)))
    return splits


def group_splits(splits: list[FoundSplit], folder: Path) -> Layout:
    """Orders the files by split; UserError if a split occurs twice."""
    layout, origins = {}, {}
    rank = {split: number for number, split in enumerate(ORDER)}
    for split, origin, files in sorted(splits, key=lambda f: (rank.get(f[0], 9), f[0])):
        if split in layout:
            raise UserError(
                f"{folder} holds both {origins[split]} and {origin}, which would both "
                f"be the split {split!r}: remove or rename one"
            )
        layout[split], origins[split] = files, origin
    return layout


def hash_and_count(path: Path) -> tuple[str, int]:
    """Returns a text's SHA-256 and number of lines; UserError if it is damaged."""
    digest, breaks, blank, last = hashlib.sha256(), 0, True, b""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open_unpacked(path) as file:
            while block := file.read(BLOCK_BYTES):
                blank &= decoder.decode(block).isspace()
                digest.update(block)
                breaks += block.count(b"\n")
                last = block[-1:]
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        line = breaks + error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8 ({error.reason})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged or cut short ({error})") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if blank:
        raise UserError(f"{path} is empty: it holds no text")
    return digest.hexdigest(), breaks + (last != b"\n")


def content_key(layout: Layout) -> str:
    """Returns 12 hexadecimal digits that depend on all texts and their order.

    Raises UserError if a file is invalid, or columns differ in their number of lines.
    """
    parts = []
    for split, files in layout.items():
        results = {
            field: [hash_and_count(path) for path in paths]
            for field, paths in files.columns.items()
        }
        first, *others = results
        for field in () if files.whole else others:
            names = [files.columns[one][0].name for one in (first, field)]
            lines = [results[one][0][1] for one in (first, field)]
            if lines[0] != lines[1]:
                raise UserError(
                    f"{names[0]} has {lines[0]} lines and {names[1]} has {lines[1]}: "
                    "line n of one must belong to line n of the other"
                )
        digests = {field: [row[0] for row in rows] for field, rows in results.items()}
        parts.append([split, files.whole, digests])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def fingerprint(layout: Layout) -> list[list]:
    """Returns the name, size and times of every file, which change with a file."""
    columns = [paths for files in layout.values() for paths in files.columns.values()]
    stats = [(str(path), path.stat()) for paths in columns for path in paths]
    return [[name, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in stats]


# --- Prepared versions of a corpus ---


class PreparedVersions:
    """The prepared versions of a corpus, and the folder that each was made from.

    `sources.json` next to the versions stores the key of every folder: unchanged files
    are not read again, and a version is found when its folder no longer exists.
    """

    def __init__(self, folder: epath.Path, config: str, version: str):
        self.folder, self.config, self.version = folder, config, version
        self.path = folder / "sources.json"

    def name(self, key: str) -> str:
        return f"{self.config}-{key}" if self.config else key

    def has(self, name: str) -> bool:
        """Returns whether the version with this config's name is prepared."""
        return (self.folder / name / self.version / "dataset_info.json").exists()

    def prepared(self) -> list[str]:
        """Returns the config names of all prepared versions."""
        pattern = re.compile(re.escape(self.name("")) + "[0-9a-f]{12}")
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        names = [path.name for path in paths if pattern.fullmatch(path.name)]
        return sorted(name for name in names if self.has(name))

    def key(self, source: Path, files: list, compute: Callable[[], str]) -> str:
        """Returns the key of a folder, computed unless its fingerprint is stored."""
        stored = self.stored(source)
        if stored.get("stamps") == files:
            return stored["key"]
        key = compute()
        newest = max(max(times) for _, _, *times in files) / 1e9
        is_settled = time.time() - newest > SETTLED
        entry = {"key": key, "stamps": files if is_settled else None}
        draft = self.folder / f".sources-{os.getpid()}.json"
        with contextlib.suppress(OSError):  # it only saves time
            self.folder.mkdir(parents=True, exist_ok=True)
            content = self._read() | {f"{self.config} {source}": entry}
            draft.write_text(json.dumps(content))
            draft.replace(self.path)
        return key

    def stored(self, source: Path) -> dict:
        """Returns the stored key and fingerprint of a folder, or {}."""
        return self._read().get(f"{self.config} {source}", {})

    def _read(self) -> dict:
        try:
            return json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}


# --- The TFDS builder ---


class Config(tfds.core.BuilderConfig):
    """TFDS config of one version, with its files unless it is prepared."""

    def __init__(self, name: str, layout: Layout | None = None, fingerprint=()):
        super().__init__(name=name)
        self.layout, self.fingerprint = layout, fingerprint


class LocalText(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base builder of local files; `find_config` makes the config to open it with.

    Attributes:
      HOMEPAGE, LICENSE, CITATION: of a named corpus.
    """

    VERSION = tfds.core.Version("1.1.0")  # 1.0.0 kept "\r" at ends of lines
    HOMEPAGE = LICENSE = CITATION = ""

    @classmethod
    def expected_files(cls, config: str) -> str:
        """Returns the files that a folder must hold, for error messages."""
        raise NotImplementedError

    @classmethod
    def check_name(cls, config: str) -> None:
        """Raises UserError for an invalid config."""
        if config:
            raise UserError(f"{cls.name} has no config {config!r}: name it {cls.name}")

    @classmethod
    def find_splits(cls, config: str, folder: Path) -> list[FoundSplit]:
        """Returns the splits in a folder. Raises UserError if a file is missing."""
        raise NotImplementedError

    @classmethod
    def find_config(
        cls, config: str, data_dir: epath.Path, source_dir: str | None
    ) -> Config:
        """Returns the version of the texts in `source_dir`, the named or the only one.

        Raises UserError if there is no such version, or several.
        """
        versions = PreparedVersions(data_dir / cls.name, config, str(cls.VERSION))
        if NAMED_VERSION.fullmatch(config) and versions.has(config):
            return Config(config)
        cls.check_name(config)
        if source_dir is None:
            return Config(cls._only_version(versions))
        source = Path(os.path.abspath(Path(source_dir).expanduser()))
        if source.is_dir() and any(source.iterdir()):
            splits = cls.find_splits(config, source)
            if "train" not in [split for split, *_ in splits]:
                raise UserError(
                    f"{source} lacks training data: {cls.expected_files(config)}"
                )
            layout = group_splits(splits, source)
            files = fingerprint(layout)
            key = versions.key(source, files, functools.partial(content_key, layout))
            return Config(versions.name(key), layout, files)
        name = versions.name(versions.stored(source).get("key", ""))
        if versions.has(name):
            return Config(name)
        raise UserError(
            f"source_dir {source_dir} is no folder, or empty: give as "
            f"--config.data.source_dir one that holds {cls.expected_files(config)}, or "
            "as --config.data.dir one in which they were prepared"
        )

    @classmethod
    def _only_version(cls, versions: PreparedVersions) -> str:
        names = versions.prepared()
        if not names:
            origin = "not downloaded" if cls.HOMEPAGE else "not published anywhere"
            raise UserError(
                f"{cls.name} is {origin}: give --config.data.source_dir=DIR, a folder "
                f"that holds {cls.expected_files(versions.config)}"
            )
        if len(names) > 1:
            known = ", ".join(f"{cls.name}/{name}" for name in names)
            raise UserError(
                f"{versions.folder} holds several versions: give "
                f"--config.data.source_dir, or as --config.data.name one of {known}"
            )
        return names[0]

    def _info(self):
        layout = self.builder_config.layout or {}
        fields = dict.fromkeys(f for files in layout.values() for f in files.columns)
        return self.describe({field: tfds.features.Text() for field in fields})

    def describe(self, features: dict) -> tfds.core.DatasetInfo:
        """Returns TFDS's information about a corpus with these features."""
        return tfds.core.DatasetInfo(
            builder=self,
            description=inspect.getdoc(type(self)),
            # Without a layout, TFDS reads them from the prepared version.
            features=tfds.features.FeaturesDict(features) if features else None,
            homepage=self.HOMEPAGE,
            license=self.LICENSE or None,
            citation=self.CITATION or None,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        layout = self.builder_config.layout
        return {split: self._generate_examples(f) for split, f in layout.items()}

    def _generate_examples(self, files):
        missing = dict.fromkeys(self.info.features, "")
        columns = [self.read(paths, files.whole) for paths in files.columns.values()]
        for key, texts in enumerate(zip(*columns, strict=False)):
            yield key, missing | dict(zip(files.columns, texts, strict=True))
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Raises UserError if a file changed since its content was hashed."""
        if fingerprint(self.builder_config.layout) != self.builder_config.fingerprint:
            raise UserError(f"{self.name}'s files changed while they were read")

    def read(self, paths: tuple[Path, ...], whole: bool) -> Iterator[str]:
        r"""Yields the texts of one column, without a BOM and "\n" or "\r\n" at ends."""
        for path in paths:
            with open_unpacked(path) as file:
                for number, content in enumerate([file.read()] if whole else file):
                    text = content.decode("utf8" if number else "utf-8-sig")
                    if not whole:
                        text = text.removesuffix("\n").removesuffix("\r")
                    yield text
