"""What builders of published corpora have in common."""

from collections.abc import Iterable, Iterator

import tensorflow_datasets as tfds


class PublicCorpus(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A corpus that keeps the order of its files.

    Attributes:
      HOMEPAGE, LICENSE: where it comes from and what one may do with it.
      RECORD_CHECKSUMS: whether its metadata keep the checksums of files that have no
        published one.
      source_dir: folder with the published files; None downloads them.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = LICENSE = ""
    RECORD_CHECKSUMS = False
    source_dir = None

    def features(self) -> tfds.features.FeaturesDict:
        """Of an example."""
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
    """A corpus of texts."""

    def features(self) -> tfds.features.FeaturesDict:
        """A text."""
        return tfds.features.FeaturesDict({"text": tfds.features.Text()})


class PublicPairs(PublicCorpus, skip_registration=True):
    """A corpus of sentences in two languages, which its config names."""

    @property
    def languages(self) -> list[str]:
        """Source and target."""
        return self.builder_config.name.split("-")

    def features(self) -> tfds.features.FeaturesDict:
        """A sentence in both languages."""
        return tfds.features.Translation(self.languages)

    def _generate_examples(self, pairs: Iterable[tuple[str, str]]) -> Iterator:
        for key, pair in enumerate(pairs):
            yield key, dict(zip(self.languages, pair, strict=True))
