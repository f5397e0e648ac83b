"""The same run on other devices: a program of 8 virtual ones that test_parallel starts.

    python tests/helpers/parallel_runs.py fast|all FOLDER

It prints one JSON object: what each run gave, and the largest differences.
"""

import functools
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[0] = str(ROOT)
sys.path.append(str(ROOT / "tests"))

import jax  # noqa: E402

import conftest  # noqa: E402, F401

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 8)

import flax.linen as nn  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from analysis.plan import memory  # noqa: E402
from analysis.plan.step import StepSpec, dummy_tokenizers  # noqa: E402
from configs import base  # noqa: E402
from experiment import build  # noqa: E402
from experiment.setup import TrainingSetup  # noqa: E402
from experiment.watch import make_program  # noqa: E402
from models.attention import dispatch  # noqa: E402
from training.checkpoint import Checkpoints  # noqa: E402
from training.optim.optimizers import make_optimizer  # noqa: E402
from training.parallel.partitioner import make_partitioner  # noqa: E402
from training.step import make_state  # noqa: E402

ROWS, STEPS = 20, 10  # PTB's rows, which 8 devices do not divide
S, T, V = 6, 5, 24

# mode, data, fsdp, tensor
LAYOUTS = {
    "one device": ("jit", 1, 1, 1),
    "data=8": ("jit", 8, 1, 1),
    "fsdp=8": ("jit", 1, 8, 1),
    "data=2 x fsdp=2 x tensor=2": ("jit", 2, 2, 2),
    "pmap=8": ("pmap", 8, 1, 1),
}
ONE, MESH, PMAP = "one device", "data=2 x fsdp=2 x tensor=2", "pmap=8"
OTHERS = {"data=4": ("jit", 4, 1, 1), "pmap=4": ("pmap", 4, 1, 1)}

# Layouts of each case; `all` has every one of every case, and float32. The layers of a
# transformer are those of a Transformer-XL. Rows alone are spread with dropout, below.
FAST = {
    ("translation", "rnn", "sgd"): (ONE, MESH),
    ("language_modeling", "transformer_xl", "adamw"): (ONE, "fsdp=8", MESH, PMAP),
}
XL = "language_modeling", "transformer_xl", "adamw"
ALL = tuple(
    (task, model, optimizer)
    for task in ("language_modeling", "translation")
    for model in ("rnn", "transformer", "transformer_xl")
    for optimizer in ("sgd", "adamw")
)

SIZES = {
    "layers": 1,
    "width": 16,
    "heads": 2,
    "feed_forward": 16,
    "attention_width": 8,
    "embedding_width": 16,
    "attention_window": 4,
    "memory_length": 4,
    "dropout": 0.0,
    "dropout_input": 0.0,
    "dropout_hidden": 0.0,
    "attention_dropout": 0.0,
    "activation_regularization": 0.5,  # an auxiliary loss
}


class Batches:
    """Random tokens; how many count differs from row to row."""

    batch_size = ROWS

    def __init__(self, task):
        self.task, self.shapes = task, [(ROWS, S, T)]

    def num_examples(self, k):
        return ROWS

    def __getitem__(self, k):
        return self.partial_batch(k, slice(None))

    def partial_batch(self, k, rows):
        random = np.random.default_rng(k)
        lengths = random.integers(1, T + 1, (ROWS, 1))

        def tokens(length):
            return random.integers(5, V, (ROWS, length)).astype(np.int32)

        batch = {
            "labels": tokens(T),
            "weights": (np.arange(T) < lengths).astype(np.float32),
            "reset": random.random(ROWS) < 0.2,
        }
        if self.task == "language_modeling":
            batch |= {"tokens": tokens(T)}
        else:
            batch |= {
                "source": tokens(S),
                "source_mask": np.arange(S) <= lengths,
                "target_in": tokens(T),
                "target_mask": np.arange(T) < lengths,
            }
        return {name: leaf[rows] for name, leaf in batch.items()}


@functools.cache
def config(task, model, optimizer, dtype, changes=()):
    cfg = base.get_config(model)
    sizes = SIZES | {"dtype": dtype} | dict(changes)
    cfg.model.update({k: v for k, v in sizes.items() if k in cfg.model})
    cfg.task, cfg.data.vocab_size = task, V
    cfg.data.document_order = (task, model) == ("translation", "transformer_xl")
    cfg.optim.update(name=optimizer, lr=0.1 if optimizer == "sgd" else 1e-2)
    return cfg


