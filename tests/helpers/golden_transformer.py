"""Comparison of our Transformer with PyTorch's in the golden files."""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from configs import base
from helpers.golden_files import Golden, compare, golden
from models.attention.multi_head import MultiHeadAttention
from models.common.layers import LayerNorm
from models.common.masks import causal_mask
from models.transformer.model import Config
from models.transformer.stack import Stack


def attention(weights: dict, name: str, heads: int) -> dict:
    """Converts `nn.MultiheadAttention` to kernels [D, H, K] and [H, K, D]."""
    width = weights[f"{name}.out_proj.bias"].size
    shape = (width, heads, width // heads)
    kernels = np.split(weights[f"{name}.in_proj_weight"], 3)
    biases = np.split(weights[f"{name}.in_proj_bias"], 3)
    return {
        **{
            part: {"kernel": kernel.T.reshape(shape), "bias": bias.reshape(shape[1:])}
            for part, kernel, bias in zip(
                ("query", "key", "value"), kernels, biases, strict=True
            )
        },
        "output": {
            "kernel": weights[f"{name}.out_proj.weight"].T.reshape(*shape[1:], width),
            "bias": weights[f"{name}.out_proj.bias"],
        },
    }


def layer_norm(weights: dict, name: str) -> dict:
    """Converts an `nn.LayerNorm` to our parameters."""
    scale, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return {"norm": {"scale": scale, "bias": bias}}


def stack(weights: dict, name: str, layers: int, heads: int) -> dict:
    """Converts an `nn.TransformerEncoder` or `nn.TransformerDecoder`."""
    params = {"final_norm": layer_norm(weights, f"{name}.norm")}
    for i in range(layers):
        params[f"layers_{i}"] = layer(weights, f"{name}.layers.{i}", heads)
    return params


def layer(weights: dict, name: str, heads: int) -> dict:
    """Converts a layer; the decoder's second sublayer is cross-attention."""
    parts = ["self_attention_residual", "feed_forward_residual"]
    params = {"self_attention": attention(weights, f"{name}.self_attn", heads)}
    if f"{name}.multihead_attn.in_proj_weight" in weights:
        parts.insert(1, "cross_attention_residual")
        params["cross_attention"] = attention(weights, f"{name}.multihead_attn", heads)
    for i, part in enumerate(parts, start=1):
        params[part] = {"layer_norm": layer_norm(weights, f"{name}.norm{i}")}
    params["feed_forward"] = {
        ours: {
            "kernel": weights[f"{name}.{theirs}.weight"].T,
            "bias": weights[f"{name}.{theirs}.bias"],
        }
        for ours, theirs in {"up": "linear1", "down": "linear2"}.items()
    }
    return params


def attend(module: nn.Module, params, x, content, mask):
    """Returns the attention output and weights."""

    def call(module):
        return module(x, module.project_kv(content), mask, train=False)

    call = nn.apply(call, module, mutable="intermediates")
    found, state = call({"params": params})
    return found, state["intermediates"]["attention"][0]


def compare_attention(name: str) -> dict[str, float]:
    """Returns the largest differences by quantity."""
    file = golden(name)
    given, sizes = file.group("inputs"), file.sizes
    width, heads, length = sizes["width"], sizes["heads"], sizes["target"]
    module = MultiHeadAttention(heads, width, width // heads, 0.0)
    target, source = seen(given, "target"), seen(given, "source")
    calls = {
        "self": ("self", "x", target),
        "self_causal": ("self", "x", target & causal_mask(length, length)),
        "cross": ("cross", "source", source),
    }

    def loss(params, inputs):
        found = {}
        for kind, (side, content, mask) in calls.items():
            arguments = (params[side], inputs["x"], inputs[content], mask)
            found[kind], weights = attend(module, *arguments)
            found[f"{kind}_weights"] = weights
            found[f"{kind}_weights_averaged"] = weights.mean(axis=1)
        total = weighed(given, found["self_causal"], "weights_self")
        return total + weighed(given, found["cross"], "weights_cross"), found

    def convert(group):
        weights = file.group(group)
        return {side: attention(weights, side, heads) for side in ("self", "cross")}

    return compare(file, loss, convert, {key: given[key] for key in ("x", "source")})


def seen(given: dict, side: str) -> jnp.ndarray:
    """Returns our mask [B, 1, S] for their padding."""
    return jnp.asarray(~given[f"{side}_padding"][:, None])


def weighed(given: dict, output, weights: str):
    """Returns the part of the loss for one output, padding excluded."""
    return (output * given[weights] * ~given["target_padding"][..., None]).sum()


def make_config(file: Golden) -> Config:
    """Returns the config of a golden `nn.Transformer`."""
    sizes = file.sizes
    same = {key: sizes[key] for key in ("layers", "width", "heads", "feed_forward")}
    values = base.model(
        "transformer",
        **same,
        norm="pre" if sizes["is_pre_norm"] else "post",
        activation="gelu" if sizes["is_exact_gelu"] else "relu",
        position_encoding="none",
    )
    return Config(**values)


def run_stack(config: Config, params, x, mask, encoded=None, source_mask=None):
    """Returns a stack's output; PyTorch normalises it with post-norm too."""

    def call(stack):
        length = x.shape[1]
        attention_context = stack.attention_context(
            mask, length, min_relative_position=1 - length, train=False
        )
        source = None if encoded is None else (encoded, source_mask)
        return stack(x, attention_context, source=source, train=False)[0]

    stack = Stack(config, cross=encoded is not None)
    y = nn.apply(call, stack)({"params": params})
    if config.norm == "post":
        y = LayerNorm().apply({"params": params["final_norm"]}, y)
    return y


def compare_transformer(name: str) -> dict[str, float]:
    """Returns the largest differences by quantity."""
    file = golden(name)
    given, sizes = file.group("inputs"), file.sizes
    run = functools.partial(run_stack, make_config(file))
    source = seen(given, "source")
    target = seen(given, "target") & causal_mask(sizes["target"], sizes["target"])

    def loss(params, inputs):
        memory = run(params["encoder"], inputs["source"], source)
        output = run(params["decoder"], inputs["target"], target, memory, source)
        found = {"memory": memory, "output": output}
        return weighed(given, output, "weights"), found

    def convert(group):
        weights, shape = file.group(group), (sizes["layers"], sizes["heads"])
        return {side: stack(weights, side, *shape) for side in ("encoder", "decoder")}

    inputs = {side: given[side] for side in ("source", "target")}
    return compare(file, loss, convert, inputs)
