"""WikiText-2 and WikiText-103 (Merity et al. 2017): articles of Wikipedia, in order."""

from data.corpora.builders import PublicText
from data.corpora.download import RemoteArchive, RemoteFile, open_store
from data.corpora.text_files import read_lines

# The authors' own copies of the archives that they first published on Amazon S3.
WIKITEXT2 = "https://wikitext.smerity.com/wikitext-2-v1.zip"
WIKITEXT103 = "https://wikitext.smerity.com/wikitext-103-v1.zip"
# Checksums of the texts, SHA-256, and SHA-1 by GluonNLP's WikiText103.
FILES2 = {
    "train": (
        ("wiki.train.tokens", "train.txt"),
        "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
    ),
    "validation": (
        ("wiki.valid.tokens", "valid.txt"),
        "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    ),
    "test": (
        ("wiki.test.tokens", "test.txt"),
        "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
    ),
}
FILES103 = {
    "train": (("wiki.train.tokens",), "b7497e2dfe77e72cfef5e3dbc61b7b53712ac211"),
    "validation": (
        ("wiki.valid.tokens",),
        "c326ac59dc587676d58c422eb8a03e119582f92b",
    ),
    "test": (("wiki.test.tokens",), "8a5befc548865cec54ed4273cf87dbbad60d1e47"),
}


class Wikitext2(PublicText):
    """WikiText-2 as words, rare ones already `<unk>`; titles are `= Title =` lines.

    An example is a line without the spaces around it, blank lines included: the
    published 2,088,628 training tokens give every line an `<eos>`.

    Attributes:
      source_dir: folder with the published files; None downloads them.
    """

    HOMEPAGE = "https://arxiv.org/abs/1609.07843"
    LICENSE = "CC BY-SA 3.0"

    def _split_generators(self, dl_manager):
        return self._read_splits(dl_manager, WIKITEXT2, "wikitext-2", FILES2)

    def _read_splits(self, dl_manager, url, folder, splits):
        archive = RemoteArchive(url)
        files = {
            split: RemoteFile(archive, f"{folder}/{name}", checksum, tuple(aliases))
            for split, ((name, *aliases), checksum) in splits.items()
        }
        paths = open_store(self, dl_manager).fetch(files)
        return {
            split: self._generate_examples(map(str.strip, read_lines(path)))
            for split, path in paths.items()
        }


class Wikitext103(Wikitext2):
    """WikiText-103, 103 million words, in the same form.

    The published 103,227,021 training tokens give every line an `<eos>`; there are
    267,735 different words.

    Attributes:
      source_dir: folder with the published archive or its files; None downloads it
        (190 MB; 540 MB unpacked).
    """

    RECORD_CHECKSUMS = True

    def _split_generators(self, dl_manager):
        return self._read_splits(dl_manager, WIKITEXT103, "wikitext-103", FILES103)
