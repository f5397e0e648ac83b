"""WikiText-103 (Merity et al. 2017): 103 million words of Wikipedia, in order."""

from data.corpora.download import RemoteArchive, open_store
from data.corpora.lines import read_lines
from data.corpora.public import PublicText

# The authors' own copy of the archive they first published on Amazon S3. What is in it
# is held against SHA-1, by GluonNLP's WikiText103.
ARCHIVE = RemoteArchive("https://wikitext.smerity.com/wikitext-103-v1.zip", None)
FILES = {
    "train": (
        "wikitext-103/wiki.train.tokens",
        "b7497e2dfe77e72cfef5e3dbc61b7b53712ac211",
    ),
    "validation": (
        "wikitext-103/wiki.valid.tokens",
        "c326ac59dc587676d58c422eb8a03e119582f92b",
    ),
    "test": (
        "wikitext-103/wiki.test.tokens",
        "8a5befc548865cec54ed4273cf87dbbad60d1e47",
    ),
}


class Wikitext103(PublicText):
    """WikiText-103 as words, rare ones already `<unk>`; titles are `= Title =` lines.

    An example is a line without the spaces around it, blank lines among them: the
    published 103,227,021 training tokens give every line an `<eos>`. 267,735 different
    words.

    Attributes:
      source_dir: folder with the published archive or its files; None downloads it
        (190 MB; 540 MB unpacked).
    """

    HOMEPAGE = "https://arxiv.org/abs/1609.07843"
    LICENSE = "CC BY-SA 3.0"
    RECORD_CHECKSUMS = True

    def _split_generators(self, dl_manager):
        files = open_store(self, dl_manager).members(ARCHIVE, dict(FILES.values()))
        return {
            split: self._generate_examples(files[name])
            for split, (name, _) in FILES.items()
        }

    def _generate_examples(self, path):
        for key, line in enumerate(read_lines(path)):
            yield key, {"text": line.strip()}
