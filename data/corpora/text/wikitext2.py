"""WikiText-2 (Merity et al. 2017): two million words of Wikipedia, in order."""

from data.corpora import remote_files
from data.corpora.public import PublicText

# The authors' own copy of the archive they first published on Amazon S3.
ADDRESS = "https://wikitext.smerity.com/wikitext-2-v1.zip"
FILES = {
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


class Wikitext2(PublicText):
    """WikiText-2 as words, rare ones already `<unk>`; titles are `= Title =` lines.

    An example is a line without the spaces around it, blank lines among them: the
    published 2,088,628 training tokens give every line an `<eos>`.

    Attributes:
      source_dir: folder with the published files; None downloads them.
    """

    HOMEPAGE = "https://arxiv.org/abs/1609.07843"
    LICENSE = "CC BY-SA 3.0"

    def _split_generators(self, dl_manager):
        files = {
            split: remote_files.RemoteFile(
                ADDRESS, checksum, names, f"wikitext-2/{names[0]}"
            )
            for split, (names, checksum) in FILES.items()
        }
        texts = remote_files.read_texts(files, self.source_dir)
        return {split: self._generate_examples(text) for split, text in texts.items()}

    def _generate_examples(self, text):
        for key, line in enumerate(remote_files.split_lines(text)):
            yield key, {"text": line.strip()}
