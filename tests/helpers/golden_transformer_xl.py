"""Comparison of our Transformer-XL with the authors' in the golden files."""

import functools

import flax.linen as nn
import jax
import numpy as np

from analysis.import_transformer_xl.convert import convert
from configs import base
from helpers.golden_files import Distances, golden
from models.transformer_xl import model

STARTS = {"fresh": False, "zeros": True}  # model.attend_empty_memory
WITH_GRADIENTS = 2  # the segment of whose loss there are gradients


class Case:
    """A model, its parameters, and the segments of its golden file.

    Attributes:
      start: one of STARTS.
    """

    def __init__(self, name: str, start: str):
        self.golden, self.start = golden(name), start
        self.sizes = sizes = self.golden.sizes
        self.options = {
            "norm": "pre" if sizes["pre_lnorm"] else "post",
            "cutoffs": tuple(sizes["cutoffs"]),
            "memory_length": sizes["mem_len"],
            "same_length": sizes["same_length"],
            "clamp_length": max(sizes["clamp_len"], 0),
            "attend_empty_memory": STARTS[start],
        }
        values, self.params = self.convert("parameters")
        config = model.Config(**base.model("transformer_xl", **values))
        self.model = model.LanguageModel(config, sizes["vocab_size"])
        self.tokens, self.labels = (
            self.golden.group("inputs")[name] for name in ("tokens", "labels")
        )

    def convert(self, group: str, tail_columns: str = "pytorch"):
        """Returns the config, and parameters or gradients."""
        weights = self.golden.group(group)
        return convert(weights, tail_columns=tail_columns, **self.options)

    def theirs(self, segment: int) -> dict[str, np.ndarray]:
        """Returns the file's outputs for a segment; a memory is [L, B, M, D]."""
        found = self.golden.group(f"outputs/{self.start}/{segment}")
        return {**found, "memory": found["memory"].swapaxes(1, 2)}

    def carry(self):
        """Returns the memory of training before the first segment."""
        return self.model.initial_carry(self.sizes["batch"], train=True)

    def segment(self, params, tokens, labels, carry):
        """Returns the mean loss and all outputs in the file."""

        def call(model):
            hidden, after = model(tokens, carry, train=False)
            chosen = model.log_prob(hidden, labels)
            return {
                "hidden": hidden,
                "log_probabilities": model.logits(hidden),
                "label_log_probabilities": chosen,
                "loss": -chosen.mean(),
                "memory": after,
            }

        found = nn.apply(call, self.model)({"params": params})
        return found["loss"], found

    @functools.cached_property
    def learn(self):
        """Compiles `segment` with its gradients.

        Compiling takes seconds, so it is done for one start: once memory is full,
        all starts are one computation.
        """
        if self.start != "fresh":
            return case(self.golden.name, "fresh").learn
        return jax.jit(jax.value_and_grad(self.segment, has_aux=True))

    @functools.cached_property
    def read(self):
        """Compiles `segment` without its gradients."""
        if self.start != "fresh":
            return jax.jit(self.segment)
        return lambda *given: self.learn(*given)[0]

    def watch(self, segments: int, params=None, *, anew: bool = False):
        """Returns hidden states and log probabilities of the first segments.

        Args:
          anew: whether to compile what a test has changed.
        """
        run = jax.jit(lambda *given: self.segment(*given)) if anew else self.read
        carry, seen = self.carry(), []
        for n in range(segments):
            arguments = (self.tokens[n], self.labels[n], carry)
            _, found = run(params or self.params, *arguments)
            carry = found["memory"]
            seen.append((found["hidden"], found["log_probabilities"]))
        return seen

    def stream(self):
        """Yields hidden states and carry of all segments of an evaluation."""
        sizes = self.sizes
        carry = self.model.initial_eval_carry(sizes["batch"], sizes["length"])
        call = jax.jit(functools.partial(self.model.apply, train=False))
        for tokens in self.tokens:
            hidden, carry = call({"params": self.params}, tokens, carry)
            yield hidden, carry


case = functools.cache(Case)


def compare_starts(name: str) -> dict[str, float]:
    """Returns the largest differences by quantity over both starts."""
    both = [compare_segments(name, start) for start in STARTS]
    return {key: max(part[key] for part in both) for key in both[0]}


def compare_segments(name: str, start: str) -> dict[str, float]:
    """Returns the largest differences by quantity over all segments."""
    ours, far = case(name, start), Distances()
    carry = ours.carry()
    for n in range(ours.sizes["segments"]):
        arguments = (ours.tokens[n], ours.labels[n], carry)
        _, found = ours.read(ours.params, *arguments)
        theirs = ours.theirs(n)
        for quantity in ("hidden", "log_probabilities", "label_log_probabilities"):
            far.add("outputs", found[quantity], theirs[quantity])
        far.add("loss", found["loss"], theirs["loss"])
        slots = theirs["memory"].shape[2]
        remembered = [hidden[:, -slots:] for hidden in found["memory"].hidden]
        far.add("memory", remembered, list(theirs["memory"]))
        if n == WITH_GRADIENTS:
            compare_gradients(ours, far, arguments)
        carry = found["memory"]
    return far.largest


def compare_gradients(ours: Case, far: Distances, arguments: tuple) -> None:
    """Compares one segment's gradients, and outputs with TensorFlow's columns."""
    assert (arguments[-1].valid_length == ours.sizes["mem_len"]).all()
    _, gradients = ours.learn(ours.params, *arguments)
    _, slopes = ours.convert(f"gradients/{ours.start}")
    far.add("gradients", gradients, slopes)
    _, params = ours.convert("parameters", "tensorflow")
    _, found = ours.read(params, *arguments)
    theirs = ours.theirs(WITH_GRADIENTS)["log_probabilities_tf"]
    far.add("outputs", found["log_probabilities"], theirs)
