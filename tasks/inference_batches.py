"""Lines of text as batches for a model: like lengths together, or document by document.

Only so many lines are read ahead as go into a batch, so that a file of any length
streams through, and a person who types is answered line by line.
"""

import dataclasses
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import PyTree

from tasks.translation_inputs import pad_sources
from utils.errors import UserError

CHUNK = 64  # lines that are read at a time
MAX_TOKENS = 64 * 64  # rows times tokens that a model is given at a time


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of input.

    Attributes:
      number: from 0.
      text: the source as it came.
      source: its tokens with their end.
      given: tokens of what stands behind a tab, by its name in a batch; or nothing.
    """

    number: int
    text: str
    source: list[int]
    given: dict[str, list[int]]

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to translate; what comes of it is blank too."""
        return not self.text.strip()

    @property
    def length(self) -> int:
        """Tokens of the longer side."""
        return max(len(self.source), *map(len, self.given.values()), 0)


def read_lines(
    lines: Iterable[str], source, target=None, *, longest: int, column: str = ""
) -> Iterator[Line]:
    """Lines as tokens; what is longer than a model was trained on is cut, and told.

    Args:
      source, target: tokenizers.
      longest: tokens of a source, its end included.
      column: what stands behind a tab: "target", "prefix"; "": lines have no tab.

    Raises UserError for a line without the tab.
    """
    for number, line in enumerate(lines):
        text, tab, behind = line.partition("\t") if column else (line, "", "")
        if column and not tab and line.strip():
            raise UserError(
                f"line {number + 1} of the input has no tab: a line is a source, a "
                f"tab and its {column}"
            )
        ids = source.encode(text)
        if len(ids) >= longest:
            print(
                f"line {number + 1}: cut from {len(ids)} to {longest - 1} tokens "
                f"(data.max_length={longest}, one of them for the end)",
                file=sys.stderr,
            )
        given = {column: target.encode(behind)} if column else {}
        if column == "target":
            given["target"].append(target.eos)
        yield Line(number, text, [*ids[: longest - 1], source.eos], given)


def run_sorted_by_length(
    lines: Iterator[Line],
    work: Callable[[dict, list[str]], list],
    *,
    blank: Any,
    size: int = CHUNK,
) -> Iterator:
    """What `work` makes of each line, in order.

    Args:
      work: from a batch of sources and their texts to something a row.
      blank: what comes of a blank line.
      size: lines that are read ahead.
    """
    while chunk := list(itertools.islice(lines, size)):
        full = [i for i, line in enumerate(chunk) if not line.is_blank]
        full.sort(key=lambda i: -chunk[i].length)
        found = [blank] * len(chunk)
        while full:
            rows = min(size, max(1, MAX_TOKENS // bucket_length(chunk[full[0]].length)))
            some, full = full[:rows], full[rows:]
            texts = [chunk[i].text for i in some] + [""] * (rows - len(some))
            made = work(line_batch([chunk[i] for i in some], rows), texts)
            for i, one in zip(some, made, strict=False):
                found[i] = one
        yield from found


def run_in_document_order(
    lines: Iterator[Line],
    work: Callable[[PyTree, dict, list[str]], tuple[list, PyTree]],
    carry: PyTree,
    *,
    blank: Any,
) -> Iterator:
    """What `work` makes of each line after those before it; a blank one begins anew.

    Args:
      work: from a carry of one row, a batch and its text to something, and the next
        carry.
    """
    begins = True
    for line in lines:
        if line.is_blank:
            begins = True
            yield blank
            continue
        batch = line_batch([line], 1)
        batch["reset"][:] = begins
        [made], carry = work(carry, batch, [line.text])
        begins = False
        yield made


def line_batch(lines: list[Line], rows: int) -> dict[str, np.ndarray]:
    """Lines as a padded batch, each row alone; what is given has a mask of its name."""
    sources = [line.source for line in lines]
    batch = pad_sources(sources, rows, bucket_length(max(map(len, sources))))
    batch["ids"][: len(lines)] = [line.number for line in lines]
    for name in lines[0].given:
        tokens = [line.given[name] for line in lines]
        found = pad_sources(tokens, rows, bucket_length(max(1, *map(len, tokens))))
        batch |= {name: found["source"], f"{name}_mask": found["source_mask"]}
    return batch


def bucket_length(length: int) -> int:
    """The width of a row for so many tokens: few widths are few compilations."""
    return max(8, 2 ** math.ceil(math.log2(length)))
