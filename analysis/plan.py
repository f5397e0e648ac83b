"""What a config would train, before anything is prepared: its parameters."""

import dataclasses
import re

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

import assembly
import experiment
from data.tokenizers import ByteTokenizer, Tokenizer
from training.optimizers import make_optimizer
from training.partitioning import make_partitioner
from training.step import make_state

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


def small_batch(cfg: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch's arrays without their numbers."""

    def array(length, dtype="int32"):
        return jax.ShapeDtypeStruct((2, length), dtype)

    if cfg.task == "language_modeling":
        length = cfg.data.segment_length
        return {"tokens": array(length), "labels": array(length)}
    return {
        "source": array(9),
        "source_mask": array(9, "bool"),
        "target_in": array(7),
        "target_mask": array(7, "bool"),
        "labels": array(7),
    }


def parameters(cfg: ConfigDict) -> PyTree:
    """Shapes of all parameters of a config's model.

    Raises UserError for a model that cannot be.
    """
    return parameters_of(cfg, assembly.assemble(cfg, vocabularies(cfg)))


def parameters_of(cfg: ConfigDict, built: assembly.Experiment) -> PyTree:
    """The same of what is put together, with the names of their axes."""
    variables = jax.eval_shape(
        lambda batch: built.task.init(built.model, jax.random.key(0), batch),
        small_batch(cfg),
    )
    return variables["params"]


@dataclasses.dataclass(frozen=True)
class Held:
    """Bytes a device holds from step to step, exactly; activations come on top."""

    parameters: int
    optimizer: int  # its state, and the mean that `optim.ema` keeps
    carry: int

    @property
    def total(self) -> int:
        """Of all three."""
        return self.parameters + self.optimizer + self.carry


def held(cfg: ConfigDict, devices: int) -> Held:
    """What each of so many devices holds; none of them need be there.

    Raises UserError where `cfg.parallel` does not make so many.
    """
    built = assembly.assemble(cfg, vocabularies(cfg))
    partitioner = make_partitioner(cfg.parallel, parts=cfg.accumulate, devices=devices)
    optimizer, _ = make_optimizer(cfg.optim, cfg.steps, width=cfg.model.width)
    params = parameters_of(cfg, built)

    def make(params):
        return make_state(params, optimizer, ema=cfg.optim.ema)

    def carry(rows):
        return built.task.initial_carry(built.model, rows, train=True)

    streams = cfg.task == "language_modeling" or cfg.data.documents
    own = partitioner.bytes_a_device(params)
    whole = partitioner.bytes_a_device(jax.eval_shape(make, params))
    rows = cfg.data.batch_rows if streams else 1
    return Held(own, whole - own, partitioner.carry_bytes_a_device(carry, rows))


def memory_table(cfg: ConfigDict, devices: int, capacity: float | None) -> str:
    """What a device holds, one kind a line, and whether it is more than there is.

    Args:
      capacity: GB of memory a device; None: unknown.
    """
    found = held(cfg, devices)
    sizes = {**dataclasses.asdict(found), "held a device": found.total}
    lines = [f"{name:14} {size / 1e9:10.4f} GB" for name, size in sizes.items()]
    lines[0] += f"  on each of {devices} devices"
    if capacity is not None:
        room = capacity - found.total / 1e9
        fits = f"{room:.4f} GB are left for activations and gradients"
        lines.append(fits if room > 0 else f"does not fit into {capacity:g} GB")
    return "\n".join(lines)


def rows(params: PyTree) -> list[tuple[str, tuple[int, ...], int, int]]:
    """Name, shape, how many of the kind and numbers in all; equal layers as one."""
    kinds: dict[tuple, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        kind = LETTER.sub("_*", "/".join(names)), leaf.shape
        kinds[kind] = kinds.get(kind, 0) + 1
    return [
        (name, shape, count, count * int(np.prod(shape)))
        for (name, shape), count in kinds.items()
    ]


def table(cfg: ConfigDict) -> str:
    """The parameters of a config's model, one kind a line, and their sum."""
    params = parameters(cfg)
    lines = [
        (name, " x ".join(map(str, shape)), f"x{count}", f"{total:,}")
        for name, shape, count, total in rows(params)
    ]
    total = experiment.num_parameters(params)
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
