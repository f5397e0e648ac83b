"""Comparison of our masked language model with BERT in the golden files."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from analysis.import_bert.convert import convert
from configs import base
from helpers.golden_files import Distances, golden
from models.heads.base import HeadConfig
from models.heads.masked_lm import MaskedLanguageModel
from models.transformer.encoder import Encoder
from models.transformer.model import Config

IGNORED = -100  # label of a token that is not predicted


class Case:
    """A model and its parameters, with the inputs of its golden file."""

    def __init__(self, name: str):
        self.golden = golden(name)
        values, self.params = self.convert("parameters")
        values |= {"dropout": 0.0, "attention_dropout": 0.0}
        config = Config(**base.model("transformer", **values))
        vocab_size = self.golden.sizes["vocab_size"]
        self.model = MaskedLanguageModel(
            config, Encoder, vocab_size, HeadConfig(), 0, next_sentence=True
        )
        self.inputs = jax.tree.map(jnp.asarray, self.golden.group("inputs"))

    def convert(self, group: str) -> tuple[dict, dict]:
        """Returns the config, and parameters or gradients."""
        sizes = {**self.golden.sizes, "model_type": "bert"}
        # Gradients of tied weights are stored once, and named by the embedding.
        return convert(self.golden.group(group), sizes)

    def run(self, params):
        """Returns the loss and all outputs in the file."""
        inputs = self.inputs
        tokens, labels = inputs["tokens"], inputs["labels"]
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        given = (tokens, inputs["segment_ids"], ~inputs["padding"], positions, ())

        def call(model):
            (hidden, next_logits), _ = model(*given, train=False)
            weights = labels != IGNORED
            scored = model.log_prob(hidden, jnp.where(weights, labels, 0))
            return model.logits(hidden), next_logits, (scored * weights).sum(), weights

        (logits, next_logits, scored, weights), sown = nn.apply(
            call, self.model, mutable="intermediates", capture_intermediates=is_layer
        )({"params": params})
        is_next = 1 - inputs["next_labels"]
        following = jax.nn.log_softmax(next_logits)[jnp.arange(len(is_next)), is_next]
        loss = -scored / weights.sum() - following.mean()
        hidden_states = layer_outputs(sown["intermediates"]["encoder"])
        return loss, {
            "hidden_states": hidden_states,
            "logits": logits,
            "next_logits": next_logits[:, ::-1],
        }


case = functools.cache(Case)


def is_layer(module: nn.Module, method: str) -> bool:
    """Whether a module is the normalisation of the embeddings or a layer."""
    names = (module.name or "").split("_")
    return method == "__call__" and (
        module.name == "embedding_norm" or names[0] == "layers"
    )


def layer_outputs(sown: dict) -> jax.Array:
    """Returns the outputs of embeddings and layers, [L + 1, B, T, D]."""
    count = len(sown["stack"])
    layers = [sown["stack"][f"layers_{i}"]["__call__"][0][0] for i in range(count)]
    return jnp.stack([sown["embedding_norm"]["__call__"][0], *layers])


def compare_bert(name: str) -> dict[str, float]:
    """Returns the largest differences by quantity; of gradients, relative ones."""
    ours, far = case(name), Distances()
    run = jax.jit(jax.value_and_grad(ours.run, has_aux=True))
    (loss, found), gradients = run(ours.params)
    theirs = ours.golden.group("outputs")
    far.add("loss", loss, theirs.pop("loss"))
    for quantity, value in theirs.items():
        far.add("outputs", found[quantity], value)
    _, slopes = ours.convert("gradients")
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(slopes))
    scaled = jax.tree.map(lambda leaf: leaf / largest, (gradients, slopes))
    far.add("gradients", *scaled)
    return far.largest
