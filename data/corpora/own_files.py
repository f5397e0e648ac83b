"""Corpora of a user's own text files, kept apart by what the files hold.

They are prepared as `<corpus>/<config>-<key>`, the key a hash of the texts: a changed
file is another corpus, and the same texts are found again wherever they lie.
`plain_text` is the simplest of them.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from etils import epath

from data.corpora.local_files import Layout, content_key, fingerprint, unpack
from data.corpora.own_files import PreparedVersions
from utils.errors import UserError

NAMED_COPY = re.compile(r"(?:.+-)?[0-9a-f]{12}")


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

    VERSION = tfds.core.Version("1.1.0")  # 1.0.0 kept "\r" at ends of lines

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
        copies = PreparedVersions(data_dir / cls.name, config, str(cls.VERSION))
        if NAMED_COPY.fullmatch(config) and copies.has(config):
            return Config(config)
        cls.check_name(config)
        if source_dir is None:
            return Config(cls._only(copies))
        source = Path(source_dir).expanduser().absolute()
        if source.is_dir() and any(source.iterdir()):
            layout = cls.layout(config, source)
            now = fingerprint(layout)
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
    def _only(cls, copies: PreparedVersions) -> str:
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
        if fingerprint(self.builder_config.layout) != self.builder_config.stamps:
            raise UserError(f"{self.name}'s files changed while they were read")

    def read(self, paths: tuple[Path, ...], whole: bool) -> Iterator[str]:
        r"""The texts of one column; lines end in "\n" or "\r\n", and no BOM is read."""
        for path in paths:
            with unpack(path) as file:
                for number, content in enumerate([file.read()] if whole else file):
                    text = content.decode("utf8" if number else "utf-8-sig")
                    if not whole:
                        text = text.removesuffix("\n").removesuffix("\r")
                    yield text
