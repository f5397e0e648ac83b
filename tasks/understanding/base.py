"""Base class of the tasks of encoders: labels, tags and masked tokens."""

import abc
import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import ClassVar

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from data.tokenizers.base import PAD
from models.heads.base import EncoderModel, HeadConfig
from models.registry import get_model_class
from tasks import base
from tasks.base import ScoredText
from utils.errors import UserError
from utils.ranges import check_range

CHUNK_SIZE = 256  # lines of input that are read ahead
FIXED_KEYS = {  # keys of other tasks, with the only value that encoders have
    "z_loss": 0.0,
    "loss_fraction": 1.0,
    "data.reverse": False,
    "data.target_tag": False,
    "data.bpe_dropout": 0.0,
    "data.joint_vocab": True,
    **dict.fromkeys(("data.drop_identical", "data.drop_duplicates"), False),
    "data.max_ratio": 0.0,
    "data.min_length": 1,
    **dict.fromkeys(("data.source_column", "data.target_column"), None),
    "data.reference_columns": (),
}
OWN_KEYS = {  # keys of some tasks of encoders, with the only value that others have
    "data.document_order": False,
    **dict.fromkeys(("data.pair_column", "data.label_column", "data.tag_column"), None),
    "data.unseen_labels": "error",
    "head.pooling": "cls",
    "head.compare_pair": False,
    "head.crf": False,
    "head.class_weights": "none",
    "head.regression": False,
    "head.dropout": None,
    "mlm.whole_word": False,
    "mlm.next_sentence": False,
    "mlm.short_fraction": 0.0,
}


class EncoderTask(base.Task):
    """Contract of the tasks of encoders, with what they have in common.

    Attributes:
      tokenizer: tokenizer of the text.
      required: keys of `cfg.data` that name a column and must be set.
      own_keys: those of `OWN_KEYS` that the task reads.
      head_class: the model of the task.
    """

    model_class = "Encoder"
    output_tokenizer = "tokenizer"
    generates_text = False
    unit = "examples"
    corpus_kind = None
    sides = ("text",)
    required: ClassVar[tuple[str, ...]] = ()
    own_keys: ClassVar[tuple[str, ...]] = ()
    head_class: ClassVar[type[EncoderModel]]

    def __init__(self, cfg: ConfigDict, tokenizers: dict):
        super().__init__(cfg.label_smoothing, z_loss=0.0)
        self.tokenizer = tokenizers["text"]
        self.max_length = cfg.data.max_length
        self.segment_length = cfg.data.segment_length
        head = cfg.head
        self.head_config = HeadConfig(
            head.pooling, head.compare_pair, head.crf, head.dropout
        )

    @classmethod
    def from_config(cls, cfg, tokenizers, languages=()):
        del languages
        return cls(cfg, tokenizers)

    @classmethod
    def check_config(cls, cfg):
        others = {k: v for k, v in OWN_KEYS.items() if k not in cls.own_keys}
        wrong = []
        for key, value in (FIXED_KEYS | others).items():
            section, _, name = key.rpartition(".")
            found = (cfg[section] if section else cfg)[name]
            if found != value:
                wrong.append(f"{key}={found} must be {value}")
        if wrong:
            raise UserError(f"{'; '.join(wrong)} for task={cfg.task!r}")
        for key in cls.required:
            if not cfg.data[key]:
                raise UserError(
                    f"data.{key} is not set: task={cfg.task!r} needs the name of a "
                    "column of the corpus"
                )
        check_range("data.max_length", cfg.data.max_length, 8)
        rows = cfg.model.get("max_positions", 0)
        if is_learned_by_position(cfg.model) and cfg.data.max_length > rows:
            raise UserError(
                f"data.max_length={cfg.data.max_length} is more than "
                f"model.max_positions={rows}: longer texts have no position embeddings"
            )

    def make_model(self, config) -> nn.Module:
        """Creates the encoder of an architecture with the head of the task."""
        return self.head_class(
            config,
            get_model_class(config.name, self.model_class),
            self.tokenizer.vocab_size,
            self.head_config,
            self.segment_length,
            **self.head_options,
        )

    @property
    def head_options(self) -> dict:
        """Further arguments of `head_class`."""
        return {}

    def model_inputs(self, batch: dict) -> tuple:
        return batch["tokens"], batch["segment_ids"], batch["mask"]

    def initial_carry(
        self, model, batch_size: int, *, train: bool, memory_length: int | None = None
    ) -> PyTree:
        """Returns no carry: batches do not continue each other."""
        return ()

    def init(self, model, rng, batch):
        inputs = self.model_inputs(batch)
        carry = model.initial_carry(len(batch["tokens"]), train=True)
        return nn.init(lambda model, *args: model(*args, train=False), model)(
            rng, *inputs, carry
        )

    def apply(self, model, variables: PyTree, batch: dict, rng, *, train: bool):
        """Returns the model's output for texts that are read from their beginning."""
        carry = model.initial_carry(batch["tokens"].shape[0], train=train)
        rngs = {"dropout": rng} if train else {}
        output, _ = model.apply(
            variables, *self.model_inputs(batch), carry, train=train, rngs=rngs
        )
        return output

    @abc.abstractmethod
    def encode_line(self, number: int, line: str) -> tuple[list[int], int]:
        """Returns the tokens of a line of input, and the number of those in segment 0.

        Args:
          number: the line's number from 0, for errors.
        """

    def predict(self, model, variables, lines, options, **keywords) -> Iterator[str]:
        outputs = self.generate(model, variables, lines, options, **keywords)
        return (texts[0][0] if texts else "" for texts in outputs)

    def predict_n_best(
        self, model, variables, lines, options, **keywords
    ) -> Iterator[list[ScoredText]]:
        return self.generate(model, variables, lines, options, **keywords)

    def score_targets(self, model, variables, lines, options, **keywords):
        raise UserError(
            "--score needs a model of texts, which this run is not: --scores writes "
            "probabilities"
        )

    def baselines(self, dataset, split, **inputs):
        return {}

    def truncated(self, dataset, split, cfg):
        count = dataset.examples(split).num_cut
        return {"texts": count, "max_length": cfg.data.max_length} if count else {}


