"""Published corpora of labelled sentences and reviews."""

from typing import ClassVar

from data.corpora.understanding.named import TEST, TRAIN, VALIDATION, NamedTexts


class Sst2(NamedTexts):
    """Stanford Sentiment Treebank with two classes: 0 negative, 1 positive.

    Movie reviews, one sentence each. With the config "phrases", training data are the
    67,349 phrases of GLUE, which are parts of the training sentences, and the sentences
    themselves.
    """

    HOMEPAGE = "https://nlp.stanford.edu/sentiment"
    LICENSE = "None stated"
    CITATION = (
        "Socher et al. (2013), Recursive Deep Models for Semantic Compositionality "
        "Over a Sentiment Treebank, EMNLP"
    )
    CONFIGS: ClassVar = {"phrases": {TRAIN: ("train_phrases",)}}
    COLUMNS = ("label", "text")
    SIZES: ClassVar = {TRAIN: 6920, VALIDATION: 872, TEST: 1821}


class Trec(NamedTexts):
    """TREC questions by the kind of answer: 6 coarse and 50 fine classes.

    The labels are the columns `coarse` and `fine`. No development data are published:
    the last 500 of the 5,452 training questions are the validation split.
    """

    HOMEPAGE = "https://cogcomp.seas.upenn.edu/Data/QA/QC"
    LICENSE = "None stated"
    CITATION = "Li and Roth (2002), Learning Question Classifiers, COLING"
    STEMS: ClassVar = NamedTexts.STEMS | {VALIDATION: ("train",)}
    COLUMNS = ("coarse", "fine", "text")
    HELD_OUT = 500
    SIZES: ClassVar = {TRAIN: 4952, VALIDATION: 500, TEST: 500}


class Chnsenticorp(NamedTexts):
    """ChnSentiCorp, Chinese reviews of hotels, books and computers: 0 or 1, positive.

    `seen` is "1" if a text of validation or test occurs in the training split too,
    which more than a quarter do; training has none.
    """

    HOMEPAGE = "https://github.com/ymcui/Chinese-BERT-wwm"
    LICENSE = "None stated"
    CITATION = (
        "Tan and Zhang (2008), An Empirical Study of Sentiment Analysis for Chinese "
        "Documents, Expert Systems with Applications 34(4)"
    )
    COLUMNS = ("label", "text")
    OPTIONAL = ("seen",)
    SIZES: ClassVar = {TRAIN: 9600, VALIDATION: 1200, TEST: 1200}


class Cola(NamedTexts):
    """CoLA, English sentences of linguistics papers: 1 acceptable, 0 not.

    The test data have no labels, so there is no test split: published figures that
    compare are those of the development data, here the validation split.
    """

    HOMEPAGE = "https://nyu-mll.github.io/CoLA"
    LICENSE = "None stated"
    CITATION = (
        "Warstadt, Singh and Bowman (2019), Neural Network Acceptability Judgments, "
        "TACL 7"
    )
    STEMS: ClassVar = {TRAIN: ("train",), VALIDATION: ("dev",)}
    COLUMNS = ("label", "text")
    SIZES: ClassVar = {TRAIN: 8551, VALIDATION: 1043}
