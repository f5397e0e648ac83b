"""Batches of input lines for inference, sorted by length or in document order.

Lines are read ahead in chunks, so that a file of any length streams through and
interactive input is answered line by line.
"""

import dataclasses
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import PyTree

from utils.errors import UserError

CHUNK_SIZE = 64  # lines
MAX_TOKENS = 64 * 64  # of a batch with its padding


@dataclasses.dataclass(frozen=True)
class Line:
    """A tokenized line of input.

    Attributes:
      index: position in the input, from 0.
      text: source as it was read.
      columns: token ids by name in a batch; the source has an end symbol.
    """

    index: int
    text: str
    columns: dict[str, list[int]]

    @property
    def is_blank(self) -> bool:
        """Whether the source is empty or white space."""
        return not self.text.strip()

    @property
    def length(self) -> int:
        """Number of tokens of the longest column."""
        return max(map(len, self.columns.values()))


def read_lines(
    lines: Iterable[str], source, target, max_length: int, column: str
) -> Iterator[Line]:
    """Tokenizes lines; truncates sources beyond `max_length` with a warning.

    Args:
      source, target: tokenizers.
      max_length: maximum number of tokens of a source, with the end symbol.
      column: "target" or "prefix" where a tab and that text follow the source, or "".

    Raises:
      UserError: a line lacks the tab.
    """
    for index, line in enumerate(lines):
        text, tab, rest = line.partition("\t") if column else (line, "", "")
        if column and not tab and line.strip():
            raise UserError(
                f"line {index + 1} of the input has no tab; expected a source, a tab "
                f"and its {column}"
            )
        ids = source.encode(text)
        if len(ids) >= max_length:
            print(
                f"line {index + 1}: truncated from {len(ids)} to {max_length - 1} "
                f"tokens (decode.max_source_length or data.max_length is {max_length}, "
                "with the end symbol)",
                file=sys.stderr,
            )
        columns = {"source": [*ids[: max_length - 1], source.eos]}
        if column == "prefix":
            columns["prefix"] = target.encode(rest)
        elif column == "target":
            ids = target.encode(rest)
            columns |= {"target_in": [target.bos, *ids], "labels": [*ids, target.eos]}
        yield Line(index, text, columns)


def map_sorted_by_length(
    lines: Iterator[Line],
    function: Callable[[dict, list[str]], list],
    blank: Any,
    chunk_size: int | None,
) -> Iterator:
    """Applies a function to batches of lines of similar lengths.

    Args:
      function: maps a batch and its source texts to one result an example.
      blank: result of a blank line.
      chunk_size: number of lines to read ahead and sort; None: CHUNK_SIZE.
    """
    chunk_size = chunk_size or CHUNK_SIZE
    while chunk := list(itertools.islice(lines, chunk_size)):
        pending = [i for i, line in enumerate(chunk) if not line.is_blank]
        pending.sort(key=lambda i: -chunk[i].length)
        results = [blank] * len(chunk)
        while pending:
            longest = bucket_length(chunk[pending[0]].length)
            batch_size = min(chunk_size, max(1, MAX_TOKENS // longest))
            chosen, pending = pending[:batch_size], pending[batch_size:]
            texts = [chunk[i].text for i in chosen]
            texts += [""] * (batch_size - len(chosen))
            batch = make_batch([chunk[i] for i in chosen], batch_size)
            for i, result in zip(chosen, function(batch, texts), strict=False):
                results[i] = result
        yield from results


def map_in_document_order(
    lines: Iterator[Line],
    function: Callable[[PyTree, dict, list[str]], tuple[list, PyTree]],
    carry: PyTree,
    blank: Any,
) -> Iterator:
    """Applies a function to line after line; a blank line ends a document.

    Args:
      function: maps a carry, a batch and its texts to results and the next carry.
    """
    is_first = True
    for line in lines:
        if line.is_blank:
            is_first = True
            yield blank
            continue
        batch = make_batch([line], 1)
        batch["reset"][:] = is_first
        [result], carry = function(carry, batch, [line.text])
        is_first = False
        yield result


def make_batch(lines: list[Line], batch_size: int) -> dict[str, np.ndarray]:
    """Pads lines to a batch whose examples are independent of one another.

    Returns:
      "reset" (start of a document), "ids" (line indices, -1 for padding) and the
      columns of the lines; "<name>_mask" marks the tokens of each column.
    """
    indices = np.full(batch_size, -1, np.int32)
    indices[: len(lines)] = [line.index for line in lines]
    batch = {"reset": np.ones(batch_size, bool), "ids": indices}
    for name in lines[0].columns:
        length = bucket_length(max(len(line.columns[name]) for line in lines))
        tokens = np.zeros((batch_size, length), np.int32)
        mask = np.zeros((batch_size, length), bool)
        for example, line in enumerate(lines):
            ids = line.columns[name]
            tokens[example, : len(ids)], mask[example, : len(ids)] = ids, True
        batch |= {name: tokens, f"{name}_mask": mask}
    return batch


def bucket_length(length: int) -> int:
    """Rounds a length up to a power of 2, at least 8, to limit compilations."""
    return max(8, 2 ** math.ceil(math.log2(max(length, 1))))
