"""Corpora of a user's own text files, kept apart by what the files hold.

They are prepared as `<corpus>/<config>-<key>`, the key a hash of the texts: a changed
file is another corpus, and the same texts are found again wherever they lie.
`plain_text` is the simplest of them.
"""

import codecs
import functools
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tensorflow_datasets as tfds
from etils import epath

from data.copies import Copies
from errors import UserError

BLOCK = 2**20  # bytes read at once
ORDER = ("train", "validation", "test")
STEMS = {"valid": "validation", "val": "validation", "dev": "validation"}
STEMS |= {split: split for split in ORDER}
NAMED_COPY = re.compile(r"(?:.+-)?[0-9a-f]{12}")


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split.

    Attributes:
      columns: by field, the files it is read from, in order.
      whole: whether an example is a file; else it is a line.
    """

    columns: dict[str, tuple[Path, ...]]
    whole: bool = False


Layout = dict[str, SplitFiles]  # by split


def take(folder: Path, name: str) -> Path | None:
    """The text `name` of `folder`, plain or `.gz`, if there is one."""
    found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if len(found) > 1:
        raise UserError(f"{folder} holds both {name} and {name}.gz: remove one")
    return found[0] if found else None


def names(folder: Path) -> list[str]:
    """What the files of `folder` are called when unpacked, sorted."""
    return sorted({p.name.removesuffix(".gz") for p in folder.iterdir() if p.is_file()})


def arrange(found: list[tuple[str, str, SplitFiles]], folder: Path) -> Layout:
    """The splits in their order, from (split, what makes it, files).

    Raises UserError where one is there twice.
    """
    layout, origins = {}, {}
    rank = {split: number for number, split in enumerate(ORDER)}
    for split, origin, files in sorted(found, key=lambda f: (rank.get(f[0], 9), f[0])):
        if split in layout:
            raise UserError(
                f"{folder} holds both {origins[split]} and {origin}, which would both "
                f"be the split {split!r}: remove or rename one"
            )
        layout[split], origins[split] = files, origin
    return layout


def unpack(path: Path):
    """Opens `path` to read the bytes of its text."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def inspect(path: Path) -> tuple[str, int]:
    """A hash of the text, and its number of lines.

    Raises UserError unless the file is whole, in UTF-8 and more than white space.
    """
    digest, breaks, blank, last = hashlib.sha256(), 0, True, b""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with unpack(path) as file:
            while block := file.read(BLOCK):
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
    """Twelve hexadecimal digits that depend on all texts and their order.

    Raises UserError for a file that cannot be used or is out of step with the others.
    """
    parts = []
    for split, files in layout.items():
        found = {
            field: [inspect(path) for path in paths]
            for field, paths in files.columns.items()
        }
        if not files.whole:
            check_step(files, {field: rows[0][1] for field, rows in found.items()})
        digests = {field: [row[0] for row in rows] for field, rows in found.items()}
        parts.append([split, files.whole, digests])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def check_step(files: SplitFiles, lines: dict[str, int]) -> None:
    """Raises UserError unless all columns have as many lines as the first."""
    first, *others = lines
    for field in others:
        if lines[field] != lines[first]:
            one, other = files.columns[first][0].name, files.columns[field][0].name
            raise UserError(
                f"{one} has {lines[first]} lines and {other} has {lines[field]}: "
                "line n of one has to belong to line n of the other"
            )


