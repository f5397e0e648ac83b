"""A translation corpus of a user's own files: line n of one belongs to line n of all.

    DIR/train.en  DIR/train.de  [DIR/train.doc  DIR/train.pos]    each plain or .gz

`data.name=parallel_text/en-de` reads these from `data.source_dir=DIR`; `valid`, `val`,
`validation` or `dev` is the split "validation", and any other pair of files a split of
its own name. See `local_files.py` for how it is stored.
"""

import re
from pathlib import Path

from data.corpora import local_files
from data.corpora.local_files import SplitFiles, find_file
from utils.errors import UserError

# Optional files besides the languages: the document of each line, its position there (a
# jump where something was left out), and whether its source is in the training split.
EXTRAS = ("doc", "pos", "seen")
ALL = "all"  # TFDS's name of all splits together
PYDOCS = ("en-fr", "fr-en")


class ParallelText(local_files.LocalText):
    """Sentences or paragraphs in two languages, in the order of their files."""

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target language."""
        return tuple(self.builder_config.name.split("-")[:2])

    @classmethod
    def expected_files(cls, config):
        stems, languages = ("train", "valid"), config.split("-")
        files = [f"{stem}.{language}" for stem in stems for language in languages]
        return f"{', '.join(files)} (plain or .gz)"

    @classmethod
    def check_name(cls, config):
        if not re.fullmatch(r"\w+-\w+", config, re.ASCII):
            raise UserError(
                f"{cls.name}/{config} does not name two languages, such as "
                f"{cls.name}/en-de: letters, digits and _, source first"
            )
        source, target = config.split("-")
        if source == target or {source, target} & {*EXTRAS}:
            raise UserError(
                f"{cls.name}/{config}: the two languages must differ from each other "
                f"and from the other files, {', '.join(EXTRAS)}"
            )

    @classmethod
    def find_splits(cls, config, folder):
        languages = config.split("-")
        stems = {
            name.removesuffix(f".{language}")
            for name in local_files.list_names(folder)
            for language in languages
            if name.endswith(f".{language}")
        }
        return [
            (split_name(stem, folder), f"{stem}.{languages[0]}", files)
            for stem in sorted(stems)
            if (files := find_pair(folder, stem, languages))
        ]


class Pydocs(ParallelText):
    """Python's documentation in English and French: paragraphs, documents in order.

    `doc` is a paragraph's document and `pos` its position there; a jump of `pos` is a
    paragraph that is not translated. `seen` is "1" if the English paragraph is in the
    training split too; training has none.
    """

    @classmethod
    def check_name(cls, config):
        if config not in PYDOCS:
            raise UserError(
                f"pydocs has no config {config!r}; it has {', '.join(PYDOCS)}"
            )


def split_name(stem: str, folder: Path) -> str:
    """Returns the split of files with this stem."""
    if stem == ALL:
        raise UserError(f"{folder}: no split can be called {ALL!r}: rename its files")
    return local_files.STEMS.get(stem, re.sub(r"\W", "_", stem, flags=re.ASCII))


def find_pair(folder: Path, stem: str, languages: list[str]) -> SplitFiles | None:
    """Returns the files of one split, or None if one language is missing.

    Raises UserError if a language of training, validation or test data is missing.
    """
    files = {field: find_file(folder, f"{stem}.{field}") for field in languages}
    files |= {field: find_file(folder, f"{stem}.{field}") for field in EXTRAS}
    missing = [language for language in languages if files[language] is None]
    if missing and stem in local_files.STEMS:
        present = next(language for language in languages if files[language])
        raise UserError(
            f"{folder} holds {stem}.{present} but no {stem}.{missing[0]} (plain or .gz)"
        )
    if missing:
        return None
    return SplitFiles({field: (path,) for field, path in files.items() if path})
