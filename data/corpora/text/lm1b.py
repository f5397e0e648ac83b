"""One Billion Word (Chelba et al. 2013): news sentences in random order."""

from data.corpora.builders import PublicText
from data.corpora.download import RemoteArchive, RemoteFile

# Address and SHA-256 are those of TFDS's lm1b.
NAME = "1-billion-word-language-modeling-benchmark-r13output"
ARCHIVE = RemoteArchive(
    f"http://www.statmt.org/lm-benchmark/{NAME}.tar.gz",
    "01ba60381110baf7f189dfd2b8374de371e8c9a340835793f190bdae9e90a34e",
)
TRAIN = f"{NAME}/training-monolingual.tokenized.shuffled/news.en-{{:05}}-of-00100"
HELDOUT = f"{NAME}/heldout-monolingual.tokenized.shuffled/news.en.heldout-{{}}-of-00050"
SPLITS = {
    "train": [TRAIN.format(shard) for shard in range(1, 100)],
    "validation": [HELDOUT.format("00001")],
    "test": [HELDOUT.format("00000")],
}


class Lm1b(PublicText):
    """0.8 billion words, 793,471 different ones; an example is a sentence.

    99 files are for training; the hundredth is held out in 50 shards. By the corpus's
    convention results are those of shard 00000; ours for validation is 00001.
    Transformer-XL's getdata.sh copies one shard to both. TFDS's builder of this name
    has no validation, all 50 shards as test, and needs TensorFlow. `source_dir` is a
    folder with the published archive or the 101 files; None downloads it (1.8 GB; 4 GB
    unpacked).
    """

    HOMEPAGE = "https://www.statmt.org/lm-benchmark"
    LICENSE = "Apache 2.0 for the tools; text for research, as WMT11's"
    RECORD_CHECKSUMS = True

    def files(self, store):
        return {
            split: [RemoteFile(ARCHIVE, name) for name in names]
            for split, names in SPLITS.items()
        }
