"""Published corpora of mathematical word problems with their equations."""

from typing import ClassVar

from data.corpora.understanding.named import TEST, TRAIN, VALIDATION, NamedTexts
from utils.errors import UserError

TRAIN_AND_VALID = "train_and_valid"  # ends configs that train on validation data too
EXPRESSIONS = ("question", "equation", "numbers", "answer")


class Expressions(NamedTexts, skip_registration=True):
    """Base of problems whose equation is one arithmetic expression, in prefix notation.

    The words `number0`, `number1`, ... of a question and of its equation stand for the
    values in `numbers`; `answer` is the value of the equation. `seen` is 1 for a test
    question that is in the training data too, and empty outside of test data.
    """

    LICENSE = "MIT"
    COLUMNS = EXPRESSIONS
    OPTIONAL = ("seen",)
    language = "en"

    def select(self, split, rows):
        joins = self.builder_config.options.endswith(TRAIN_AND_VALID)
        return rows if joins and split == TRAIN else super().select(split, rows)


class Svamp(Expressions):
    """SVAMP, English problems, with MAWPS and ASDiv-A as training data.

    No development data are published: the last 300 of the 3,138 training problems, all
    of ASDiv-A, are the validation split. With the config "train_and_valid" they are
    training data too, as for published figures.
    """

    HOMEPAGE = "https://github.com/arkilpatel/SVAMP"
    CITATION = (
        "Patel, Bhattamishra and Goyal (2021), Are NLP Models really able to Solve "
        "Simple Math Word Problems?, NAACL"
    )
    STEMS: ClassVar = NamedTexts.STEMS | {VALIDATION: ("train",)}
    CONFIGS: ClassVar = {TRAIN_AND_VALID: {}}
    HELD_OUT = 300
    SIZES: ClassVar = {TRAIN: 2838, VALIDATION: 300, TEST: 1000}


def fold_stems(number: int) -> dict[str, tuple[str, ...]]:
    """Returns the files of a fold of MAWPS by split."""
    train = (f"fold{number}_train",)
    return {TRAIN: train, VALIDATION: train, TEST: (f"fold{number}_test",)}


class Mawps(Expressions):
    """MAWPS, English problems in five folds, of which the config chooses one.

    The last 150 of the 1,537 training problems of a fold are the validation split. With
    a config such as "fold0_train_and_valid" they are training data too, as for
    published figures.
    """

    HOMEPAGE = "https://github.com/arkilpatel/SVAMP"
    CITATION = (
        "Koncel-Kedziorski et al. (2016), MAWPS: A Math Word Problem Repository, NAACL"
    )
    CONFIGS: ClassVar = {
        f"fold{number}{suffix}": fold_stems(number)
        for suffix in ("", f"_{TRAIN_AND_VALID}")
        for number in range(5)
    }
    HELD_OUT = 150
    SIZES: ClassVar = {TRAIN: 1387, VALIDATION: 150, TEST: 384}

    @classmethod
    def check_name(cls, config):
        if config not in cls.CONFIGS:
            names = ", ".join(f"{cls.name}/{name}" for name in cls.CONFIGS)
            raise UserError(f"{cls.name}/{config} names no fold: choose one of {names}")


class Hmwp(NamedTexts):
    """HMWP, Chinese problems whose equations are in infix notation.

    Questions are segmented into words. A semicolon separates the equations of a system
    with two unknowns, and a space the two numbers of its `answer`, which is empty for
    20 problems. Published figures are means of five folds of all problems.
    """

    HOMEPAGE = "https://github.com/LYH-YF/MWPToolkit"
    LICENSE = "MIT"
    CITATION = (
        "Qin et al. (2020), Semantically-Aligned Universal Tree-Structured Solver for "
        "Math Word Problems, EMNLP"
    )
    COLUMNS = ("id", "question", "equation", "answer")
    SIZES: ClassVar = {TRAIN: 4392, VALIDATION: 549, TEST: 550}
    language = "zh"
