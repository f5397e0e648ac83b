"""TED talks in pairs of high- and low-resource languages (Qi et al. 2018)."""

from data.corpora.builders import PublicPairs, language_configs
from data.corpora.download import RemoteArchive, RemoteFile
from data.corpora.text_files import drop_empty_pairs

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
    the two otherwise. Pairs with an empty side are left out, as TFDS does. `source_dir`
    is a folder with the published archive or the files of a pair; None downloads it
    (131 MB).
    """

    HOMEPAGE = "https://github.com/neulab/word-embeddings-for-nmt"
    LICENSE = "CC BY-NC-ND, as TED's talks"
    RECORD_CHECKSUMS = True
    BUILDER_CONFIGS = language_configs(
        direction for pair in PAIRS for direction in (pair, pair[::-1])
    )

    def files(self, store):
        return {split: self._pair(stem) for split, stem in SPLITS.items()}

    def read(self, split, paths):
        return drop_empty_pairs(super().read(split, paths), split)

    def _pair(self, stem):
        """Returns the files of both sides, source first."""
        pair = next(pair for pair in PAIRS if set(pair) == set(self.languages))
        folder = f"datasets/{'_to_'.join(pair)}"
        names = [
            name.replace("_", "-") if stem == "train" else name.partition("_")[0]
            for name in self.languages
        ]
        return [RemoteFile(ARCHIVE, f"{folder}/{name}.{stem}") for name in names]
