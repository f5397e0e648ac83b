"""Random weights in the layout of the authors' Transformer-XL code."""

import json

import numpy as np
import pytest

from configs import base
from utils.errors import UserError

V, D, H, DH, F = 30, 12, 3, 5, 16
WORDS = ["<eos>", "the", "<unk>", *(f"w{i}" for i in range(V - 3))]


def original(prefix="", layers=2, **changes):
    """Returns random weights with a single table, as for characters."""
    shapes = {"word_emb.emb_layers.0.weight": (V, D)}
    shapes |= {name: (H, DH) for name in ("r_w_bias", "r_r_bias")}
    for i in range(layers):
        attention, transform = f"layers.{i}.dec_attn", f"layers.{i}.pos_ff"
        shapes[f"{attention}.qkv_net.weight"] = (3 * H * DH, D)
        shapes[f"{attention}.r_net.weight"] = (H * DH, D)
        shapes[f"{attention}.o_net.weight"] = (D, H * DH)
        shapes[f"{transform}.CoreNet.0.weight"] = (F, D)
        shapes[f"{transform}.CoreNet.0.bias"] = (F,)
        shapes[f"{transform}.CoreNet.3.weight"] = (D, F)
        shapes[f"{transform}.CoreNet.3.bias"] = (D,)
        for part in (attention, transform):
            shapes[f"{part}.layer_norm.weight"] = shapes[f"{part}.layer_norm.bias"] = (
                D,
            )
    shapes = {f"{prefix}{name}": shape for name, shape in shapes.items()}
    shapes |= {"crit.out_layers.0.weight": (V, D), "crit.out_layers.0.bias": (V,)}
    draw = np.random.default_rng(0)
    return {
        name: draw.normal(size=changes.get(name, shape), scale=0.5).astype(np.float32)
        for name, shape in shapes.items()
    }


def without(weights, name):
    return {key: array for key, array in weights.items() if key != name}


def safetensors(path, weights, dtype="F32"):
    """Writes a safetensors file: the header's length, the header, the data."""
    header, content = {"__metadata__": {"format": "pt"}}, b""
    for name, array in weights.items():
        exact = array.astype("<f4")
        if dtype == "BF16":
            exact = (exact.view("<u4") >> 16).astype("<u2")
        offsets = [len(content), len(content) + exact.nbytes]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": offsets}
        content += exact.tobytes()
    encoded = json.dumps(header).encode()
    size = len(encoded).to_bytes(8, "little")
    path.write_bytes(size + encoded + content)


def config(model, size):
    cfg = base.get_config("transformer_xl")
    cfg.task, cfg.data.tokenizer, cfg.data.vocab_size = (
        "language_modeling",
        "word",
        size,
    )
    cfg.model.update(model)
    return cfg


def refusal(call, *arguments, **options):
    """Returns the message of a UserError, which must be one line."""
    with pytest.raises(UserError) as raised:
        call(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)
