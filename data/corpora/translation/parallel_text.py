"""A translation corpus of a user's own files: line n of one belongs to line n of all.

    DIR/train.en  DIR/train.de  [DIR/train.doc  DIR/train.pos]    each plain or .gz

`data.name=parallel_text/en-de` takes these from `data.source_dir=DIR`, `valid`, `val`,
`validation` or `dev` as the split "validation", and every other pair of files as a
split of its own name. What is prepared is kept apart by content: see `own_files.py`.
"""

import re
from pathlib import Path

from data.corpora.local_files import STEMS, Layout, SplitFiles, group_splits, names, take
from data.corpora.own_files import OwnText
from utils.errors import UserError

# Beside the languages: the document of each line, its place there (a jump tells that
# something was left out), and whether its source is in the training split, too.
EXTRAS = ("doc", "pos", "seen")
ALL = "all"  # what TFDS calls all splits together


class ParallelText(OwnText):
    """Sentences or paragraphs in two languages, in the order of their files."""

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target."""
        return tuple(self.builder_config.name.split("-")[:2])

    @classmethod
    def wanted(cls, config: str) -> str:
        """What a folder has to hold, for messages."""
        stems, languages = ("train", "valid"), config.split("-")
        files = [f"{stem}.{language}" for stem in stems for language in languages]
        return f"{', '.join(files)} (plain or .gz)"

    @classmethod
    def check_name(cls, config: str) -> None:
        """Raises UserError unless `config` is two languages."""
        if not re.fullmatch(r"\w+-\w+", config, re.ASCII):
            raise UserError(
                f"{cls.name}/{config} does not name two languages, such as "
                f"{cls.name}/en-de: letters, digits and _, source first"
            )
        source, target = config.split("-")
        if source == target or {source, target} & {*EXTRAS}:
            raise UserError(
                f"{cls.name}/{config}: languages have to differ from each other and "
                f"from {', '.join(EXTRAS)}, which are files beside them"
            )

    @classmethod
    def layout(cls, config: str, folder: Path) -> Layout:
        """The pairs of `folder`. Raises UserError where a file is missing."""
        languages = config.split("-")
        stems = [
            name.removesuffix(f".{language}")
            for name in names(folder)
            for language in languages
            if name.endswith(f".{language}")
        ]
        found = []
        for stem in sorted(set(stems)):
            if files := pair(folder, stem, languages):
                origin = f"{stem}.{languages[0]}"
                found.append((split_name(stem, folder), origin, files))
        if "train" not in [split for split, *_ in found]:
            raise UserError(f"{folder} lacks training data: {cls.wanted(config)}")
        return group_splits(found, folder)


def split_name(stem: str, folder: Path) -> str:
    """The split that files called `stem` are."""
    if stem == ALL:
        raise UserError(f"{folder}: no split can be called {ALL!r}: rename its files")
    return STEMS.get(stem, re.sub(r"\W", "_", stem, flags=re.ASCII))


def pair(folder: Path, stem: str, languages: list[str]) -> SplitFiles | None:
    """The files of one split, or None where a file beside the corpus is one-sided.

    Raises UserError where training, validation or test data is.
    """
    files = {field: find_file(folder, f"{stem}.{field}") for field in (*languages, *EXTRAS)}
    missing = [language for language in languages if files[language] is None]
    if missing and stem in STEMS:
        there = next(language for language in languages if files[language])
        raise UserError(
            f"{folder} holds {stem}.{there} but no {stem}.{missing[0]} (plain or .gz)"
        )
    if missing:
        return None
    return SplitFiles({field: (path,) for field, path in files.items() if path})
