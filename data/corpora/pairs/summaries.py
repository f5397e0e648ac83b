"""Published corpora of texts with their summaries."""

from typing import ClassVar

from data.corpora.understanding.named import TEST, TRAIN, VALIDATION, NamedTexts

ANNOTATIONS = ("ann0", "ann1", "ann2")


class Aeslc(NamedTexts):
    """AESLC, English e-mails (`body`) with their `subject` line.

    Validation and test data have three further subject lines, by annotators (`ann0`,
    `ann1`, `ann2`), which are empty in the training data. Published figures of ROUGE
    are those against `subject` alone.
    """

    HOMEPAGE = "https://github.com/ryanzhumich/AESLC"
    LICENSE = "CC BY-NC-SA 4.0"
    CITATION = (
        "Zhang and Tetreault (2019), This Email Could Save Your Life: Introducing the "
        "Task of Email Subject Line Generation, ACL"
    )
    COLUMNS = ("id", "subject", "body", *ANNOTATIONS)
    OPTIONAL = ANNOTATIONS
    SIZES: ClassVar = {TRAIN: 14_436, VALIDATION: 1960, TEST: 1906}
    language = "en"
