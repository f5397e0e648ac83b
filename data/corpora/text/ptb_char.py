"""Penn Treebank as characters, Mikolov's split: 50 different symbols."""

import tensorflow_datasets as tfds

from data.corpora import remote_files
from data.corpora.public import PublicText

# SHA-256 of the texts as awd-lstm-lm and others took them from this archive.
ADDRESS = "http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz"
FOLDER = "simple-examples/data"
FILES = {
    "train": (
        "ptb.char.train.txt",
        "e313d91425e06c4f0a8fb6e881dcce0c291f2a0e9f4dda54833069b122f91da9",
    ),
    "validation": (
        "ptb.char.valid.txt",
        "21661f63ec355085879458b6524644d4add5573541b4be14fb52ab2e2e995eb8",
    ),
    "test": (
        "ptb.char.test.txt",
        "1ef5607ac3c463b16e38bfe7900dd3bfc91de5a96e0f21e7eab5188b465b8ebe",
    ),
}


class PtbChar(PublicText):
    """Penn Treebank as symbols (Mikolov et al. 2012), for the "char" tokenizer.

    A published line has one symbol between two spaces and "_" for a space of the text;
    an example is that text, so that what is counted as a character is a symbol. Every
    line ends in one more, `<eos>`; with it there are 5,017,482 training symbols of 50
    kinds.

    Attributes:
      source_dir: folder with the published files or archive; None downloads it.
    """

    VERSION = tfds.core.Version("1.1.0")  # 1.0.0 gave lines as they are published
    HOMEPAGE = "https://catalog.ldc.upenn.edu/LDC99T42"
    LICENSE = "LDC User Agreement"

    def _split_generators(self, dl_manager):
        files = {
            split: remote_files.RemoteFile(
                ADDRESS, checksum, (name,), f"{FOLDER}/{name}"
            )
            for split, (name, checksum) in FILES.items()
        }
        texts = remote_files.read_texts(files, self.source_dir)
        return {split: self._generate_examples(text) for split, text in texts.items()}

    def _generate_examples(self, text):
        # The published files end in a space of no line.
        for key, line in enumerate(remote_files.split_lines(text.rstrip(" "))):
            yield key, {"text": "".join(line.split()).replace("_", " ")}
