"""Published corpora of labelled sentence pairs, columns `text_a` and `text_b`."""

from typing import ClassVar

from data.corpora.understanding.named import TEST, TRAIN, VALIDATION, NamedTexts

PAIR = ("label", "text_a", "text_b")
WITHOUT_TEST = {TRAIN: ("train",), VALIDATION: ("dev",)}


class Sick(NamedTexts):
    """SICK, English: ENTAILMENT, NEUTRAL or CONTRADICTION, and `relatedness` 1 to 5."""

    HOMEPAGE = "https://marcobaroni.org/composes/sick.html"
    LICENSE = "CC BY-NC-SA 3.0"
    CITATION = (
        "Marelli et al. (2014), A SICK Cure for the Evaluation of Compositional "
        "Distributional Semantic Models, LREC"
    )
    COLUMNS = (*PAIR, "relatedness")
    SIZES: ClassVar = {TRAIN: 4500, VALIDATION: 500, TEST: 4927}


class Ocnli(NamedTexts):
    """OCNLI, Chinese: entailment, neutral or contradiction; 10,000 pairs for training.

    Pairs without a majority of annotators are left out. The test data have no labels,
    so there is no test split: published figures that compare are those of the
    development data, here the validation split. The full 50,000 pairs are not used.
    """

    HOMEPAGE = "https://github.com/CLUEbenchmark/OCNLI"
    LICENSE = "CC BY-NC 2.0"
    CITATION = (
        "Hu et al. (2020), OCNLI: Original Chinese Natural Language Inference, "
        "Findings of EMNLP"
    )
    STEMS: ClassVar = WITHOUT_TEST | {TRAIN: ("train_10k",)}
    COLUMNS = (*PAIR, "genre", "level")
    SIZES: ClassVar = {TRAIN: 9985, VALIDATION: 2950}


class Mrpc(NamedTexts):
    """Microsoft Research Paraphrase Corpus, English: 1 if both say the same, else 0.

    The validation split are the last 500 of the 4,076 published training pairs.
    """

    HOMEPAGE = "https://www.microsoft.com/en-us/download/details.aspx?id=52398"
    LICENSE = "Microsoft Shared Source Licence"
    CITATION = (
        "Dolan and Brockett (2005), Automatically Constructing a Corpus of Sentential "
        "Paraphrases, IWP"
    )
    COLUMNS = PAIR
    SIZES: ClassVar = {TRAIN: 3576, VALIDATION: 500, TEST: 1725}


class Rte(NamedTexts):
    """RTE of GLUE, English: entailment or not_entailment.

    The test data have no labels, so there is no test split: published figures that
    compare are those of the development data, here the validation split.
    """

    HOMEPAGE = "https://gluebenchmark.com"
    LICENSE = "None stated"
    CITATION = (
        "Wang et al. (2019), GLUE: A Multi-Task Benchmark and Analysis Platform for "
        "Natural Language Understanding, ICLR; from the challenges RTE-1 to 3 and 5"
    )
    STEMS: ClassVar = WITHOUT_TEST
    COLUMNS = PAIR
    SIZES: ClassVar = {TRAIN: 2490, VALIDATION: 277}


class Afqmc(NamedTexts):
    """AFQMC, Chinese questions to a bank: 1 if both ask the same, else 0.

    The test data have no labels, so there is no test split: published figures that
    compare are those of the development data, here the validation split.
    """

    HOMEPAGE = "https://github.com/CLUEbenchmark/CLUE"
    LICENSE = "None stated"
    CITATION = (
        "Xu et al. (2020), CLUE: A Chinese Language Understanding Evaluation "
        "Benchmark, COLING"
    )
    STEMS: ClassVar = WITHOUT_TEST
    COLUMNS = PAIR
    SIZES: ClassVar = {TRAIN: 34_334, VALIDATION: 4316}
