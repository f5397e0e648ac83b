"""Conversion of published BERT weights to parameters of our masked language model.

Names are those of Hugging Face's BertForPreTraining, whose linear maps are [outputs,
inputs] with all heads side by side. Weights of Google's release call the gain and bias
of a normalisation `gamma` and `beta`. Its classes of next sentences are [next, other];
ours are [other, next].
"""

import re

import numpy as np

from analysis.weight_files import StrictWeights
from utils.errors import UserError

BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
GAINS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

# What a config.json must say, where it says something: values that our model has.
EXPECTED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}
SIZES = {  # from a key of config.json to one of `cfg.model`
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "intermediate_size": "feed_forward",
    "max_position_embeddings": "max_positions",
}
RATES = {
    "layer_norm_eps": ("norm_epsilon", 1e-12),
    "hidden_dropout_prob": ("dropout", 0.1),
    "attention_probs_dropout_prob": ("attention_dropout", 0.1),
}
PUBLISHED = {  # of all BERTs
    "position_encoding": "learned",
    "activation": "gelu",
    "norm": "post",
    "feed_forward_dropout": 0.0,
}


def convert(weights: dict[str, np.ndarray], config: dict) -> tuple[dict, dict]:
    """Returns values of the model's config, and the parameters.

    The parameters of next-sentence prediction are left out where weights of a
    BertForMaskedLM have none.

    Args:
      config: content of config.json.

    Raises UserError for a config, names or shapes that no BERT has.
    """
    converter = Converter(weights, read_config(config))
    model = converter.model
    encoder = {
        "embedding": {"table": converter.words},
        **converter.positions_and_segments(),
        "embedding_norm": converter.layer_norm("embeddings.LayerNorm"),
        "stack": {f"layers_{i}": converter.layer(i) for i in range(model["layers"])},
    }
    is_tied, output_layers = converter.output_layers()
    converter.weights.check_all_used()
    return {**model, "tie_embeddings": is_tied}, {"encoder": encoder, **output_layers}


def read_config(config: dict) -> dict:
    """Returns the values of our model's config that a config.json stands for.

    Raises UserError if it is no BERT's, or of a BERT that our model cannot be.
    """
    for key, expected in EXPECTED.items():
        is_missing = key == "model_type" and key not in config
        if is_missing or config.get(key, expected) != expected:
            raise UserError(
                f"config.json: {key}={config.get(key)!r} must be {expected!r} of a "
                "BERT encoder"
            )
    model = {}
    for key, ours in SIZES.items():
        value = config.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"config.json: {key}={value!r} must be an integer above 0")
        model[ours] = value
    for key, (ours, default) in RATES.items():
        value = config.get(key, default)
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise UserError(f"config.json: {key}={value!r} must be in 0 to 1")
        model[ours] = float(value)
    if model["width"] % model["heads"]:
        raise UserError(
            f"config.json: hidden_size={model['width']} must be a multiple of "
            f"num_attention_heads={model['heads']}"
        )
    return {**model, **PUBLISHED}


class Converter:
    """Conversion of weights to parameters of a model with a given config.

    Attributes:
      model: keys of `cfg.model`.
      words: token embeddings [V, D].
    """

    def __init__(self, weights: dict[str, np.ndarray], model: dict):
        named = {_current_name(name): array for name, array in weights.items()}
        self.weights = StrictWeights(named, "bert.", BUFFERS)
        self.model, self.width = model, model["width"]
        name = "embeddings.word_embeddings.weight"
        self.vocab_size = self.weights.shape(name, 2)[0]
        self.words = self.weights.take(name, self.vocab_size, self.width)

    def positions_and_segments(self) -> dict:
        """Returns the tables of learned positions and of segments."""
        positions, segments = (
            self.weights.take(f"embeddings.{name}_embeddings.weight", rows, self.width)
            for name, rows in (
                ("position", self.model["max_positions"]),
                ("token_type", 2),
            )
        )
        return {
            "position_embedding": {"table": {"table": positions}},
            "segment_embedding": {"table": segments},
        }

    def layer(self, number: int) -> dict:
        """Returns the parameters of one layer."""
        name, inner = f"encoder.layer.{number}", self.model["feed_forward"]
        return {
            "self_attention": self.self_attention(f"{name}.attention"),
            "self_attention_residual": {
                "layer_norm": self.layer_norm(f"{name}.attention.output.LayerNorm")
            },
            "feed_forward": {
                "up": self.dense(f"{name}.intermediate.dense", self.width, inner),
                "down": self.dense(f"{name}.output.dense", inner, self.width),
            },
            "feed_forward_residual": {
                "layer_norm": self.layer_norm(f"{name}.output.LayerNorm")
            },
        }

    def self_attention(self, name: str) -> dict:
        """Returns kernels [D, H, K], and [H, K, D] of the output projection."""
        width, heads = self.width, self.model["heads"]
        split = (heads, width // heads)
        maps = {}
        for part in ("query", "key", "value"):
            whole = self.dense(f"{name}.self.{part}", width, width)
            maps[part] = {
                "kernel": whole["kernel"].reshape(width, *split),
                "bias": whole["bias"].reshape(split),
            }
        whole = self.dense(f"{name}.output.dense", width, width)
        maps["output"] = {**whole, "kernel": whole["kernel"].reshape(*split, width)}
        return maps

    def layer_norm(self, name: str) -> dict:
        """Returns a layer normalisation."""
        scale, bias = (
            self.weights.take(f"{name}.{part}", self.width)
            for part in ("weight", "bias")
        )
        return {"norm": {"scale": scale, "bias": bias}}

    def dense(self, name: str, inputs: int, outputs: int) -> dict:
        """Returns a linear map with a bias."""
        kernel = self.weights.take(f"{name}.weight", outputs, inputs).T
        return {"kernel": kernel, "bias": self.weights.take(f"{name}.bias", outputs)}

    def output_layers(self) -> tuple[bool, dict]:
        """Returns whether the output weights are tied, and what follows the encoder."""
        weights, name = self.weights, "cls.predictions"
        bias = weights.take(f"{name}.bias", self.vocab_size)
        if not np.array_equal(weights.take_or(f"{name}.decoder.bias", bias), bias):
            raise UserError(f"{name}.decoder.bias differs from {name}.bias")
        table = weights.take_or(f"{name}.decoder.weight", self.words)
        is_tied = np.array_equal(table, self.words)
        layers = {
            "transform": self.dense(f"{name}.transform.dense", self.width, self.width),
            "transform_norm": self.layer_norm(f"{name}.transform.LayerNorm"),
            "head": {"bias": bias, **({} if is_tied else {"table": table})},
        }
        pooler = {}
        if "pooler.dense.weight" in weights:
            pooler = {"dense": self.dense("pooler.dense", self.width, self.width)}
        if pooler and "cls.seq_relationship.weight" in weights:
            classes = self.dense("cls.seq_relationship", self.width, 2)
            reversed_classes = {key: x[..., ::-1] for key, x in classes.items()}
            layers |= {"pooler": pooler, "next_head": reversed_classes}
        return is_tied, layers


def _current_name(name: str) -> str:
    """Returns the present name of a parameter of a normalisation."""
    match = re.search(r"LayerNorm\.(gamma|beta)\Z", name)
    return name.removesuffix(match[0]) + GAINS[match[0]] if match else name
