"""The weights of a Transformer-XL by name, and the sizes that their shapes tell.

Names are those of the authors' PyTorch code (Dai et al. 2019,
github.com/kimiyoung/transformer-xl), which Hugging Face's TransfoXLLMHeadModel
keeps behind the prefix `transformer.`.
"""

import dataclasses
import itertools
import re

import numpy as np

from utils.errors import UserError

BUFFER = "pos_emb.inv_freq"  # no parameter, but stored beside them


class Given:
    """Weights by their names, each taken once it is known what shape it must have."""

    def __init__(self, weights: dict[str, np.ndarray]):
        named = {name.removeprefix("transformer."): x for name, x in weights.items()}
        self.weights = {name: x for name, x in named.items() if name != BUFFER}
        self.taken = set()

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        """Of one that tells sizes. Raises UserError if it is not there or not so."""
        if name not in self.weights:
            few = ", ".join([*itertools.islice(self.weights, 3), "..."])
            raise UserError(
                f"no parameter {name}; of {len(self.weights)} there are {few}"
            )
        shape = self.weights[name].shape
        if len(shape) != axes:
            raise UserError(f"{name} has shape {shape}; expected {axes} axes")
        return shape

    def take(self, name: str, *shape: int) -> np.ndarray:
        """The one of a name. Raises UserError where it is missing or does not fit."""
        found = self.shape(name, len(shape))
        if found != shape:
            raise UserError(f"{name} has shape {found}; expected {shape}")
        self.taken.add(name)
        return self.weights[name]

    def find(self, name: str, instead: np.ndarray) -> np.ndarray:
        """The one of a name that may be left out where it is tied to another."""
        if name not in self.weights:
            return instead
        return self.take(name, *instead.shape)

    def check_all_taken(self) -> None:
        """Raises UserError for names that no part of the model has."""
        if left := sorted(self.weights.keys() - self.taken):
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            raise UserError(f"unknown parameters: {', '.join(left[:5])}{more}")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What shapes tell of a model; names as in configs/base.py.

    Attributes:
      rows: words of each table, of which there is one if div_val is 1.
    """

    layers: int
    width: int
    heads: int
    head_dim: int
    feed_forward: int
    untie_biases: bool
    embedding_width: int
    rows: tuple[int, ...]
    cutoffs: tuple[int, ...]
    div_val: int

    @property
    def has_projections(self) -> bool:
        """See `models.common.adaptive_softmax.ClusteredVocab`."""
        return self.div_val > 1 or self.embedding_width != self.width

    @property
    def table_widths(self) -> tuple[int, ...]:
        """Of word vectors, a table."""
        number = len(self.rows)
        return tuple(self.embedding_width // self.div_val**i for i in range(number))

    def of_config(self) -> dict:
        """Those that are keys of the model's config."""
        values = dataclasses.asdict(self)
        del values["rows"]
        return values


def measure(given: Given, cutoffs: tuple[int, ...]) -> Sizes:
    """The sizes that some of the shapes tell, which all others must fit."""
    numbers = [re.match(r"layers\.(\d+)\.", name) for name in given.weights]
    untied = "r_w_bias" not in given.weights
    content_bias = "layers.0.dec_attn.r_w_bias" if untied else "r_w_bias"
    heads, head_dim = given.shape(content_bias, 2)
    tables = sum(name.startswith("word_emb.emb_layers.") for name in given.weights)
    names = [f"word_emb.emb_layers.{i}.weight" for i in range(max(tables, 1))]
    rows, widths = zip(*(given.shape(name, 2) for name in names), strict=True)
    return Sizes(
        layers=1 + max((int(found[1]) for found in numbers if found), default=0),
        width=given.shape("layers.0.dec_attn.layer_norm.weight", 1)[0],
        heads=heads,
        head_dim=head_dim,
        feed_forward=given.shape("layers.0.pos_ff.CoreNet.0.weight", 2)[0],
        untie_biases=untied,
        embedding_width=widths[0],
        rows=rows,
        cutoffs=find_cutoffs(given, rows, cutoffs),
        div_val=find_div_val(widths),
    )


def find_div_val(widths: tuple[int, ...]) -> int:
    """The number by which each table is narrower than the one before."""
    for div_val in range(min(len(widths), 2), max(widths[0], 1) + 1):
        if all(width == widths[0] // div_val**i for i, width in enumerate(widths)):
            return div_val
    raise UserError(
        f"word_emb.emb_layers.*.weight have widths {widths}; "
        "expected each to be the same part of the one before"
    )


def find_cutoffs(
    given: Given, rows: tuple[int, ...], cutoffs: tuple[int, ...]
) -> tuple[int, ...]:
    """Those that the tables tell, or those told to us where there is one for all."""
    flag = f"--cutoffs={','.join(map(str, cutoffs))}"
    if len(rows) > 1:
        told = tuple(itertools.accumulate(rows[:-1]))
        if cutoffs not in ((), told):
            raise UserError(f"{flag}: the tables end at {told}; leave it out")
        return told
    name = "crit.cluster_weight"
    tails = given.shape(name, 2)[0] if name in given.weights else 0
    if len(cutoffs) != tails:
        raise UserError(
            f"{flag}: the weights have {tails} tail clusters; give their first words"
        )
    bounds = (0, *cutoffs, rows[0])
    if any(left >= right for left, right in itertools.pairwise(bounds)):
        raise UserError(f"{flag}: they must rise from 1 to below {rows[0]}")
    return cutoffs