def stamps(layout: Layout) -> list[list]:
    """Name, size and times of every file: they change when a file does."""
    columns = [paths for files in layout.values() for paths in files.columns.values()]
    stats = [(str(path), path.stat()) for paths in columns for path in paths]
    return [[name, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in stats]


class Config(tfds.core.BuilderConfig):
    """One copy.

    Attributes:
      layout: where its texts are; None where they are not needed any more.
      stamps: of the files when the copy got its name.
    """

    def __init__(self, name: str, layout: Layout | None = None, stamps=()):
        super().__init__(name=name)
        self.layout, self.stamps = layout, stamps


class OwnText(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Prepares what `layout` finds. `find_config` makes the config to open it with."""

    VERSION = tfds.core.Version("1.0.0")

    @classmethod
    def wanted(cls, config: str) -> str:
        """What a folder has to hold, for messages."""
        raise NotImplementedError

    @classmethod
    def check_name(cls, config: str) -> None:
        """Raises UserError for what cannot stand behind the corpus's name."""
        if config:
            raise UserError(f"{cls.name} has no config {config!r}: name it {cls.name}")

    @classmethod
    def layout(cls, config: str, folder: Path) -> Layout:
        """The files of `folder`. Raises UserError where one is missing."""
        raise NotImplementedError

    @classmethod
    def find_config(
        cls, config: str, data_dir: epath.Path, source_dir: str | None
    ) -> Config:
        """The copy of `source_dir`'s texts, or else the only one, or the one named.

        Raises UserError where that is none or could be several.
        """
        copies = Copies(data_dir / cls.name, config, str(cls.VERSION))
        if NAMED_COPY.fullmatch(config) and copies.has(config):
            return Config(config)
        cls.check_name(config)
        if source_dir is None:
            return Config(cls._only(copies))
        source = Path(source_dir).expanduser().absolute()
        if source.is_dir() and any(source.iterdir()):
            layout = cls.layout(config, source)
            now = stamps(layout)
            key = copies.key(source, now, functools.partial(content_key, layout))
            return Config(copies.name(key), layout, now)
        name = copies.name(copies.remembered(source).get("key", ""))
        if copies.has(name):
            return Config(name)
        raise UserError(
            f"source_dir {source_dir} is no folder, or empty: give one that holds "
            f"{cls.wanted(config)}"
        )

    @classmethod
    def _only(cls, copies: Copies) -> str:
        """The config of the one copy there is."""
        found = copies.prepared()
        if not found:
            raise UserError(
                f"{cls.name} is not published anywhere: give --config.data.source_dir="
                f"DIR, a folder that holds {cls.wanted(copies.config)}"
            )
        if len(found) > 1:
            known = ", ".join(f"{cls.name}/{name}" for name in found)
            raise UserError(
                f"{copies.folder} holds several copies: give --config.data.source_dir, "
                f"or as --config.data.name one of {known}"
            )
        return found[0]

    def _info(self):
        layout = self.builder_config.layout or {}
        fields = dict.fromkeys(f for files in layout.values() for f in files.columns)
        features = {field: tfds.features.Text() for field in fields}
        return tfds.core.DatasetInfo(
            builder=self,
            # Without a layout, TFDS reads them from the copy.
            features=tfds.features.FeaturesDict(features) if features else None,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        layout = self.builder_config.layout
        return {split: self._generate_examples(f) for split, f in layout.items()}

    def _generate_examples(self, files):
        absent = dict.fromkeys(self.info.features, "")
        columns = [self.read(paths, files.whole) for paths in files.columns.values()]
        for key, texts in enumerate(zip(*columns, strict=False)):
            yield key, absent | dict(zip(files.columns, texts, strict=True))
        if stamps(self.builder_config.layout) != self.builder_config.stamps:
            raise UserError(f"{self.name}'s files changed while they were read")

    def read(self, paths: tuple[Path, ...], whole: bool) -> Iterator[str]:
        r"""The texts of one column; lines end in "\n" alone."""
        for path in paths:
            with unpack(path) as file:
                for text in [file.read()] if whole else file:
                    yield text.decode() if whole else text.decode().removesuffix("\n")


class PlainText(OwnText):
    """A text a split, an example a line; or a folder a split, an example a file."""

    @classmethod
    def wanted(cls, config: str) -> str:
        """What a folder has to hold, for messages."""
        return "train.txt, valid.txt (plain or .gz), or folders train, valid of .txt"

    @classmethod
    def layout(cls, config: str, folder: Path) -> Layout:
        """The files of `folder`. Raises UserError where one is missing."""
        found = []
        for stem, split in STEMS.items():
            if path := take(folder, f"{stem}.txt"):
                found.append((split, path.name, SplitFiles({"text": (path,)})))
            if (folder / stem).is_dir():
                found.append((split, f"{stem}/", read_folder(folder / stem)))
        if "train" not in [split for split, *_ in found]:
            raise UserError(f"{folder} lacks train.txt: give {cls.wanted(config)}")
        return arrange(found, folder)


def read_folder(folder: Path) -> SplitFiles:
    """Every text of `folder` as one document. Raises UserError if there is none."""
    texts = [take(folder, name) for name in names(folder) if name.endswith(".txt")]
    if not texts:
        raise UserError(f"{folder} is empty: it holds no .txt or .txt.gz file")
    return SplitFiles({"text": tuple(texts)}, whole=True)
