"""IWSLT 2014 (Cettolo et al. 2014): German and English TED talks, 160k pairs."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

import tensorflow_datasets as tfds

from data.corpora.builders import PublicPairs
from data.corpora.download import RemoteArchive, RemoteFile, open_store
from data.corpora.text_files import drop_empty_pairs, pair_lines, read_lines, read_pairs

# No checksum is published. The host has moved its archives to Google Drive since, as
# one file 2014-01.tgz that holds this one.
ARCHIVE = RemoteArchive(
    "https://wit3.fbk.eu/archive/2014-01/texts/de/en/de-en.tgz", None
)
TRAIN = "de-en/train.tags.de-en.{language}"
TESTS = [
    f"de-en/IWSLT14.{talks}.de-en.{{language}}.xml"
    for talks in ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011")
] + ["de-en/IWSLT14.TED.tst2012.de-en.{language}.xml"]

# fairseq's prepare-iwslt14.sh: lines without a sentence, and tags around sentences.
ABOUT = ("<url>", "<talkid>", "<keywords>")
TAGS = re.compile("</?(?:title|description)>")
LONGEST, RATIO = 175, 1.5
TOKEN = re.compile(r"\w+|[^\w\s]")
EVERY = 23  # the line that goes to validation

Pairs = Iterator[tuple[str, str]]


class Iwslt14(PublicPairs):
    """German and English in both directions, by fairseq's prepare-iwslt14.sh.

    Every 23rd pair of the training file is validation; test is dev2010, dev2012,
    tst2010, tst2011 and tst2012 concatenated (6,750 pairs). Pairs of more than
    175 tokens, or 1.5 times as many on one side as on the other, are left out.

    Deviations: text stays as it is, neither tokenised nor in lower case, which
    the experiment decides; so tokens are counted as words and punctuation marks,
    not by Moses, and slightly other pairs are left out than in the published
    160,239 + 7,283.

    Attributes:
      source_dir: folder with de-en.tgz or what is in it; None downloads it.
    """

    HOMEPAGE = "https://wit3.fbk.eu/2014-01"
    LICENSE = "CC BY-NC-ND, as TED's talks"
    RECORD_CHECKSUMS = True
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=name) for name in ("de-en", "en-de")
    ]

    def _split_generators(self, dl_manager):
        names = [self._names(path) for path in (TRAIN, *TESTS)]
        files = {name: RemoteFile(ARCHIVE, name) for both in names for name in both}
        paths = open_store(self, dl_manager).fetch(files)
        train, *tests = ([paths[name] for name in both] for both in names)
        return {
            "train": self._generate_training(train, "train"),
            "validation": self._generate_training(train, "validation"),
            "test": self._generate_examples(read_tests(tests)),
        }

    def _names(self, path):
        return [path.format(language=language) for language in self.languages]

    def _generate_training(self, files, split):
        pairs = choose(clean(read_training(*files)), split)
        yield from self._generate_examples(drop_empty_pairs(pairs, split))


def read_training(first, second) -> Pairs:
    """Yields the sentences, titles and descriptions of the training talks."""
    return pair_lines(read_talks(first), read_talks(second), (first.name, second.name))


def read_talks(path) -> Iterator[str]:
    """Yields one side of `read_training`."""
    for line in read_lines(path):
        if not any(tag in line for tag in ABOUT):
            yield TAGS.sub("", line).strip()


def read_tests(files) -> Pairs:
    """Yields the concatenated test sets, with the apostrophe that fairseq uses."""
    for first, second in chain.from_iterable(read_pairs(*both) for both in files):
        yield first.replace("’", "'"), second.replace("’", "'")


def clean(pairs: Iterable[tuple[str, str]]) -> Pairs:
    """Yields the pairs that pass the tests of Moses's clean-corpus-n.perl."""
    for both in pairs:
        short, long = sorted(len(TOKEN.findall(text)) for text in both)
        if short > 0 and long <= LONGEST and long <= RATIO * short:
            yield both


def choose(pairs: Iterable[tuple[str, str]], split: str) -> Pairs:
    """Yields every 23rd pair for validation, or the others for training."""
    for number, both in enumerate(pairs, 1):
        if (number % EVERY == 0) == (split == "validation"):
            yield both