def example_tokens(
    cfg: ConfigDict, length: int | None, *names_and_types: tuple[str, str]
) -> dict:
    """Returns the shapes of a small batch of texts, with further arrays [B].

    Args:
      length: number of tokens of a text; None: few.
      names_and_types: name and type of each further array.
    """
    shape = (2, length or min(cfg.data.max_length, 16))
    arrays = {
        "tokens": jax.ShapeDtypeStruct(shape, "int32"),
        "segment_ids": jax.ShapeDtypeStruct(shape, "int32"),
        "mask": jax.ShapeDtypeStruct(shape, "bool"),
    }
    for name, dtype in names_and_types:
        arrays[name] = jax.ShapeDtypeStruct(shape[:1], dtype)
    return arrays


def is_learned_by_position(model: ConfigDict) -> bool:
    """Whether a model has an embedding of each position of a whole text."""
    schemes = "learned", "learned_per_layer"
    return model.name == "transformer" and model.position_encoding in schemes


def tell_cut(number: int, length: int, max_length: int, lost: str = "") -> None:
    """Tells on standard error if a line of input is longer than `max_length`.

    Args:
      number: number of the line, from 0.
      length: number of its tokens, [CLS] and [SEP] included.
      lost: what is lost, with "; " before it.
    """
    if length > max_length:
        warning = f"line {number + 1} cut to data.max_length={max_length} tokens{lost}"
        print(warning, file=sys.stderr)


def refuse_search_options(prefix: bool, document_order: bool) -> None:
    """Raises UserError for options of predict.py that only translation has."""
    for name, is_set in (("prefix", prefix), ("documents", document_order)):
        if is_set:
            raise UserError(f"--{name} is for translation, and this run is no such")


def read_chunks(
    lines: Iterable[str], chunk_size: int | None
) -> Iterator[list[tuple[int, str]]]:
    """Yields lists of numbered lines, of `chunk_size` lines each."""
    numbered = enumerate(lines)
    while chunk := list(itertools.islice(numbered, chunk_size or CHUNK_SIZE)):
        yield chunk


def pad_rows(rows: list[tuple[list[int], int]], batch_size: int) -> dict:
    """Returns texts as the arrays of a batch, padded to a power of 2.

    Args:
      rows: the tokens of each text and the number of those in segment 0.
      batch_size: number of rows, those of padding included.
    """
    longest = max((len(ids) for ids, _ in rows), default=1)
    shape = (batch_size, max(8, 1 << (longest - 1).bit_length()))
    tokens, segment_ids = np.full(shape, PAD, np.int32), np.zeros(shape, np.int32)
    mask = np.zeros(shape, bool)
    for row, (ids, first) in enumerate(rows):
        tokens[row, : len(ids)], mask[row, : len(ids)] = ids, True
        segment_ids[row, first : len(ids)] = 1
    return {"tokens": tokens, "segment_ids": segment_ids, "mask": mask}
