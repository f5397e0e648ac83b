"""Comparison of our cells with `nn.GRU` and `nn.LSTM` of the golden files."""

import jax.numpy as jnp
import numpy as np

from helpers.golden_files import compare, golden
from models.rnn.cells import GRU, LSTM


def cell(weights: dict, suffix: str, *, gradients: bool = False) -> dict:
    """Converts one layer and direction of `nn.GRU` or `nn.LSTM`.

    Theirs have two biases a gate. All but those of the GRU's candidate add up, so
    that ours has the gradient of either.
    """
    ih, hh = (weights[f"bias_{part}_{suffix}"].copy() for part in ("ih", "hh"))
    width = weights[f"weight_hh_{suffix}"].shape[1]
    params = {"recurrent": weights[f"weight_hh_{suffix}"].T}
    if len(ih) == 3 * width:
        params["candidate_bias"] = hh[2 * width :].copy()
        hh[2 * width :] = ih[2 * width :] if gradients else 0
    if gradients:
        np.testing.assert_array_equal(ih, hh)
    params["input"] = {
        "kernel": weights[f"weight_ih_{suffix}"].T,
        "bias": ih if gradients else ih + hh,
    }
    return params


def compare_gru(name: str) -> dict[str, float]:
    """Returns the largest differences by quantity for two bidirectional layers."""
    file = golden(name)
    given, sizes = file.group("inputs"), file.sizes
    mask = real(given, sizes)
    suffixes = [
        f"l{i}{end}" for i in range(sizes["layers"]) for end in ("", "_reverse")
    ]

    def loss(params, inputs):
        x, last = inputs["x"], []
        for i in range(0, len(suffixes), 2):
            both = []
            for j in (i, i + 1):
                arguments = (x, inputs["initial"][j], mask)
                y, state = run_cell(GRU, sizes, params[suffixes[j]], *arguments, j > i)
                both.append(y)
                last.append(state)
            x = jnp.concatenate(both, axis=-1)
        found = {"output": x * mask[..., None], "last": jnp.stack(last)}
        total = (found["output"] * given["weights"]).sum()
        return total + (found["last"] * given["weights_last"]).sum(), found

    def convert(group):
        weights, slopes = file.group(group), group == "gradients"
        return {end: cell(weights, end, gradients=slopes) for end in suffixes}

    return compare(file, loss, convert, {key: given[key] for key in ("x", "initial")})


def compare_lstm(name: str) -> dict[str, float]:
    """Returns the largest differences by quantity for two forward layers."""
    file = golden(name)
    given, sizes = file.group("inputs"), file.sizes
    mask = real(given, sizes)
    suffixes = [f"l{i}" for i in range(sizes["layers"])]

    def loss(params, inputs):
        x, last = inputs["x"], []
        starts = zip(inputs["initial_hidden"], inputs["initial_cell"], strict=True)
        for suffix, state in zip(suffixes, starts, strict=True):
            x, state = run_cell(LSTM, sizes, params[suffix], x, state, mask)
            last.append(state)
        hidden, memory = map(jnp.stack, zip(*last, strict=True))
        output = x * mask[..., None]
        total = (output * given["weights"]).sum()
        total += (hidden * given["weights_hidden"]).sum()
        total += (memory * given["weights_cell"]).sum()
        return total, {"output": output, "last_hidden": hidden, "last_cell": memory}

    def convert(group):
        weights, slopes = file.group(group), group == "gradients"
        return {end: cell(weights, end, gradients=slopes) for end in suffixes}

    keys = ("x", "initial_hidden", "initial_cell")
    return compare(file, loss, convert, {key: given[key] for key in keys})


def real(given: dict, sizes: dict) -> jnp.ndarray:
    """Returns our mask for their lengths."""
    return jnp.arange(sizes["length"]) < jnp.asarray(given["lengths"])[:, None]


def run_cell(kind, sizes: dict, params, x, state, mask, reverse: bool = False):
    """Returns the outputs and the last state of one layer in one direction."""
    options = {"train": False, "reverse": reverse}
    return kind(sizes["width"]).apply({"params": params}, x, state, mask, **options)
