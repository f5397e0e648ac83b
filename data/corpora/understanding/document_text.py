"""Documents of a user's own files: a sentence on each line, blank lines between them.

    DIR/train.txt  DIR/valid.txt  DIR/test.txt      each plain or .gz

Folders DIR/train, DIR/valid, ... may hold one or more documents in each .txt file.
"""

import itertools
from typing import ClassVar

from data.corpora.text.plain_text import PlainText


class DocumentText(PlainText):
    r"""An example for each document, whose sentences are separated by "\n"."""

    @classmethod
    def expected_files(cls, config):
        return "train.txt, valid.txt (plain or .gz), with blank lines between documents"

    def read(self, paths, whole):
        end = [""] if whole else []  # of a file's last document
        texts = super().read(paths, whole)
        lines = (line for text in texts for line in [*text.split("\n"), *end])
        for is_blank, sentences in itertools.groupby(lines, lambda x: not x.strip()):
            if not is_blank:
                yield "\n".join(sentence.removesuffix("\r") for sentence in sentences)


class ClassicsZh(DocumentText):
    """The four great Chinese novels: a document is a chapter, split by chapter.

    421 chapters for training, 20 for validation and 20 for test, with 2.8 million
    characters of old vernacular.
    """

    HOMEPAGE = "https://github.com/enix223/nlp-course"
    LICENSE = "Public domain (works of the 14th to 18th century)"
    CITATION = (
        "Luo Guanzhong, Romance of the Three Kingdoms; Shi Nai'an, Water Margin; Wu "
        "Cheng'en, Journey to the West; Cao Xueqin, Dream of the Red Chamber"
    )
    SIZES: ClassVar = {"train": 421, "validation": 20, "test": 20}
