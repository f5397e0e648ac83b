"""Faults of a training program, planted for the length of a context."""

import contextlib
import json

import jax
import jax.numpy as jnp
import pytest

from experiment.setup import TrainingSetup
from models.attention.multi_head import MultiHeadAttention
from training.loop import TrainLoop
from training.optim.param_groups import map_named


@contextlib.contextmanager
def replaced(owner, name, make):
    """Replaces a method by what `make` returns for it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(owner, name, make(getattr(owner, name)))
        yield


def steps_compiled_once(steps):
    """Compiles the step once for all runs of a config, and for their replays.

    What a run does about a spike, and how often it logs, is no part of its step
    (test_watch.py compares programs).

    Args:
      steps: dict of the compiled steps, which this fills.
    """

    def make(compile_step):
        def compiled(self, state, carry):
            cfg = self.experiment.cfg.to_dict()
            for section in ("on_spike", "every", "keep"):
                del cfg[section]
            key = json.dumps(cfg, sort_keys=True)
            if key not in steps:
                steps[key] = compile_step(self, state, carry)
            return steps[key]

        return compiled

    return replaced(TrainingSetup, "compiled_step", make)


def flipped_bit(step, param, place, bit):
    """Flips a bit of a parameter after a step."""

    def change(name, leaf):
        if name != param:
            return leaf
        bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
        bits = bits.at[place].set(bits[place] ^ jnp.uint32(1 << bit))
        return jax.device_put(
            jax.lax.bitcast_convert_type(bits, leaf.dtype), leaf.sharding
        )

    def make(call_step):
        def call(self, number, state, carry, batch):
            if int(state.step) == step:
                state = state.replace(params=map_named(change, state.params))
            return call_step(self, number, state, carry, batch)

        return call

    return replaced(TrainLoop, "_call_step", make)


def unscaled_head(head):
    """Leaves out the scale 1 / sqrt(K) of the logits of one head."""

    def make(attend):
        def call(self, inputs, mask, **options):
            query = inputs.query
            query = query.at[:, head].multiply(query.shape[-1] ** 0.5)
            return attend(self, inputs._replace(query=query), mask, **options)

        return call

    return replaced(MultiHeadAttention, "_attend", make)


def products_in_bfloat16():
    """Rounds the outputs of heads to bfloat16 before the product with W^O."""

    def make(project):
        def call(self, heads):
            return project(self, heads.astype(jnp.bfloat16)).astype(heads.dtype)

        return call

    return replaced(MultiHeadAttention, "project_output", make)
