"""Base classes of the TFDS builders of published corpora."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from data.corpora.download import ArchiveStore, RemoteArchive, RemoteFile, open_store
from data.corpora.text_files import read_lines, read_pairs

STEMS = {"train": "train", "validation": "valid", "test": "test"}  # of file names


class PublicCorpus(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A corpus whose examples keep the order of its files.

    Attributes:
      HOMEPAGE, LICENSE: source and terms of use.
      RECORD_CHECKSUMS: whether its metadata keep the checksums of files that have no
        published one.
      source_dir: folder with the published files; None downloads them.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = LICENSE = ""
    RECORD_CHECKSUMS = False
    source_dir = None

    def features(self) -> tfds.features.FeaturesDict:
        """Returns the features of an example."""
        raise NotImplementedError

    def files(self, store: ArchiveStore) -> dict[str, list[RemoteFile]]:
        """Returns the files of each split, in order."""
        raise NotImplementedError

    def read(self, split: str, paths: list[Path]) -> Iterable:
        """Returns the examples in the files of a split."""
        raise NotImplementedError

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=self.features(),
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            metadata=tfds.core.MetadataDict() if self.RECORD_CHECKSUMS else None,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        store = open_store(self, dl_manager)
        splits = self.files(store)
        paths = store.fetch(itertools.chain.from_iterable(splits.values()))
        return {
            split: self._generate_examples(self.read(split, [paths[f] for f in files]))
            for split, files in splits.items()
        }


class PublicText(PublicCorpus, skip_registration=True):
    """A published corpus of texts; by default, an example is a stripped line.

    Attributes:
      URL: address of the archive, or of each split's text, with `{stem}` of `STEMS`.
      MEMBER, ALIASES: name of a split's text and its other names, with `{stem}`.
      CHECKSUMS: checksum of each split's text.
    """

    URL = MEMBER = ""
    ALIASES: tuple[str, ...] = ()
    CHECKSUMS: dict[str, str] = {}  # noqa: RUF012

    def features(self):
        return tfds.features.FeaturesDict({"text": tfds.features.Text()})

    def files(self, store):
        files = {}
        for split, checksum in self.CHECKSUMS.items():
            url, member, *aliases = (
                template.format(stem=STEMS[split])
                for template in (self.URL, self.MEMBER, *self.ALIASES)
            )
            file = RemoteFile(RemoteArchive(url), member, checksum, tuple(aliases))
            files[split] = [file]
        return files

    def read(self, split, paths):
        for path in paths:
            yield from map(str.strip, read_lines(path))

    def _generate_examples(self, texts: Iterable[str]) -> Iterator:
        for key, text in enumerate(texts):
            yield key, {"text": text}


class PublicPairs(PublicCorpus, skip_registration=True):
    """A published corpus of sentence pairs, whose config names the languages.

    The files of a split are a source and its target, again and again.
    """

    @property
    def languages(self) -> list[str]:
        """Source and target language."""
        return self.builder_config.name.split("-")

    def features(self):
        return tfds.features.Translation(self.languages)

    def read(self, split, paths):
        return itertools.chain.from_iterable(map(read_pairs, paths[::2], paths[1::2]))

    def _generate_examples(self, pairs: Iterable[tuple[str, str]]) -> Iterator:
        for key, pair in enumerate(pairs):
            yield key, dict(zip(self.languages, pair, strict=True))


def language_configs(pairs: Iterable[tuple[str, str]]) -> list[tfds.core.BuilderConfig]:
    """Returns a config for each pair of source and target language."""
    return [tfds.core.BuilderConfig(name="-".join(pair)) for pair in pairs]
