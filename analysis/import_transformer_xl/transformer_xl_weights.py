"""Transformer-XL's weights as published, in the layout of our model.

The authors' linear maps are [outputs, inputs] and all heads side by side, their
projections [D, E_i]; the first third of `qkv_net` are queries, then keys, values.

One thing no shape tells: which column of the head's softmax stands for which
tail cluster. The authors' PyTorch criterion has tail 1 in the last, their
TensorFlow code and Hugging Face's `forward` in the first, as we have.
"""

import itertools

import numpy as np

from analysis.import_transformer_xl.given_weights import Given, Sizes, measure
from utils.errors import UserError


def convert(
    weights: dict[str, np.ndarray],
    *,
    norm: str = "post",
    tail_columns: str = "tensorflow",
    cutoffs: tuple[int, ...] = (),
    **options,
) -> tuple[dict, dict]:
    """Values of the model's config, and the parameters.

    Args:
      tail_columns: "tensorflow" or "pytorch"; see above.
      cutoffs: of weights with div_val 1, whose shapes do not tell them.
      options: further values of the config.

    Raises UserError for names or shapes that no Transformer-XL has.
    """
    given = Given(weights)
    sizes = measure(given, cutoffs)
    stack = {f"layers_{i}": layer(given, i, sizes) for i in range(sizes.layers)}
    if not sizes.untie_biases:
        stack |= shared_biases(given, sizes)
    embedding, head, ties = ends(given, sizes, tail_columns)
    given.check_all_taken()
    # The original has no normalisation after the last layer, whatever the norm.
    model = {**sizes.of_config(), **ties, "norm": norm, "final_norm": False, **options}
    return model, {"embedding": embedding, "stack": stack, "head": head}


def layer(given: Given, number: int, sizes: Sizes) -> dict:
    """Parameters of one layer."""
    width, inner = sizes.width, sizes.feed_forward
    attention, transform = f"layers.{number}.dec_attn", f"layers.{number}.pos_ff"
    return {
        "self_attention": self_attention(given, attention, sizes),
        "self_attention_residual": normalisation(given, attention, width),
        "feed_forward": {
            "up": linear(given, f"{transform}.CoreNet.0", width, inner),
            "down": linear(given, f"{transform}.CoreNet.3", inner, width),
        },
        "feed_forward_residual": normalisation(given, transform, width),
    }


def self_attention(given: Given, name: str, sizes: Sizes) -> dict:
    """Kernels [D, H, Dh], the one of the output [H, Dh, D]."""
    heads, head_dim, width = sizes.heads, sizes.head_dim, sizes.width
    inner = heads * head_dim
    three = given.take(f"{name}.qkv_net.weight", 3 * inner, width)
    rows = (*np.split(three, 3), given.take(f"{name}.r_net.weight", inner, width))
    kernels = [one.T.reshape(width, heads, head_dim) for one in rows]
    names = ("query", "key", "value", "position_key")
    output = given.take(f"{name}.o_net.weight", width, inner)
    return {
        **{part: {"kernel": one} for part, one in zip(names, kernels, strict=True)},
        "output": {"kernel": output.T.reshape(heads, head_dim, width)},
        **(biases(given, f"{name}.", sizes) if sizes.untie_biases else {}),
    }


def biases(given: Given, prefix: str, sizes: Sizes) -> dict:
    """u and v."""
    shape = (sizes.heads, sizes.head_dim)
    return {
        "content_bias": given.take(f"{prefix}r_w_bias", *shape),
        "position_bias": given.take(f"{prefix}r_r_bias", *shape),
    }


def shared_biases(given: Given, sizes: Sizes) -> dict:
    """u and v of all layers, which Hugging Face stores again in each."""
    shared = biases(given, "", sizes)
    for number, key in itertools.product(range(sizes.layers), ("r_w_bias", "r_r_bias")):
        name = f"layers.{number}.dec_attn.{key}"
        once = given.weights[key]
        if not np.array_equal(given.find(name, once), once):
            raise UserError(f"{name} is not what the shared {key} is")
    return shared


def normalisation(given: Given, name: str, width: int) -> dict:
    """A layer norm around a sublayer."""
    scale = given.take(f"{name}.layer_norm.weight", width)
    bias = given.take(f"{name}.layer_norm.bias", width)
    return {"layer_norm": {"norm": {"scale": scale, "bias": bias}}}


def linear(given: Given, name: str, inputs: int, outputs: int) -> dict:
    """A linear map with a bias."""
    kernel = given.take(f"{name}.weight", outputs, inputs).T
    return {"kernel": kernel, "bias": given.take(f"{name}.bias", outputs)}


def ends(given: Given, sizes: Sizes, tail_columns: str) -> tuple[dict, dict, dict]:
    """Parameters of embedding and head, and the config's keys for what they share."""
    tables, own_tables, bias = tables_and_biases(given, sizes)
    into, out = projections(given, sizes)
    tied = all(map(np.array_equal, tables, own_tables))
    tied_out = tied and all(map(np.array_equal, into[1:], out[1:]))
    head = {
        **({} if tied else numbered("table", own_tables)),
        **numbered("bias", bias),
        **numbered("projection", out[:1] if tied_out else out),
        **cluster_columns(given, sizes, tail_columns),
    }
    own = len(sizes.rows)  # with one table for all, clusters share a projection
    embedding = numbered("table", tables) | numbered("projection", into[:own])
    if len(tables) == 1 and not sizes.has_projections:
        embedding, head = plain(embedding), plain(head)
    return embedding, head, {"tie_embeddings": tied, "tie_projections": tied_out}


def tables_and_biases(given: Given, sizes: Sizes) -> list[list[np.ndarray]]:
    """Word vectors of the embedding, of the head, and biases, a cluster each."""
    found = []
    for i, shape in enumerate(zip(sizes.rows, sizes.table_widths, strict=True)):
        table = given.take(f"word_emb.emb_layers.{i}.weight", *shape)
        own = given.find(f"crit.out_layers.{i}.weight", table)
        found.append((table, own, given.take(f"crit.out_layers.{i}.bias", shape[0])))
    if len(found) == 1:
        return [np.split(one, sizes.cutoffs) for one in found[0]]
    return list(map(list, zip(*found, strict=True)))


def projections(
    given: Given, sizes: Sizes
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """[E_i, D] of each cluster's embedding and of its softmax."""
    if not sizes.has_projections:
        return [], []
    into = [
        given.take(f"word_emb.emb_projs.{i}", sizes.width, width).T
        for i, width in enumerate(sizes.table_widths)
    ]
    into *= (len(sizes.cutoffs) + 1) // len(into)
    out = [given.find(f"crit.out_projs.{i}", one.T).T for i, one in enumerate(into)]
    return into, out


def cluster_columns(given: Given, sizes: Sizes, tail_columns: str) -> dict:
    """The rows of the head's softmax that stand for tail clusters 1, 2, ..."""
    number = len(sizes.cutoffs)
    if not number:
        return {}
    table = given.take("crit.cluster_weight", number, sizes.embedding_width)
    bias = given.take("crit.cluster_bias", number)
    step = -1 if tail_columns == "pytorch" else 1
    return {"cluster_table": table[::step], "cluster_bias": bias[::step]}


def numbered(name: str, arrays: list[np.ndarray]) -> dict:
    """`name_0`, `name_1`, ..."""
    return {f"{name}_{i}": array for i, array in enumerate(arrays)}


def plain(params: dict) -> dict:
    """The names of a model with one table for all words."""
    return {name.removesuffix("_0"): array for name, array in params.items()}
