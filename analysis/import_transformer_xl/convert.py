"""Conversion of published Transformer-XL weights to parameters of our model.

The authors' linear maps are [outputs, inputs] with all heads side by side, their
projections [D, E_i]; the first third of `qkv_net` are queries, then keys, values.

Shapes do not tell which column of the head's softmax belongs to which tail cluster.
The authors' PyTorch criterion has tail 1 in the last column; their TensorFlow code,
Hugging Face's `forward` and our model have it in the first.
"""

import dataclasses
import itertools
import re

import numpy as np

from analysis.import_transformer_xl.weights import StrictWeights
from utils.errors import UserError


def convert(
    weights: dict[str, np.ndarray],
    *,
    norm: str = "post",
    tail_columns: str = "tensorflow",
    cutoffs: tuple[int, ...] = (),
    **options,
) -> tuple[dict, dict]:
    """Returns values of the model's config, and the parameters.

    Args:
      tail_columns: "tensorflow" or "pytorch", the criterion that trained the weights.
      cutoffs: cutoffs of weights with div_val 1, whose shapes do not tell them.
      options: further values of the config.

    Raises UserError for names or shapes that no Transformer-XL has.
    """
    weights = StrictWeights(weights)
    config = infer_config(weights, cutoffs)
    stack = {
        f"layers_{i}": convert_layer(weights, i, config) for i in range(config.layers)
    }
    if not config.untie_biases:
        stack |= shared_biases(weights, config)
    embedding, head, ties = embedding_and_head(weights, config, tail_columns)
    weights.check_all_used()
    # The original has no normalisation after the last layer, with either norm.
    model = {**config.model_keys(), **ties, "norm": norm, "final_norm": False}
    return {**model, **options}, {"embedding": embedding, "stack": stack, "head": head}


@dataclasses.dataclass(frozen=True)
class InferredConfig:
    """Config keys that the shapes tell; names as in configs/base.py.

    Attributes:
      table_rows: rows of each embedding table; there is one table if div_val is 1.
    """

    layers: int
    width: int
    heads: int
    head_dim: int
    feed_forward: int
    untie_biases: bool
    embedding_width: int
    table_rows: tuple[int, ...]
    cutoffs: tuple[int, ...]
    div_val: int

    @property
    def has_projections(self) -> bool:
        """Whether tables are projected to the model's width."""
        return self.div_val > 1 or self.embedding_width != self.width

    @property
    def table_widths(self) -> tuple[int, ...]:
        """Width of each embedding table."""
        count = len(self.table_rows)
        return tuple(self.embedding_width // self.div_val**i for i in range(count))

    def model_keys(self) -> dict:
        """Returns the fields that are keys of `cfg.model`."""
        values = dataclasses.asdict(self)
        del values["table_rows"]
        return values


def infer_config(weights: StrictWeights, cutoffs: tuple[int, ...]) -> InferredConfig:
    """Infers the config from some of the shapes; the others are checked against it."""
    layers = [re.match(r"layers\.(\d+)\.", name) for name in weights.arrays]
    untied = "r_w_bias" not in weights
    content_bias = "layers.0.dec_attn.r_w_bias" if untied else "r_w_bias"
    heads, head_dim = weights.shape(content_bias, 2)
    tables = sum(name.startswith("word_emb.emb_layers.") for name in weights.arrays)
    names = [f"word_emb.emb_layers.{i}.weight" for i in range(max(tables, 1))]
    rows, widths = zip(*(weights.shape(name, 2) for name in names), strict=True)
    return InferredConfig(
        layers=1 + max((int(match[1]) for match in layers if match), default=0),
        width=weights.shape("layers.0.dec_attn.layer_norm.weight", 1)[0],
        heads=heads,
        head_dim=head_dim,
        feed_forward=weights.shape("layers.0.pos_ff.CoreNet.0.weight", 2)[0],
        untie_biases=untied,
        embedding_width=widths[0],
        table_rows=rows,
        cutoffs=infer_cutoffs(weights, rows, cutoffs),
        div_val=infer_div_val(widths),
    )


def infer_div_val(widths: tuple[int, ...]) -> int:
    """Returns the factor by which each table is narrower than the one before."""
    for div_val in range(min(len(widths), 2), max(widths[0], 1) + 1):
        if all(width == widths[0] // div_val**i for i, width in enumerate(widths)):
            return div_val
    raise UserError(
        f"word_emb.emb_layers.*.weight have widths {widths}; "
        "expected each to be the same fraction of the one before"
    )


def infer_cutoffs(
    weights: StrictWeights, rows: tuple[int, ...], cutoffs: tuple[int, ...]
) -> tuple[int, ...]:
    """Returns the cutoffs of the tables or, for a single table, the given ones."""
    flag = f"--cutoffs={','.join(map(str, cutoffs))}"
    if len(rows) > 1:
        inferred = tuple(itertools.accumulate(rows[:-1]))
        if cutoffs not in ((), inferred):
            raise UserError(f"{flag}: the tables end at {inferred}; leave it out")
        return inferred
    name = "crit.cluster_weight"
    tails = weights.shape(name, 2)[0] if name in weights else 0
    if len(cutoffs) != tails:
        raise UserError(
            f"{flag}: the weights have {tails} tail clusters; give their first words"
        )
    bounds = (0, *cutoffs, rows[0])
    if any(left >= right for left, right in itertools.pairwise(bounds)):
        raise UserError(f"{flag} must increase from 1 to below {rows[0]}")
    return cutoffs


# --- Layers --------------------------------------------------------------------------


def convert_layer(weights: StrictWeights, number: int, config: InferredConfig) -> dict:
    """Returns the parameters of one layer."""
    width, inner = config.width, config.feed_forward
    attention, feed_forward = f"layers.{number}.dec_attn", f"layers.{number}.pos_ff"
    return {
        "self_attention": self_attention(weights, attention, config),
        "self_attention_residual": layer_norm(weights, attention, width),
        "feed_forward": {
            "up": dense(weights, f"{feed_forward}.CoreNet.0", width, inner),
            "down": dense(weights, f"{feed_forward}.CoreNet.3", inner, width),
        },
        "feed_forward_residual": layer_norm(weights, feed_forward, width),
    }


def self_attention(weights: StrictWeights, name: str, config: InferredConfig) -> dict:
    """Returns kernels [D, H, K], and [H, K, D] of the output projection."""
    heads, head_dim, width = config.heads, config.head_dim, config.width
    inner = heads * head_dim
    qkv = weights.take(f"{name}.qkv_net.weight", 3 * inner, width)
    position_key = weights.take(f"{name}.r_net.weight", inner, width)
    kernels = {
        part: {"kernel": kernel.T.reshape(width, heads, head_dim)}
        for part, kernel in zip(
            ("query", "key", "value", "position_key"),
            (*np.split(qkv, 3), position_key),
            strict=True,
        )
    }
    output = weights.take(f"{name}.o_net.weight", width, inner)
    kernels["output"] = {"kernel": output.T.reshape(heads, head_dim, width)}
    if config.untie_biases:
        kernels |= relative_biases(weights, f"{name}.", config)
    return kernels


def relative_biases(
    weights: StrictWeights, prefix: str, config: InferredConfig
) -> dict:
    """Returns u and v (Dai et al. 2019, section 3.3)."""
    shape = (config.heads, config.head_dim)
    return {
        "content_bias": weights.take(f"{prefix}r_w_bias", *shape),
        "position_bias": weights.take(f"{prefix}r_r_bias", *shape),
    }


def shared_biases(weights: StrictWeights, config: InferredConfig) -> dict:
    """Returns u and v of all layers, which Hugging Face stores again in each."""
    shared = relative_biases(weights, "", config)
    names = itertools.product(range(config.layers), ("r_w_bias", "r_r_bias"))
    for number, key in names:
        name = f"layers.{number}.dec_attn.{key}"
        if not np.array_equal(
            weights.take_or(name, weights.arrays[key]), weights.arrays[key]
        ):
            raise UserError(f"{name} differs from the shared {key}")
    return shared


def layer_norm(weights: StrictWeights, name: str, width: int) -> dict:
    """Returns the layer normalisation around a sublayer."""
    scale = weights.take(f"{name}.layer_norm.weight", width)
    bias = weights.take(f"{name}.layer_norm.bias", width)
    return {"layer_norm": {"norm": {"scale": scale, "bias": bias}}}


def dense(weights: StrictWeights, name: str, inputs: int, outputs: int) -> dict:
    """Returns a linear map with a bias."""
    kernel = weights.take(f"{name}.weight", outputs, inputs).T
    return {"kernel": kernel, "bias": weights.take(f"{name}.bias", outputs)}


# --- Embedding and output head -------------------------------------------------------


def embedding_and_head(
    weights: StrictWeights, config: InferredConfig, tail_columns: str
) -> tuple[dict, dict, dict]:
    """Returns parameters of embedding and head, and the config keys that tie them."""
    tables, head_tables, bias = tables_and_biases(weights, config)
    inputs, outputs = projections(weights, config)
    tied = all(map(np.array_equal, tables, head_tables))
    tied_projections = tied and all(map(np.array_equal, inputs[1:], outputs[1:]))
    head = {
        **({} if tied else numbered("table", head_tables)),
        **numbered("bias", bias),
        **numbered("projection", outputs[:1] if tied_projections else outputs),
        **cluster_columns(weights, config, tail_columns),
    }
    # Clusters of a single table share one projection.
    inputs = inputs[: len(config.table_rows)]
    embedding = numbered("table", tables) | numbered("projection", inputs)
    if len(tables) == 1 and not config.has_projections:
        embedding, head = unnumbered(embedding), unnumbered(head)
    ties = {"tie_embeddings": tied, "tie_projections": tied_projections}
    return embedding, head, ties


def tables_and_biases(
    weights: StrictWeights, config: InferredConfig
) -> list[list[np.ndarray]]:
    """Returns embedding tables, head tables and head biases, one per cluster each."""
    parts = []
    shapes = zip(config.table_rows, config.table_widths, strict=True)
    for i, shape in enumerate(shapes):
        table = weights.take(f"word_emb.emb_layers.{i}.weight", *shape)
        head = weights.take_or(f"crit.out_layers.{i}.weight", table)
        parts.append((table, head, weights.take(f"crit.out_layers.{i}.bias", shape[0])))
    if len(parts) == 1:
        return [np.split(part, config.cutoffs) for part in parts[0]]
    return list(map(list, zip(*parts, strict=True)))


def projections(
    weights: StrictWeights, config: InferredConfig
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns [E_i, D] of each cluster's embedding and of its softmax."""
    if not config.has_projections:
        return [], []
    inputs = [
        weights.take(f"word_emb.emb_projs.{i}", config.width, width).T
        for i, width in enumerate(config.table_widths)
    ]
    inputs *= (len(config.cutoffs) + 1) // len(inputs)
    outputs = [
        weights.take_or(f"crit.out_projs.{i}", projection.T).T
        for i, projection in enumerate(inputs)
    ]
    return inputs, outputs


def cluster_columns(
    weights: StrictWeights, config: InferredConfig, tail_columns: str
) -> dict:
    """Returns the rows of the head's softmax that stand for tail clusters 1, 2, ..."""
    tails = len(config.cutoffs)
    if not tails:
        return {}
    table = weights.take("crit.cluster_weight", tails, config.embedding_width)
    bias = weights.take("crit.cluster_bias", tails)
    step = -1 if tail_columns == "pytorch" else 1
    return {"cluster_table": table[::step], "cluster_bias": bias[::step]}


def numbered(name: str, arrays: list[np.ndarray]) -> dict:
    """Names the arrays `name_0`, `name_1`, and so on."""
    return {f"{name}_{i}": array for i, array in enumerate(arrays)}


def unnumbered(params: dict) -> dict:
    """Names the parameters as a model with a single table does."""
    return {name.removesuffix("_0"): array for name, array in params.items()}
