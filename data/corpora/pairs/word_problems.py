"""Published corpora of arithmetic word problems with their equations."""

from typing import ClassVar

from data.corpora.understanding.named import TEST, TRAIN, VALIDATION, NamedTexts

TRAIN_AND_VALID = "train_and_valid"  # the config that trains on validation data too


class Svamp(NamedTexts):
    """SVAMP, English, with MAWPS and ASDiv-A as training data.

    The words `number0`, `number1`, ... of a question and of its equation, in prefix
    notation, stand for the values in `numbers`; `answer` is the value of the equation.
    `seen` is 1 for a test question that is in the training data too.

    No development data are published: the last 300 of the 3,138 training problems, of
    ASDiv-A, are the validation split. With the config "train_and_valid" they are
    training data too, as for published figures.
    """

    HOMEPAGE = "https://github.com/arkilpatel/SVAMP"
    LICENSE = "MIT"
    CITATION = (
        "Patel, Bhattamishra and Goyal (2021), Are NLP Models really able to Solve "
        "Simple Math Word Problems?, NAACL"
    )
    STEMS: ClassVar = NamedTexts.STEMS | {VALIDATION: ("train",)}
    CONFIGS: ClassVar = {TRAIN_AND_VALID: {}}
    COLUMNS = ("question", "equation", "numbers", "answer")
    OPTIONAL = ("seen",)
    HELD_OUT = 300
    SIZES: ClassVar = {TRAIN: 2838, VALIDATION: 300, TEST: 1000}
    language = "en"

    def select(self, split, rows):
        if split == TRAIN and self.builder_config.options == TRAIN_AND_VALID:
            return rows
        return super().select(split, rows)
