"""A vocabulary that was not made here, and the model that knows it.

Our tokenizers begin with <pad>, <eos>, <unk>, <bos>; another's list does not. The
words move, and with them their rows of the model's tables; words that the list
lacks get a probability of 0.
"""

from pathlib import Path

import numpy as np

from data.tokenizers.base import EOS, SPECIAL
from utils.errors import UserError

NEVER = -1e9  # a bias whose softmax is 0 beside any other


def read_words(path: Path) -> list[str]:
    """One a line, in the order of their numbers.

    Raises UserError for a file that is not UTF-8 or has a word twice.
    """
    try:
        words = path.read_text(encoding="utf8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"--vocab={path} is not UTF-8: {error}") from error
    first = {}
    for number, word in enumerate(words, start=1):
        before = first.setdefault(word, number)
        if before != number:
            raise UserError(f"--vocab={path}: lines {before} and {number} are {word!r}")
    return words


def special_first(
    model: dict, params: dict, words: list[str], *, end: str, unknown: str
) -> tuple[dict, dict, list[str]]:
    """Config, parameters and words in the order of our tokenizers.

    Args:
      model: what `transformer_xl_weights.convert` gave, like `params`.
      end: the word after each line, and `unknown`, that for words not known.

    Raises UserError where the words do not fit the tables, or there is no `end`,
    or a special word is rare, so that its vector is narrower than its place needs.
    """
    check_number(params, words)
    shortlist = (*model["cutoffs"], len(words))[0]
    places = special_places(words, end, unknown, shortlist)
    rest = [i for i in range(shortlist) if i not in places]
    order = np.array([*places, *rest])
    symbols = [*SPECIAL, *(words[i] for i in rest), *words[shortlist:]]
    moved = {
        "embedding": reordered(params["embedding"], order),
        "head": reordered(params["head"], order),
    }
    grown = len(symbols) - len(words)
    cutoffs = tuple(cutoff + grown for cutoff in model["cutoffs"])
    return {**model, "cutoffs": cutoffs}, {**params, **moved}, symbols


def check_number(params: dict, words: list[str]) -> None:
    """Raises UserError where there is not a word a row."""
    tables = (x for name, x in params["embedding"].items() if name.startswith("table"))
    rows = sum(map(len, tables))
    if rows != len(words):
        raise UserError(f"--vocab has {len(words)} words; the weights have {rows}")


def special_places(
    words: list[str], end: str, unknown: str, shortlist: int
) -> list[int]:
    """Where each of SPECIAL stands; -1 where it does not."""
    number = {word: i for i, word in enumerate(words)}
    pad, _, _, begin = SPECIAL
    names = (pad, end, unknown, begin)
    places = [number.get(name, -1) for name in names]
    if places[EOS] < 0:
        raise UserError(f"--end={end}: no such word in --vocab; name what ends a line")
    for name, place in zip(names, places, strict=True):
        if place >= shortlist:
            raise UserError(
                f"{name!r} is word {place} of --vocab; it must be one of the "
                f"{shortlist} of the first cluster"
            )
    return places


def reordered(part: dict, order: np.ndarray) -> dict:
    """Tables and biases of all words, or of the first cluster, in another order."""
    empty = {"table": 0.0, "bias": NEVER}
    changed = {}
    for name, rows in part.items():
        kind = name.removesuffix("_0")
        if kind in empty:
            missing = (order < 0).reshape(-1, *(1,) * (rows.ndim - 1))
            changed[name] = np.where(missing, np.float32(empty[kind]), rows[order])
    return {**part, **changed}
