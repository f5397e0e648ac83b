"""Base classes of the TFDS builders of published corpora."""

from collections.abc import Iterable, Iterator

import tensorflow_datasets as tfds


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

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=self.features(),
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            metadata=tfds.core.MetadataDict() if self.RECORD_CHECKSUMS else None,
            disable_shuffling=True,
        )


class PublicText(PublicCorpus, skip_registration=True):
    """A published corpus of texts."""

    def features(self) -> tfds.features.FeaturesDict:
        """Returns the features of an example, a text."""
        return tfds.features.FeaturesDict({"text": tfds.features.Text()})

    def _generate_examples(self, texts: Iterable[str]) -> Iterator:
        for key, text in enumerate(texts):
            yield key, {"text": text}


class PublicPairs(PublicCorpus, skip_registration=True):
    """A published corpus of sentence pairs, whose config names the languages."""

    @property
    def languages(self) -> list[str]:
        """Source and target language."""
        return self.builder_config.name.split("-")

    def features(self) -> tfds.features.FeaturesDict:
        """Returns the features of an example, a sentence in both languages."""
        return tfds.features.Translation(self.languages)

    def _generate_examples(self, pairs: Iterable[tuple[str, str]]) -> Iterator:
        for key, pair in enumerate(pairs):
            yield key, dict(zip(self.languages, pair, strict=True))
