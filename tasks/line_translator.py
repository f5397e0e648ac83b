"""From lines of text to translations, or to the scores of given ones."""

import sys
from collections.abc import Callable, Iterable, Iterator

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from tasks.inference_batches import (
    CHUNK,
    read_lines,
    run_in_document_order,
    run_sorted_by_length,
)
from tasks.translation_inference import Scored, Translator


class LineTranslator(Translator):
    """What `predict.py` asks of the task of translation."""

    def predict(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        **how,
    ) -> Iterator[str]:
        """A translation a line, in order; a blank line stays blank.

        Args:
          how: see `_each_line`.
        """
        return self._each_line(
            self.translate, "", model, variables, lines, options, **how
        )

    def predict_n_best(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        **how,
    ) -> Iterator[list[Scored]]:
        """The `decode.n_best` a line, see `translations`; none of a blank line."""
        return self._each_line(
            self.translations, [], model, variables, lines, options, **how
        )

    def score_targets(
        self,
        model,
        variables: PyTree,
        lines: Iterable[str],
        options: ConfigDict,
        **how,
    ) -> Iterator[tuple[float, int] | None]:
        """Log probability in nats, and tokens, of given targets with their ends.

        A line is a source, a tab and its target. None for a blank source.
        """
        return self._each_line(
            self.given, None, model, variables, lines, options, column="target", **how
        )

    def _each_line(
        self,
        work: Callable,
        blank,
        model,
        variables,
        lines,
        options,
        *,
        column: str = "",
        documents: bool = False,
        size: int = CHUNK,
    ) -> Iterator:
        """What `work` makes of each line.

        Args:
          column: what stands behind a tab, see `read_lines`.
          documents: whether what a model remembers goes from line to line, until a
            blank one.
          size: lines that are read ahead.
        """
        longest = options.data.max_length
        read = read_lines(
            lines, self.source, self.target, longest=longest, column=column
        )
        first = self.initial_carry(model, 1, train=False)
        if documents and not jax.tree.leaves(first):
            print(
                "this model remembers no earlier sentence: each is read alone",
                file=sys.stderr,
            )
        elif documents:

            def go_on(carry, batch, texts):
                return work(model, variables, carry, batch, options, texts)

            return run_in_document_order(read, go_on, first, blank=blank)

        def alone(batch, texts):
            carry = self.initial_carry(model, len(texts), train=False)
            return work(model, variables, carry, batch, options, texts)[0]

        return run_sorted_by_length(read, alone, blank=blank, size=size)
