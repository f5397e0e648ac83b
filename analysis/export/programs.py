"""Programs of an exported run: its searches, or the predictions of an encoder.

Each is a function of (parameters by name, inputs by name), compiled for no device yet,
with a symbolic batch size (b) and length (t). It holds no parameters. The number of
generated tokens is static, `decode.max_length`, since the key/value cache and the
hypotheses have that size; a search stops when all hypotheses have ended.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from decoding.config import DecodingConfig, example_keys
from experiment.restore import TrainedRun
from tasks.understanding import (
    masked_language_modeling,
    relation_extraction,
    tagging,
)
from utils.memory import unbounded

PLATFORMS = ("cpu", "cuda", "tpu")
NUM_FILLINGS = 10  # most probable tokens of a mask
CONSTRAINTS = ("t >= 8", "w >= 2")  # words are as many as tokens, less 2
SEPARATOR = "/"  # of the names of parameters

Arrays = dict[str, Array]
Program = Callable[[Arrays, Arrays], Arrays]


class ProgramSpec(NamedTuple):
    """A program with the shapes of its inputs.

    Attributes:
      inputs: type and symbolic shape of each input, such as ("int32", "b, t").
      length: the static length t; None: t is symbolic.
    """

    name: str
    program: Program
    inputs: dict[str, tuple[str, str]]
    length: int | None = None

    @property
    def batch_input(self) -> str:
        """Name of the input of shape [b, t]."""
        return next(key for key, (_, shape) in self.inputs.items() if shape == "b, t")


def export_program(spec: ProgramSpec, params: Arrays) -> bytes:
    """Returns a program for all PLATFORMS, as `jax.export` serialises it."""
    fixed = "t" if spec.length is None else str(spec.length)
    sizes = {key: shape.replace("t", fixed) for key, (_, shape) in spec.inputs.items()}
    used = ", ".join(sizes.values())
    scope = jax.export.SymbolicScope([c for c in CONSTRAINTS if c[0] in used])
    shapes = {
        key: jax.ShapeDtypeStruct(
            jax.export.symbolic_shape(sizes[key], scope=scope), dtype
        )
        for key, (dtype, _) in spec.inputs.items()
    }
    params = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in params.items()}
    export = jax.export.export(jax.jit(spec.program), platforms=PLATFORMS)
    return bytes(export(params, shapes).serialize())


def make_programs(run: TrainedRun) -> Iterator[ProgramSpec]:
    """Yields the programs of a run."""
    experiment = run.experiment
    task, cfg = experiment.task, experiment.cfg
    model = portable_model(experiment.evaluation_model)
    if task.model_class == "Seq2Seq":
        for name, decoding in search_configs(cfg.decode).items():
            yield translation_program(name, task, model, cfg, decoding)
    elif task.model_class == "LanguageModel":
        for name, decoding in search_configs(cfg.decode).items():
            yield continuation_program(name, task, model, cfg, decoding)
    else:
        yield from prediction_programs(task, model)


def portable_model(model: nn.Module) -> nn.Module:
    """Returns a model whose attention runs on every platform."""
    config = model.config
    if not hasattr(config, "attention_impl"):
        return model
    return model.clone(config=dataclasses.replace(config, attention_impl="xla"))


def search_configs(options: ConfigDict) -> dict[str, DecodingConfig]:
    """Returns the searches of a config by method, each with its settings."""
    found = {}
    for method in ("greedy", "beam", "sample"):
        with options.unlocked():
            changed = options.copy_and_resolve_references()
        changed.method = method
        if method == "greedy":
            changed.n_best = 1
        if method == "beam" and options.method != "beam":
            changed.beam_groups = 1  # other searches ignore it, so it may not fit
            changed.beam_size = max(changed.beam_size, changed.n_best)
        found[method] = DecodingConfig.from_config(changed).with_scores
    return found


def nested(params: Arrays) -> PyTree:
    """Returns the variables of a model from its parameters by name."""
    return {"params": unflatten_dict(params, sep=SEPARATOR)}


def translation_program(name, task, model, cfg, decoding) -> ProgramSpec:
    """Returns the search of a translation model for independent sources."""
    max_steps = cfg.decode.max_length

    def translate(params, inputs):
        batch = {key: inputs[key] for key in ("source", "source_mask")}
        batch_size = inputs["source"].shape[0]
        batch["reset"] = jnp.ones(batch_size, bool)
        carry = task.initial_carry(model, batch_size, train=False)
        keys = example_keys(inputs["seed"], inputs["ids"])
        limits = inputs["limits"]
        args = carry, batch, limits, max_steps, decoding, keys
        hypotheses, _ = unbounded(task._search)(task, model, nested(params), *args)
        return hypotheses._asdict()

    shapes = {
        "source": ("int32", "b, t"),
        "source_mask": ("bool", "b, t"),
        "limits": ("int32", "b"),
        "ids": ("int32", "b"),
        "seed": ("uint32", ""),
    }
    return ProgramSpec(name, translate, shapes)


def continuation_program(name, task, model, cfg, decoding) -> ProgramSpec:
    """Returns the search of a language model after prompts."""
    max_steps = cfg.decode.max_length + 1  # with the end symbol

    def continue_text(params, inputs):
        names = ("tokens", "lengths", "last_token")
        args = *(inputs[key] for key in names), max_steps, decoding
        keys = example_keys(inputs["seed"], inputs["ids"])
        search = unbounded(task._search)
        return search(task, model, nested(params), *args, keys)._asdict()

    shapes = {
        "tokens": ("int32", "b, t"),
        "lengths": ("int32", "b"),
        "last_token": ("int32", "b"),
        "ids": ("int32", "b"),
        "seed": ("uint32", ""),
    }
    return ProgramSpec(name, continue_text, shapes)


def prediction_programs(task, model) -> Iterator[ProgramSpec]:
    """Yields the prediction of an encoder with its head.

    An encoder with a memory reads a text in segments, whose number is static: there is
    a program for each power of 2 of the length.
    """
    predict, shapes = _prediction(task)

    def program(params, inputs):
        return predict(model, nested(params), inputs)

    carry = jax.eval_shape(lambda: model.initial_carry(1, train=False))
    has_memory = bool(jax.tree.leaves(carry))
    lengths = [None]
    if has_memory and task.max_length > task.segment_length:
        longest = max(8, 1 << (task.max_length - 1).bit_length())
        lengths = [1 << power for power in range(3, longest.bit_length())]
    for length in lengths:
        yield ProgramSpec("predict", program, shapes, length)


def _prediction(task) -> tuple[Callable, dict[str, tuple[str, str]]]:
    """Returns a function of (model, variables, batch), and the shapes of a batch."""
    shapes = {
        "tokens": ("int32", "b, t"),
        "segment_ids": ("int32", "b, t"),
        "mask": ("bool", "b, t"),
    }
    if isinstance(task, tagging.Task):
        return functools.partial(unbounded(task._forward), task), shapes | {
            "word_starts": ("int32", "b, w")
        }
    if isinstance(task, masked_language_modeling.Task):
        ordinary = task._ordinary_ids()
        count, top = min(NUM_FILLINGS, len(ordinary)), unbounded(task._top)

        def fill(model, variables, batch):
            found = top(task, model, variables, batch, ordinary, count)
            return dict(zip(("probabilities", "ids"), found, strict=True))

        return fill, shapes | {"positions": ("int32", "b, m")}

    def classify(model, variables, batch):
        return {"logits": task.apply(model, variables, batch, None, train=False)}

    if isinstance(task, relation_extraction.Task):
        shapes["entities"] = ("int32", "b, 2")
    return classify, shapes
