"""Vocabulary of an imported model, in the order of our tokenizers.

Our tokenizers begin with <pad>, <eos>, <unk>, <bos>; published vocabularies do not.
`special_first` permutes the words, and with them the rows of the model's tables.
Special words that the vocabulary lacks get probability 0.
"""

from pathlib import Path

import numpy as np

from analysis.imported_run import NEVER
from data.tokenizers.base import EOS, SPECIAL
from utils.errors import UserError
from utils.text_files import read_lines


def read_words(path: Path) -> list[str]:
    """Reads words by id. Raises UserError for text not UTF-8, or a repeated word."""
    words = read_lines("--vocab", path)
    first: dict[str, int] = {}
    for number, word in enumerate(words, start=1):
        before = first.setdefault(word, number)
        if before != number:
            raise UserError(f"--vocab={path}: lines {before} and {number} are {word!r}")
    return words


def special_first(
    model: dict, params: dict, words: list[str], *, end: str, unknown: str
) -> tuple[dict, dict, list[str]]:
    """Reorders config, parameters and words to the order of our tokenizers.

    Raises UserError if the words do not fit the tables, if `end` is missing, or if a
    special word is in a tail cluster, whose vectors may be narrower.
    """
    tables = (x for name, x in params["embedding"].items() if name.startswith("table"))
    rows = sum(map(len, tables))
    if rows != len(words):
        raise UserError(f"--vocab has {len(words)} words; the weights have {rows}")
    shortlist = (*model["cutoffs"], len(words))[0]
    pad, _, _, begin = SPECIAL
    names = (pad, end, unknown, begin)
    special = [words.index(name) if name in words else -1 for name in names]
    if special[EOS] < 0:
        raise UserError(
            f"--end={end} is not in --vocab; give the word that ends a line"
        )
    for name, number in zip(names, special, strict=True):
        if number >= shortlist:
            raise UserError(
                f"{name!r} is word {number} of --vocab; it must be one of the "
                f"{shortlist} of the first cluster"
            )
    rest = [i for i in range(shortlist) if i not in special]
    order = np.array([*special, *rest])
    reordered = {
        part: params[part] | _reorder_rows(params[part], order)
        for part in ("embedding", "head")
    }
    vocabulary = [*SPECIAL, *(words[i] for i in rest), *words[shortlist:]]
    num_added = len(vocabulary) - len(words)
    cutoffs = tuple(cutoff + num_added for cutoff in model["cutoffs"])
    return {**model, "cutoffs": cutoffs}, {**params, **reordered}, vocabulary


def _reorder_rows(params: dict, order: np.ndarray) -> dict:
    """Reorders tables and biases of the first cluster; -1 stands for a new row."""
    new_row = {"table": 0.0, "bias": NEVER}
    changed = {}
    for name, rows in params.items():
        kind = name.removesuffix("_0")
        if kind in new_row:
            is_new = (order < 0).reshape(-1, *(1,) * (rows.ndim - 1))
            changed[name] = np.where(is_new, np.float32(new_row[kind]), rows[order])
    return changed