class Case:
    """An experiment on any layout of devices; a step is compiled once a layout."""

    def __init__(self, task, model, optimizer, dtype="float64", changes=()):
        cfg = self.cfg = config(task, model, optimizer, dtype, changes)
        tokenizers = dummy_tokenizers(cfg)
        self.experiment = build.build_experiment(cfg, tokenizers)
        self.batches = Batches(task)
        self.optimizer = make_optimizer(cfg.optim, 40)
        self.steps, self.places = {}, {}
        self.state = self.random_state(self.training("one device"))

    def training(self, layout):
        mode, data, fsdp, tensor = (LAYOUTS | OTHERS)[layout]
        cfg = base.get_config().parallel
        cfg.update(mode=mode, data=data, fsdp=fsdp, tensor=tensor)
        devices = jax.devices()[: data * fsdp * tensor]
        partitioner = make_partitioner(cfg, devices=devices)
        made = self.experiment, partitioner, self.batches, *self.optimizer, 40
        return TrainingSetup(*made)

    def random_state(self, training):
        """A state of random parameters; `init` is not compiled."""
        shapes = nn.meta.unbox(jax.eval_shape(training.make_state)).params
        random = np.random.default_rng(7)
        params = jax.tree.map(
            lambda leaf: jnp.asarray(random.normal(0, 0.3, leaf.shape), leaf.dtype),
            shapes,
        )
        return jax.device_get(make_state(params, training.optimizer))

    def placed(self, layout):
        """The training on a layout, and where its state lies."""
        if layout not in self.places:
            training = self.training(layout)
            places = training.partitioner.shardings_of(
                jax.eval_shape(training.make_state)
            )
            self.places[layout] = training, places
        return self.places[layout]

    def first(self, layout):
        """The training, its first state and its carry."""
        training, places = self.placed(layout)
        return training, jax.device_put(self.state, places), training.make_carry()

    def run(self, layout, steps=STEPS, content=None, checkpoint=None):
        """Losses and gradient norms of some steps, and what is there then.

        Args:
          content: from a checkpoint; None: from the beginning.
          checkpoint: a folder, to go on from what is newest there.
        """
        training, state, carry = self.first(layout)
        if checkpoint:
            checkpoints = Checkpoints(checkpoint)
            if found := checkpoints.restore_newest(
                training.checkpoint_state(state, carry)
            ):
                state, carry = training.from_checkpoint(found[0], carry)
        if layout not in self.steps:
            self.steps[layout] = training.compiled_step(state, carry)
        first, told = int(state.step), []
        for k in range(first, first + steps):
            state, carry, pairs = self.steps[layout](state, carry, training.batch(k))
            told.append([float(pairs[n][0]) / float(pairs[n][1]) for n in METRICS])
        content = training.checkpoint_state(state, carry)
        if checkpoint:
            checkpoints.save(first + steps, content, {}, None)
            checkpoints.close()
        assert self.steps[layout].cache_size() == 1
        losses, norms = zip(*told, strict=True)
        kept = jax.device_get((content["state"].params, content["carry"]))
        return {"loss": losses, "norm": norms, "parameters": kept[0], "carry": kept[1]}


METRICS = "loss", "gradient_norm"


def difference(one, other):
    """The largest, as a share of the largest number of its kind."""
    found = 0.0
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        if a.size:
            found = max(found, np.abs(a - b).max() / max(np.abs(b).max(), 1e-3))
    return found


def differences(one, other):
    return {name: difference(one[name], other[name]) for name in other}


def compared(case, layouts=LAYOUTS):
    """Of each layout from one device, by quantity."""
    runs = {layout: case.run(layout) for layout in layouts}
    one = runs.pop("one device")
    moved = difference(case.run("one device", 1)["parameters"], one["parameters"])
    assert moved > 1e-3
    return {layout: differences(run, one) for layout, run in runs.items()}


