"""TED talks in pairs of high- and low-resource languages (Qi et al. 2018)."""

import tensorflow_datasets as tfds

from data.corpora.builders import PublicPairs
from data.corpora.download import RemoteArchive, RemoteFile, open_store
from data.corpora.text_files import drop_empty_pairs, read_pairs

# Address and SHA-256 are those of TFDS's ted_hrlr_translate.
ARCHIVE = RemoteArchive(
    "http://www.phontron.com/data/qi18naacl-dataset.tar.gz",
    "216a86c3df4d4f522856fe9b920ff5be6b394d769cc88974ae8f9f5546953bbc",
)
PAIRS = [
    *(("az", "en"), ("az_tr", "en"), ("be", "en"), ("be_ru", "en"), ("es", "pt")),
    *(("fr", "pt"), ("gl", "en"), ("gl_pt", "en"), ("he", "pt"), ("it", "pt")),
    *(("pt", "en"), ("ru", "en"), ("ru", "pt"), ("tr", "en")),
]
SPLITS = {"train": "train", "validation": "dev", "test": "test"}


class TedHrlr(PublicPairs):
    """Talks as their authors cut and tokenised them, each pair in both directions.

    5,946 (az-en) to 208,106 (ru-en) training pairs; pt-en has 51,785, 1,193 and 1,803.
    "az_tr" and its like are a mixture of two languages in training, and the first of
    the two otherwise. Pairs with an empty side are left out, as TFDS does.

    Attributes:
      source_dir: folder with the published archive or the files of a pair; None
        downloads it (131 MB).
    """

    HOMEPAGE = "https://github.com/neulab/word-embeddings-for-nmt"
    LICENSE = "CC BY-NC-ND, as TED's talks"
    RECORD_CHECKSUMS = True
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="-".join(direction))
        for pair in PAIRS
        for direction in (pair, pair[::-1])
    ]

    def _split_generators(self, dl_manager):
        names = {split: self._names(stem) for split, stem in SPLITS.items()}
        files = {n: RemoteFile(ARCHIVE, n) for pair in names.values() for n in pair}
        paths = open_store(self, dl_manager).fetch(files)
        return {
            split: self._generate_examples(
                drop_empty_pairs(read_pairs(*(paths[name] for name in pair)), split)
            )
            for split, pair in names.items()
        }

    def _names(self, stem):
        """Returns the members of both sides, source first."""
        folder = "_to_".join(sorted(self.languages, key=self._published_order))
        return [
            f"datasets/{folder}/{self._file_language(language, stem)}.{stem}"
            for language in self.languages
        ]

    def _published_order(self, language):
        pair = next(pair for pair in PAIRS if set(pair) == set(self.languages))
        return pair.index(language)

    def _file_language(self, language, stem):
        if stem == "train":
            return language.replace("_", "-")
        return language.partition("_")[0]
