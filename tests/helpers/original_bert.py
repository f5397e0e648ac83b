"""A folder of Hugging Face with the small BERT of a golden file."""

import json
from pathlib import Path

import numpy as np

from helpers.golden_files import golden
from helpers.original_weights import safetensors

SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "max_position_embeddings", "layer_norm_eps"),
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Special tokens are neither first nor in our order.
WORDS = ["[PAD]", "[unused0]", *LETTERS[:8], "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += [*(f"##{letter}" for letter in LETTERS), "the", "cat", "sat", "##at"]
WORDS += [".", ",", "!", "?", "é", "猫"]


def weights() -> dict[str, np.ndarray]:
    """Returns the parameters by Hugging Face's names."""
    return golden("bert").group("parameters")


def config(**changes) -> dict:
    """Returns the content of config.json."""
    sizes = {name: golden("bert").sizes[name] for name in SIZES}
    return {"model_type": "bert", "hidden_act": "gelu", **sizes, **changes}


def write_folder(
    folder: Path, *, arrays=None, words=WORDS, tokenizer=None, **changes
) -> Path:
    """Writes the folder with changed weights, words or keys of config.json."""
    folder.mkdir(exist_ok=True)
    safetensors(folder / "model.safetensors", arrays or weights())
    (folder / "config.json").write_text(json.dumps(config(**changes)))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf8")
    if tokenizer is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder
