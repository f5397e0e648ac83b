"""Classification of the relation between two marked entities of a text.

Batches have the arrays of classification, and "entities" [B, 2]: the positions of the
markers <e1> and <e2>; 0: cut off.
"""

from collections.abc import Iterator
from typing import ClassVar

import jax
import numpy as np

from data.understanding.relations import (
    check_markers,
    cut_marked,
    encode_marked,
    open_relations,
)
from models.heads.relations import RelationClassifier
from tasks.base import ScoredText
from tasks.understanding import classification
from tasks.understanding.base import (
    pad_rows,
    read_chunks,
    refuse_search_options,
    tell_cut,
)
from tasks.understanding.semeval import NEGATIVE, has_directions, score_relations


class Task(classification.Task):
    """Training, evaluation and inference of classifiers of relations.

    Attributes:
      is_directed: whether labels name the direction of a relation, as those of
        SemEval-2010 task 8, so that its official score is computed.
    """

    own_keys = (
        *("data.label_column", "data.unseen_labels"),
        *("head.pooling", "head.dropout", "head.class_weights"),
    )
    head_class = RelationClassifier
    selection_metric = "micro_f1"
    metric_directions: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("official_f1", "accuracy"), "max"),
        **dict.fromkeys(("micro_f1", "micro_precision", "micro_recall"), "max"),
        "loss": "min",
    }

    def __init__(self, cfg, tokenizers):
        super().__init__(cfg, tokenizers)
        self.is_directed = has_directions(self.labels.names)

    def missing_metrics(self):
        return frozenset() if self.is_directed else frozenset({"official_f1"})

    @classmethod
    def open_dataset(cls, cfg, tokenizers=None):
        return open_relations(cfg.data, tokenizers)

    @classmethod
    def example_batch(cls, cfg, length=None):
        batch = super().example_batch(cfg, length)
        return batch | {"entities": jax.ShapeDtypeStruct((2, 2), "int32")}

    def model_inputs(self, batch):
        return *super().model_inputs(batch), batch["entities"]

    def score(self, references, predictions, *, intervals):
        options = {"official": self.is_directed, "intervals": intervals}
        return score_relations(references, predictions, **options)

    def protocol(self, options, references):
        negative = [name for name in NEGATIVE if name in self.labels.names]
        protocol = super().protocol(options, references)
        protocol["micro_f1"] = f"without {', '.join(negative) or 'a negative class'}"
        if self.is_directed:
            protocol["official_f1"] = (
                "SemEval-2010 task 8: (9+1)-way, with directions, macro-averaged"
            )
        return protocol

    def truncated(self, dataset, split, cfg):
        lost = dataset.examples(split).entities_lost
        found = super().truncated(dataset, split, cfg)
        return found | {"entities": lost} if found else {}

    def generate(
        self,
        model,
        variables,
        lines,
        options,
        decoding=None,
        *,
        prefix: bool = False,
        document_order: bool = False,
        chunk_size: int | None = None,
    ) -> Iterator[list[ScoredText]]:
        """Yields the relations of each line with their probabilities, best first.

        Raises UserError for a line without both entities marked.
        """
        refuse_search_options(prefix, document_order)
        forward = jax.jit(
            lambda variables, batch: self.apply(
                model, variables, batch, None, train=False
            )
        )
        for chunk in read_chunks(lines, chunk_size):
            rows = {n: self.encode_marked(n, line) for n, line in chunk if line.strip()}
            logits = []
            if rows:
                size = 1 << (len(rows) - 1).bit_length()
                batch = pad_rows([(ids, len(ids)) for ids, _ in rows.values()], size)
                batch["entities"] = np.zeros((size, 2), np.int32)
                batch["entities"][: len(rows)] = [found for _, found in rows.values()]
                logits = np.asarray(forward(variables, batch))
            outputs = dict(zip(rows, logits, strict=False))
            for number, _ in chunk:
                yield self._ranked(outputs[number]) if number in outputs else []

    def encode_line(self, number: int, line: str) -> tuple[list[int], int]:
        ids, _ = self.encode_marked(number, line)
        return ids, len(ids)

    def encode_marked(self, number: int, line: str) -> tuple[list[int], list[int]]:
        """Returns the tokens of a line of input, and the positions of its entities."""
        check_markers(line, f"line {number + 1} of the input")
        ids, entities = encode_marked(self.tokenizer, line)
        length = len(ids) + 2
        tokens, entities, _ = cut_marked(ids, entities, self.max_length)
        tell_cut(
            number, length, self.max_length, f"; {entities.count(0)} entities lost"
        )
        return tokens, entities