def resumed(case, folder, parts):
    """Some devices, then fewer, from the whole run of the first: losses and norms.

    Args:
      parts: layouts and their numbers of steps, 2 * STEPS in all.
    """
    whole = case.run(parts[0][0], 2 * STEPS)
    parts = [case.run(layout, steps, checkpoint=folder) for layout, steps in parts]
    found = {
        name: [value for part in parts for value in part[name]]
        for name in ("loss", "norm")
    }
    found["parameters"] = parts[-1]["parameters"]
    return differences(found, {name: whole[name] for name in found})


def watched(case, layouts):
    """Largest relative difference of a number of `every.watch` from one device."""
    found = []
    for layout in layouts:
        training, state, carry = case.first(layout)
        program = training.partitioner.compile_observer(make_program(training))
        numbers, _ = jax.device_get(program(state, carry, training.batch(0)))
        found.append(numbers)
    one, *others = found
    assert all(numbers.keys() == one.keys() for numbers in others)
    return max(
        abs(float(numbers[name]) / float(one[name]) - 1)
        for numbers in others
        for name in one
    )


def planned(case, layout):
    """Bytes on the first device, and those of the plan for as many devices."""
    _, state, carry = case.first(layout)
    device = jax.devices()[0]

    def size(tree):
        shards = [s for x in jax.tree.leaves(tree) for s in x.addressable_shards]
        return sum(shard.data.nbytes for shard in shards if shard.device == device)

    params = size(state.params)
    there = params, size(state) - params, size(carry)
    mode, data, fsdp, tensor = LAYOUTS[layout]
    cfg = case.cfg.copy_and_resolve_references()
    cfg.parallel.update(mode=mode, data=data, fsdp=fsdp, tensor=tensor)
    cfg.data.batch_size = ROWS
    partitioner = memory.partitioner_for(cfg, data * fsdp * tensor)
    plans = memory.device_memory(StepSpec.from_config(cfg), partitioner)
    return there, (plans.parameters, plans.optimizer, plans.carry)


def of_kernel():
    """How far steps of a TPU's kernel, interpreted, are from those of all scores.

    With the dropout of weights, on one device and with rows and heads spread.
    """
    dispatch.SUPPORTED_DEVICES["pallas"] = ("cpu",)
    changes = ("dropout", 0.3), ("attention_dropout", 0.5)
    layouts = "one device", "data=2 x fsdp=2 x tensor=2"

    def runs(kernel, *layouts):
        keys = (*changes, ("attention_impl", kernel))
        case = Case(*XL[:2], "sgd", dtype="float32", changes=keys)
        return [case.run(layout, 3) for layout in layouts]

    [plain], found = runs("xla", layouts[0]), runs("pallas", *layouts)
    return {
        layout: differences(run, plain)
        for layout, run in zip(layouts, found, strict=True)
    }


def in_float32(folder):
    # Not Adam, which makes noise of gradients that are zero but for rounding.
    case = Case(*XL[:2], "sgd", dtype="float32")
    parts = ("data=8", 3), ("one device", 2 * STEPS - 3)
    return {
        "float32": compared(case, (ONE, "data=8")),
        "resumed, float32": resumed(case, Path(folder, "float32"), parts),
        "kernel": of_kernel(),
    }


def main(which, folder):
    cases = {"fast": FAST, "all": dict.fromkeys(ALL, LAYOUTS)}[which]
    float64, table = Case(*XL), {}
    for key, layouts in cases.items():
        case = float64 if key == XL else Case(*key)
        table[" ".join(key)] = compared(case, layouts)
    parts = ("fsdp=8", 3), ("one device", 2 * STEPS - 3)
    if which == "all":
        parts = ("fsdp=8", 3), ("data=4", 7), ("one device", STEPS)
    resumption = resumed(float64, Path(folder, "float64"), parts)
    found = {"equality": table, "resumed": resumption}
    found["watched"] = watched(float64, (ONE, MESH, PMAP))
    found["planned"] = [planned(float64, layout) for layout in LAYOUTS]
    dropout = Case(*XL, changes=(("dropout", 0.5),))
    pair = [dropout.run(layout, 2) for layout in ("data=8", "one device")]
    found["dropout"] = differences(*pair)
    plain = float64.run("one device", 2)["loss"]
    found["dropout matters"] = difference(plain, pair[1]["loss"])
    if which == "all":
        with jax.enable_x64(False):
            found |= in_float32(folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
