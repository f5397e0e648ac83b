"""IWSLT 2014 (Cettolo et al. 2014): German and English TED talks, 160k pairs."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from data.corpora.builders import PublicPairs, language_configs
from data.corpora.download import RemoteArchive, RemoteFile
from data.corpora.text_files import drop_empty_pairs, pair_lines, read_lines

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
    tst2010, tst2011 and tst2012 concatenated (6,750 pairs). Pairs of more than 175
    tokens, or 1.5 times as many on one side as on the other, are left out.

    Deviations: text stays as it is, neither tokenised nor in lower case, which the
    experiment decides; so tokens are counted as words and punctuation marks, not by
    Moses, and slightly other pairs are left out than in the published 160,239 + 7,283.
    `source_dir` is a folder with de-en.tgz or what is in it; None downloads it.
    """

    HOMEPAGE = "https://wit3.fbk.eu/2014-01"
    LICENSE = "CC BY-NC-ND, as TED's talks"
    RECORD_CHECKSUMS = True
    BUILDER_CONFIGS = language_configs([("de", "en"), ("en", "de")])

    def files(self, store):
        train, *tests = (
            [RemoteFile(ARCHIVE, path.format(language=name)) for name in self.languages]
            for path in (TRAIN, *TESTS)
        )
        return {"train": train, "validation": train, "test": [*chain(*tests)]}

    def read(self, split, paths):
        if split == "test":  # with the apostrophe that fairseq uses
            for first, second in super().read(split, paths):
                yield first.replace("’", "'"), second.replace("’", "'")
        else:
            names = [path.name for path in paths]
            pairs = clean(pair_lines(*map(read_talks, paths), names))
            yield from drop_empty_pairs(choose(pairs, split), split)


def read_talks(path) -> Iterator[str]:
    """Yields the sentences, titles and descriptions of the training talks."""
    for line in read_lines(path):
        if not any(tag in line for tag in ABOUT):
            yield TAGS.sub("", line).strip()


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
