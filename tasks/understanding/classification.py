"""Classification of texts and of pairs of texts, or their grades."""

import functools
from collections.abc import Iterator
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from data.storage import short_hash
from data.tokenizers.base import BOS, EOS
from data.understanding.batches import cut_pair
from data.understanding.dataset import open_labeled
from models.heads.classifier import Classifier
from tasks.base import ScoredText
from tasks.bootstrap import BootstrapBlocks
from tasks.understanding.base import (
    EncoderTask,
    example_tokens,
    pad_rows,
    read_chunks,
    refuse_search_options,
    tell_cut,
)
from tasks.understanding.label_metrics import (
    class_table,
    confusion_matrix,
    score_grades,
    score_labels,
)
from tasks.understanding.losses import cross_entropy
from tasks.understanding.naive_bayes import majority_label, naive_bayes_labels
from utils.errors import UserError
from utils.memory import bounded_jit

MAX_TRAINING_TEXTS = 100_000  # of naive Bayes
MAX_CONFUSION = 100  # classes of a confusion matrix in a score card
GRADED = ("pearson", "spearman", "mean_squared_error")


class Task(EncoderTask):
    """Training, evaluation and inference of classifiers.

    Attributes:
      labels: the classes.
      regression: whether labels are grades, predicted by least squares.
    """

    required = ("text_column", "label_column")
    own_keys = (
        *("data.label_column", "data.pair_column", "data.unseen_labels"),
        *("head.pooling", "head.compare_pair", "head.dropout"),
        *("head.class_weights", "head.regression"),
    )
    head_class = Classifier
    selection_metric = "accuracy"
    metric_directions: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("accuracy", "macro_f1", "matthews"), "max"),
        **dict.fromkeys(("pearson", "spearman"), "max"),
        **dict.fromkeys(("mean_squared_error", "loss"), "min"),
    }

    def __init__(self, cfg: ConfigDict, tokenizers: dict):
        super().__init__(cfg, tokenizers)
        self.labels, self.regression = tokenizers["label"], cfg.head.regression
        self.has_pairs = bool(cfg.data.pair_column)
        self.class_weights = np.ones(max(self.labels.vocab_size, 1), np.float32)
        if cfg.head.class_weights == "balanced":
            self.class_weights = self.labels.balanced_weights()

    @classmethod
    def default_metric(cls, cfg):
        return "pearson" if cfg["head"]["regression"] else cls.selection_metric

    @classmethod
    def check_config(cls, cfg):
        super().check_config(cfg)
        if cfg.head.regression and cfg.head.class_weights != "none":
            raise UserError(
                f"head.class_weights={cfg.head.class_weights!r} needs classes, and "
                "head.regression=True has grades"
            )
        if cfg.head.compare_pair and not cfg.data.pair_column:
            raise UserError(
                "head.compare_pair=True needs pairs of texts: set data.pair_column"
            )
        if cfg.head.compare_pair and cfg.head.pooling == "cls":
            raise UserError(
                "head.compare_pair=True needs a vector of each text: set head.pooling "
                "to 'mean', 'max' or 'attention'; 'cls' reads the first token alone"
            )
        metric = cfg.keep.metric
        if metric and metric != "loss" and (metric in GRADED) != cfg.head.regression:
            kind = "grades" if cfg.head.regression else "classes"
            raise UserError(f"keep.metric={metric!r} is no score of {kind}")

    @classmethod
    def open_dataset(cls, cfg, tokenizers=None):
        regression = cfg.head.regression
        return open_labeled(cfg.data, tokenizers, regression=regression)

    @classmethod
    def example_batch(cls, cfg, length=None):
        dtype = "float32" if cfg.head.regression else "int32"
        kinds = ("labels", dtype), ("weights", "float32")
        return example_tokens(cfg, length, *kinds)

    @property
    def head_options(self) -> dict:
        return {"num_outputs": 1 if self.regression else self.labels.vocab_size}

    # --- Loss ---

    def loss(self, model, variables, carry, batch, rng, train):
        """Returns the mean cross entropy in nats, or squared error, and the carry.

        With class weights w both the sum and the weight of the mean are weighted.
        """
        logits = self.apply(model, variables, batch, rng, train=train)
        smoothing = self.label_smoothing if train else 0.0
        losses, weights = self._losses(logits, batch, smoothing), batch["weights"]
        if train and not self.regression:
            weights = weights * jnp.asarray(self.class_weights)[batch["labels"]]
        return {"loss": ((losses * weights).sum(), weights.sum())}, carry

    def _losses(
        self, logits: Float[Array, "B C"], batch: dict, smoothing: float = 0.0
    ) -> Float[Array, "B"]:
        """Returns the loss of each example."""
        if self.regression:
            return jnp.square(logits[:, 0] - batch["labels"])
        return cross_entropy(logits, batch["labels"], smoothing)

    # --- Evaluation ---

    def evaluation_inputs(self, experiment, dataset, split):
        batch_size = experiment.cfg.eval.batch_size
        batches = dataset.evaluation_batches(split, batch_size=batch_size)
        inputs = {"texts": dataset.texts(split)}
        return batches, inputs | {"references": dataset.label_names(split)}

    @functools.partial(bounded_jit, static_argnums=(0, 1))
    def _forward(self, model, variables: PyTree, batch: dict):
        """Returns logits and losses of a batch."""
        logits = self.apply(model, variables, batch, None, train=False)
        return logits, self._losses(logits, batch)

    def evaluate(
        self,
        model,
        variables: PyTree,
        batches,
        options: ConfigDict,
        *,
        texts: list[tuple[str, ...]],
        references: list[str],
        intervals: bool = False,
    ) -> dict:
        """Returns the score card of a split; see tasks/base.py.

        Args:
          texts: the texts of all examples.
          references: their labels.
        """
        logits, blocks = self._evaluate_batches(model, variables, batches, len(texts))
        predictions = [self.output(row) for row in logits]
        scores = self.score(references, predictions, intervals=intervals)
        scores["loss"] = {"value": blocks.mean}
        if intervals:
            scores["loss"] |= zip(("low", "high"), blocks.interval(), strict=True)
        return {
            "scores": scores,
            "protocol": self.protocol(options, references),
            **self.tables(references, predictions),
            "samples": [
                {"source": "\t".join(text), "reference": reference, "hypothesis": found}
                for text, reference, found in zip(
                    texts, references, predictions, strict=True
                )
            ],
            "references": references,
            "blocks": blocks,
        }

    def _evaluate_batches(self, model, variables, batches, count: int):
        """Returns the logits [N, C] of all examples, and their losses."""
        rows = np.zeros((count, self.head_options["num_outputs"]), np.float32)
        blocks = BootstrapBlocks.zeros(count)
        for k in range(len(batches)):
            batch = batches[k]
            inputs = {key: batch[key] for key in batch if key not in ("ids", "reset")}
            logits, losses = self._forward(model, variables, inputs)
            is_valid = batch["ids"] >= 0
            rows[batch["ids"][is_valid]] = np.asarray(logits)[is_valid]
            blocks.add(
                np.maximum(batch["ids"], 0), np.asarray(losses), batch["weights"]
            )
        return rows, blocks

    def output(self, logits: np.ndarray) -> str:
        """Returns the label or the grade that logits predict."""
        if self.regression:
            return f"{logits[0]:.7g}"
        return self.labels.names[int(logits.argmax())]

    def score(
        self, references: list[str], predictions: list[str], *, intervals
    ) -> dict:
        """Returns the scores of predictions; with `intervals` their ends."""
        if self.regression:
            pairs = (list(map(float, side)) for side in (references, predictions))
            return score_grades(*pairs, intervals=intervals)
        return score_labels(references, predictions, intervals=intervals)

    def protocol(self, options: ConfigDict, references: list[str]) -> dict:
        """Returns the settings that scores depend on."""
        unseen = sum(name not in self.labels.ids for name in references)
        return {
            "examples": len(references),
            "tokenizer": self.tokenizer.kind,
            "lowercase": self.tokenizer.normalizer.lowercase,
            "max_length": self.max_length,
            "pooling": self.head_config.pooling,
            **({"compare_pair": True} if self.head_config.compare_pair else {}),
            **({} if self.regression else {"classes": self.labels.vocab_size}),
            **({"unseen_labels": unseen} if unseen and not self.regression else {}),
        }

    def tables(self, references: list[str], predictions: list[str]) -> dict:
        """Returns scores by class, and the confusion matrix unless it is large."""
        if self.regression:
            return {}
        names = self.labels.names
        table = class_table(references, predictions, names)
        found = {"classes": table}
        if len(table) <= MAX_CONFUSION:
            names, counts = confusion_matrix(references, predictions, names)
            found["confusion"] = {"names": names, "counts": counts.tolist()}
        return found

    def hashes(self, dataset, split):
        pairs = dataset.texts(split), dataset.label_names(split)
        return {**dataset.hashes, "labeled_texts": short_hash(*pairs)}

    def baselines(self, dataset, split, *, texts, references):
        """Returns the scores of the most frequent class and of naive Bayes."""
        known = dataset.label_names("train")
        if self.regression:
            mean = f"{np.mean([float(grade) for grade in known])}"
            return {"mean": self._values(references, [mean] * len(references))}
        outputs = {"majority": [majority_label(known)] * len(references)}
        if len(known) <= MAX_TRAINING_TEXTS:
            train = dataset.texts("train")
            outputs["naive_bayes"] = naive_bayes_labels(train, known, texts)
        return {name: self._values(references, out) for name, out in outputs.items()}

    def _values(self, references, predictions) -> dict[str, float]:
        scores = self.score(references, predictions, intervals=False)
        return {name: score["value"] for name, score in scores.items()}

    # --- Inference ---

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text without [CLS] and [SEP]."""
        return self.tokenizer.encode(text)

    def encode_line(self, number: int, line: str) -> tuple[list[int], int]:
        """Returns the tokens of a line of input, and the number of those in segment 0.

        Raises UserError where a pair has no tab between its texts.
        """
        text, tab, pair = line.partition("\t")
        if not self.has_pairs:
            ids = self.encode(line)
            tell_cut(number, len(ids) + 2, self.max_length)
            ids = ids[: self.max_length - 2]
            return [BOS, *ids, EOS], len(ids) + 2
        if not tab:
            raise UserError(
                f"line {number + 1} of the input has no tab; expected two texts with a "
                "tab between them"
            )
        first, second = self.encode(text), self.encode(pair)
        tell_cut(number, len(first) + len(second) + 3, self.max_length)
        kept = cut_pair(len(first), len(second), self.max_length - 3)
        first, second = first[: kept[0]], second[: kept[1]]
        return [BOS, *first, EOS, *second, EOS], len(first) + 2

    def generate(
        self,
        model,
        variables: PyTree,
        lines,
        options: ConfigDict,
        decoding=None,
        *,
        prefix: bool = False,
        document_order: bool = False,
        chunk_size: int | None = None,
    ) -> Iterator[list[ScoredText]]:
        """Yields the labels of each line with their probabilities, best first.

        A graded label has the score 1.
        """
        refuse_search_options(prefix, document_order)
        forward = jax.jit(
            lambda variables, batch: self.apply(
                model, variables, batch, None, train=False
            )
        )
        for chunk in read_chunks(lines, chunk_size):
            texts = [(number, line) for number, line in chunk if line.strip()]
            rows = [self.encode_line(number, line) for number, line in texts]
            batch = pad_rows(rows, 1 << (max(len(rows), 1) - 1).bit_length())
            logits = np.asarray(forward(variables, batch)) if rows else []
            outputs = dict(zip([number for number, _ in texts], logits, strict=False))
            for number, _ in chunk:
                yield self._ranked(outputs[number]) if number in outputs else []

    def _ranked(self, logits: np.ndarray) -> list[ScoredText]:
        if self.regression:
            return [(self.output(logits), 1.0)]
        probabilities = np.asarray(jax.nn.softmax(logits))
        order = np.argsort(-probabilities, kind="stable").tolist()
        return [(self.labels.names[i], float(probabilities[i])) for i in order]
