"""What a config would train, before anything is prepared: its parameters."""

import collections
import re

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from data.tokenizers.base import Tokenizer
from data.tokenizers.symbols import ByteTokenizer
from experiment import build, setup

LETTER = re.compile(r"_(\d+)(?=/|$)")  # of layers_3: which of equals a part is
ADAM = 3  # numbers kept for each parameter: itself and two moments


class AnyTokenizer(Tokenizer):
    """Stands for a vocabulary of which only the size is known."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def shares_vocabulary(self, other: Tokenizer) -> bool:
        """Nothing is known of two vocabularies but that they are two."""
        return self is other


def vocabularies(cfg: ConfigDict) -> dict[str, Tokenizer]:
    """As large as `data.vocab_size` allows, a side each."""
    one = ByteTokenizer()
    if cfg.data.tokenizer != "byte":
        one = AnyTokenizer(cfg.data.vocab_size)
    if cfg.data.joint_vocab:
        return dict.fromkeys(("text", "source", "target"), one)
    return {
        "text": one,
        "source": one,
        "target": AnyTokenizer(one.vocab_size),
    }


def parameters(cfg: ConfigDict) -> PyTree:
    """Shapes of all parameters of a config's model.

    Raises UserError for a model that cannot be.
    """
    return build.build_experiment(cfg, vocabularies(cfg)).parameters()


def rows(params: PyTree) -> list[tuple[str, tuple[int, ...], int, int]]:
    """Name, shape, how many of the kind and numbers in all; equal layers as one."""
    kinds = collections.Counter(named(params))
    return [
        (name, shape, count, count * int(np.prod(shape)))
        for (name, shape), count in kinds.items()
    ]


def named(params: PyTree) -> list[tuple[str, tuple[int, ...]]]:
    """Name and shape of each parameter; equal layers share a name."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        found.append((LETTER.sub("_*", "/".join(names)), leaf.shape))
    return found


def table(cfg: ConfigDict, params: PyTree = None) -> str:
    """The parameters of a config's model, one kind a line, and their sum.

    Args:
      params: what `parameters` gives, where it is at hand.
    """
    params = parameters(cfg) if params is None else params
    lines = [
        (name, " x ".join(map(str, shape)), f"x{count}", f"{total:,}")
        for name, shape, count, total in rows(params)
    ]
    total = setup.num_parameters(params)
    lines.append(("parameters", "", "", f"{total:,}"))
    first, second, third, fourth = (max(map(len, c)) for c in zip(*lines, strict=True))
    text = [
        f"{name:{first}}  {shape:>{second}}  {count:>{third}}  {number:>{fourth}}"
        for name, shape, count, number in lines
    ]
    tokenizer = vocabularies(cfg)["text"]
    size = ADAM * total * 4 / 2**30
    text.append(f"{size:.2f} GiB with two moments each, in float32")
    text.append(
        f"vocabulary of {tokenizer.vocab_size:,}: its largest, or exact if full"
    )
    return "\n".join(text)
