"""Conversion of published Transformer-XL weights to parameters of our model.

Names are those of the authors' PyTorch code (github.com/kimiyoung/transformer-xl);
Hugging Face's TransfoXLLMHeadModel prefixes them with `transformer.`.

The authors' linear maps are [outputs, inputs] with all heads side by side, their
projections [D, E_i]; the first third of `qkv_net` are queries, then keys, values.

Shapes do not tell which column of the head's softmax belongs to which tail cluster.
The authors' PyTorch criterion has tail 1 in the last column; their TensorFlow code,
Hugging Face's `forward` and our model have it in the first.
"""

import itertools
import re
import types

import numpy as np

from analysis.weight_files import StrictWeights
from utils.errors import UserError

BUFFERS = ("pos_emb.inv_freq",)


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
      cutoffs: of weights with div_val 1, whose shapes do not tell them.

    Raises UserError for names or shapes that no Transformer-XL has.
    """
    converter = Converter(weights, cutoffs)
    config = converter.config
    stack = {f"layers_{i}": converter.layer(i) for i in range(config.layers)}
    if not config.untie_biases:
        stack |= converter.shared_biases()
    embedding, head, ties = converter.embedding_and_head(tail_columns)
    converter.weights.check_all_used()
    # The original has no normalisation after the last layer, with either norm.
    model = {**vars(config), **ties, "norm": norm, "final_norm": False}
    return {**model, **options}, {"embedding": embedding, "stack": stack, "head": head}


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


class Converter:
    """Conversion of weights to parameters of a model with a config inferred from them.

    Attributes:
      config: keys of `cfg.model` that some shapes tell; others are checked against it.
      tables: rows and width of each embedding table; one table if div_val is 1.
    """

    def __init__(self, weights: dict[str, np.ndarray], cutoffs: tuple[int, ...]):
        self.weights = weights = StrictWeights(weights, "transformer.", BUFFERS)
        layers = [re.match(r"layers\.(\d+)\.", name) for name in weights.arrays]
        untied = "r_w_bias" not in weights
        bias = "layers.0.dec_attn.r_w_bias" if untied else "r_w_bias"
        heads, head_dim = weights.shape(bias, 2)
        count = sum(name.startswith("word_emb.emb_layers.") for name in weights.arrays)
        names = [f"word_emb.emb_layers.{i}.weight" for i in range(max(count, 1))]
        self.tables = [weights.shape(name, 2) for name in names]
        rows, widths = zip(*self.tables, strict=True)
        self.config = types.SimpleNamespace(
            layers=1 + max((int(match[1]) for match in layers if match), default=0),
            width=weights.shape("layers.0.dec_attn.layer_norm.weight", 1)[0],
            heads=heads,
            head_dim=head_dim,
            feed_forward=weights.shape("layers.0.pos_ff.CoreNet.0.weight", 2)[0],
            untie_biases=untied,
            embedding_width=widths[0],
            cutoffs=infer_cutoffs(weights, rows, cutoffs),
            div_val=infer_div_val(widths),
        )

    @property
    def has_projections(self) -> bool:
        """Whether tables are projected to the model's width."""
        config = self.config
        return config.div_val > 1 or config.embedding_width != config.width

    def layer(self, number: int) -> dict:
        """Returns the parameters of one layer."""
        width, inner = self.config.width, self.config.feed_forward
        attention, feed_forward = f"layers.{number}.dec_attn", f"layers.{number}.pos_ff"
        return {
            "self_attention": self.self_attention(attention),
            "self_attention_residual": self.layer_norm(attention),
            "feed_forward": {
                "up": self.dense(f"{feed_forward}.CoreNet.0", width, inner),
                "down": self.dense(f"{feed_forward}.CoreNet.3", inner, width),
            },
            "feed_forward_residual": self.layer_norm(feed_forward),
        }

    def self_attention(self, name: str) -> dict:
        """Returns kernels [D, H, K], and [H, K, D] of the output projection."""
        heads, head_dim = self.config.heads, self.config.head_dim
        inner, width = heads * head_dim, self.config.width
        qkv = self.weights.take(f"{name}.qkv_net.weight", 3 * inner, width)
        position_key = self.weights.take(f"{name}.r_net.weight", inner, width)
        output = self.weights.take(f"{name}.o_net.weight", width, inner)
        parts = ("query", "key", "value", "position_key")
        kernels = {
            part: {"kernel": kernel.T.reshape(width, heads, head_dim)}
            for part, kernel in zip(
                parts, (*np.split(qkv, 3), position_key), strict=True
            )
        }
        kernels["output"] = {"kernel": output.T.reshape(heads, head_dim, width)}
        untied = self.config.untie_biases
        return kernels | (self.relative_biases(f"{name}.") if untied else {})

    def relative_biases(self, prefix: str) -> dict:
        """Returns u and v (Dai et al. 2019, section 3.3)."""
        shape = (self.config.heads, self.config.head_dim)
        return {
            "content_bias": self.weights.take(f"{prefix}r_w_bias", *shape),
            "position_bias": self.weights.take(f"{prefix}r_r_bias", *shape),
        }

    def shared_biases(self) -> dict:
        """Returns u and v of all layers, which Hugging Face stores again in each."""
        shared = self.relative_biases("")
        layers = range(self.config.layers)
        for number, key in itertools.product(layers, ("r_w_bias", "r_r_bias")):
            name, expected = f"layers.{number}.dec_attn.{key}", self.weights.arrays[key]
            if not np.array_equal(self.weights.take_or(name, expected), expected):
                raise UserError(f"{name} differs from the shared {key}")
        return shared

    def layer_norm(self, name: str) -> dict:
        """Returns the layer normalisation around a sublayer."""
        scale, bias = (
            self.weights.take(f"{name}.layer_norm.{part}", self.config.width)
            for part in ("weight", "bias")
        )
        return {"layer_norm": {"norm": {"scale": scale, "bias": bias}}}

    def dense(self, name: str, inputs: int, outputs: int) -> dict:
        """Returns a linear map with a bias."""
        kernel = self.weights.take(f"{name}.weight", outputs, inputs).T
        return {"kernel": kernel, "bias": self.weights.take(f"{name}.bias", outputs)}

    def embedding_and_head(self, tail_columns: str) -> tuple[dict, dict, dict]:
        """Returns parameters of embedding and head, and the config keys of ties."""
        tables, head_tables, bias = self.tables_and_biases()
        inputs, outputs = self.projections()
        tied = all(map(np.array_equal, tables, head_tables))
        tied_projections = tied and all(map(np.array_equal, inputs[1:], outputs[1:]))
        # Clusters of a single table share one projection.
        inputs = inputs[: len(self.tables)]
        embedding = numbered("table", tables) | numbered("projection", inputs)
        head = {
            **({} if tied else numbered("table", head_tables)),
            **numbered("bias", bias),
            **numbered("projection", outputs[:1] if tied_projections else outputs),
        }
        if tails := len(self.config.cutoffs):  # softmax rows of clusters 1, 2, ...
            order = slice(None, None, -1 if tail_columns == "pytorch" else 1)
            width = self.config.embedding_width
            table = self.weights.take("crit.cluster_weight", tails, width)
            cluster_bias = self.weights.take("crit.cluster_bias", tails)
            head |= {"cluster_table": table[order], "cluster_bias": cluster_bias[order]}
        if len(tables) == 1 and not self.has_projections:
            embedding, head = (
                {name.removesuffix("_0"): array for name, array in params.items()}
                for params in (embedding, head)
            )
        ties = {"tie_embeddings": tied, "tie_projections": tied_projections}
        return embedding, head, ties

    def tables_and_biases(self) -> list[list[np.ndarray]]:
        """Returns embedding tables, head tables and head biases, one per cluster."""
        parts = []
        for i, shape in enumerate(self.tables):
            table = self.weights.take(f"word_emb.emb_layers.{i}.weight", *shape)
            head = self.weights.take_or(f"crit.out_layers.{i}.weight", table)
            bias = self.weights.take(f"crit.out_layers.{i}.bias", shape[0])
            parts.append((table, head, bias))
        if len(parts) == 1:
            return [np.split(part, self.config.cutoffs) for part in parts[0]]
        return list(map(list, zip(*parts, strict=True)))

    def projections(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Returns [E_i, D] of each cluster's embedding and of its softmax."""
        if not self.has_projections:
            return [], []
        inputs = [
            self.weights.take(f"word_emb.emb_projs.{i}", self.config.width, width).T
            for i, (_, width) in enumerate(self.tables)
        ]
        inputs *= (len(self.config.cutoffs) + 1) // len(inputs)
        outputs = [
            self.weights.take_or(f"crit.out_projs.{i}", projection.T).T
            for i, projection in enumerate(inputs)
        ]
        return inputs, outputs


def numbered(name: str, arrays: list[np.ndarray]) -> dict:
    """Names the arrays `name_0`, `name_1`, and so on."""
    return {f"{name}_{i}": array for i, array in enumerate(arrays)}
