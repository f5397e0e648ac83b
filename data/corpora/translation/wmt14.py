"""WMT14 (Bojar et al. 2014): English with German, 4.5M pairs, or French, 41M."""

import itertools

from data.corpora.builders import PublicPairs, language_configs
from data.corpora.download import RemoteArchive, RemoteFile
from data.corpora.text_files import drop_empty_pairs

# Addresses and SHA-256 are those of TFDS's wmt14_translate. `{pair}` is "de-en" or
# "fr-en", `{language}` one of the two, `{other}` the one that is not English.
TRAIN = {
    "europarl-v7": (
        RemoteArchive(
            "http://www.statmt.org/wmt13/training-parallel-europarl-v7.tgz",
            "0224c7c710c8a063dfd893b0cc0830202d61f4c75c17eb8e31836103d27d96e7",
        ),
        "training/europarl-v7.{pair}.{language}",
    ),
    "commoncrawl": (
        RemoteArchive(
            "http://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz",
            "c7a74e2ea01ac6c920123108627e35278d4ccb5701e15428ffa34de86fa3a9e5",
        ),
        "commoncrawl.{pair}.{language}",
    ),
    "un": (
        RemoteArchive(
            "http://www.statmt.org/wmt13/training-parallel-un.tgz",
            "29141b5c1eba149a94f7a59d3b1a834b2e47fe0f8758d68dcd77a3d3f497ee47",
        ),
        "un/undoc.2000.{pair}.{language}",
    ),
    "news-commentary-v9": (
        RemoteArchive(
            "http://www.statmt.org/wmt14/training-parallel-nc-v9.tgz",
            "cb8953f292298e6877ae433c98912b927cb0766b303f4540512ddd286c748485",
        ),
        "training/news-commentary-v9.{pair}.{language}",
    ),
    "giga-fren": (
        RemoteArchive(
            "http://www.statmt.org/wmt10/training-giga-fren.tar",
            "3ff8319f6919393520559bfbc7ad6a747ec81b3abc7be9993b338d4b017b4d9a",
        ),
        "giga-fren.release2.fixed.{language}.gz",
    ),
}
ONLY_FRENCH = ("un", "giga-fren")

# One archive has the test sets of all years.
NEWS = RemoteArchive(
    "http://data.statmt.org/wmt19/translation-task/dev.tgz",
    "7a7deccf82ebb05ba508dba5eb21356492224e8f630ec4f992132b029b4b25e7",
)
NEWSTESTS = {
    "validation": "dev/newstest2013.{language}",
    "test": "dev/newstest2014-{other}en-{role}.{language}.sgm",
    "newstest2010": "dev/newstest2010.{language}",
    "newstest2011": "dev/newstest2011.{language}",
    "newstest2012": "dev/newstest2012.{language}",
}


class Wmt14(PublicPairs):
    """The training data of WMT14 and the newstests of 2010 to 2014.

    All parallel text that the task allows, in this order: Europarl v7, Common Crawl,
    for French the UN corpus, News Commentary v9, for French the 10^9 corpus (Giga).
    Pairs with an empty side are left out, as TFDS does: 4,508,785 pairs remain for
    German and 40,836,715 for French. Bahdanau et al. (2015) trained on a selection of
    348M of these French words that was not published in this form.

    Validation is newstest2013 (3,000 pairs), test the full newstest2014 (3,003), whose
    mark-up is taken off. Text is not tokenised. `source_dir` is a folder with the
    published archives, or what is in them; None downloads them (1.7 GB for German, 6.7
    GB for French).
    """

    HOMEPAGE = "https://www.statmt.org/wmt14/translation-task.html"
    LICENSE = "Research; terms differ between the parts"
    RECORD_CHECKSUMS = True
    BUILDER_CONFIGS = language_configs(
        pair for other in ("de", "fr") for pair in itertools.permutations(("en", other))
    )

    def files(self, store):
        parts = [
            self._pair(archive, path)
            for part, (archive, path) in TRAIN.items()
            if "fr" in self.languages or part not in ONLY_FRENCH
        ]
        tests = {split: self._pair(NEWS, path) for split, path in NEWSTESTS.items()}
        return {"train": [*itertools.chain.from_iterable(parts)], **tests}

    def read(self, split, paths):
        pairs = super().read(split, paths)
        return drop_empty_pairs(pairs, split) if split == "train" else pairs

    def _pair(self, archive, path):
        """Returns the files of both sides, source first."""
        other = next(name for name in self.languages if name != "en")
        values = {"pair": f"{other}-en", "other": other}
        roles = {other: "src", "en": "ref"}
        return [
            RemoteFile(archive, path.format(language=name, role=roles[name], **values))
            for name in self.languages
        ]
