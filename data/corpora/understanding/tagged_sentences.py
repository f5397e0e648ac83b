"""Published corpora of tagged sentences."""

from typing import ClassVar

from data.corpora.understanding.named import TEST, TRAIN, VALIDATION, NamedSentences

WITH_VALID = NamedSentences.STEMS | {VALIDATION: ("valid",)}


class Atis(NamedSentences):
    """ATIS, English questions about flights: slots, and an intent for each sentence.

    The column `intent` may name two intents joined by "#". With the config
    "train_and_valid", training data are both (as Liu and Lane 2016 use them), so that
    the validation split is part of the training split.
    """

    HOMEPAGE = "https://github.com/MiuLab/SlotGated-SLU"
    LICENSE = "None stated; ATIS is published by the LDC"
    CITATION = (
        "Hemphill, Godfrey and Doddington (1990), The ATIS Spoken Language Systems "
        "Pilot Corpus; split of Goo et al. (2018), Slot-Gated Modeling for Joint Slot "
        "Filling and Intent Prediction, NAACL"
    )
    STEMS: ClassVar = WITH_VALID
    CONFIGS: ClassVar = {"train_and_valid": {TRAIN: ("train", "valid")}}
    COLUMNS = (*NamedSentences.COLUMNS, "intent")
    SIZES: ClassVar = {TRAIN: 4478, VALIDATION: 500, TEST: 893}


class Conll2003En(NamedSentences):
    """CoNLL-2003, English: persons, locations, organisations and other names.

    `doc` numbers the documents of a split. TFDS has a corpus `conll2003` of its own,
    which is downloaded; this one is read from files.
    """

    HOMEPAGE = "https://www.clips.uantwerpen.be/conll2003/ner"
    LICENSE = "Reuters RCV1, by agreement; not to be redistributed"
    CITATION = (
        "Tjong Kim Sang and De Meulder (2003), Introduction to the CoNLL-2003 Shared "
        "Task: Language-Independent Named Entity Recognition, CoNLL"
    )
    SIZES: ClassVar = {TRAIN: 14_041, VALIDATION: 3250, TEST: 3453}


class ResumeZh(NamedSentences):
    """Chinese resumes, by characters: names, titles, organisations and 5 other types.

    Two entities of the source begin in their middle; they are read as conlleval does.
    """

    HOMEPAGE = "https://github.com/jiesutd/LatticeLSTM"
    LICENSE = "None stated"
    CITATION = "Zhang and Yang (2018), Chinese NER Using Lattice LSTM, ACL"
    AS_CONLLEVAL = True
    SIZES: ClassVar = {TRAIN: 3821, VALIDATION: 463, TEST: 477}


class CaisZh(NamedSentences):
    """CAIS, Chinese commands to a speaker, by characters: slots, and an intent."""

    HOMEPAGE = "https://github.com/Adaxry/CM-Net"
    LICENSE = "None stated"
    CITATION = (
        "Liu et al. (2019), CM-Net: A Novel Collaborative Memory Network for Spoken "
        "Language Understanding, EMNLP"
    )
    STEMS: ClassVar = WITH_VALID
    COLUMNS = (*NamedSentences.COLUMNS, "intent")
    SIZES: ClassVar = {TRAIN: 7995, VALIDATION: 994, TEST: 1012}
