"""Runs on several virtual devices, explained there and on one device.

    python tests/helpers/explained_layouts.py DEVICES FOLDER

It trains the runs that are not in the folder yet, and prints one JSON object: by
layout, losses that were logged and computed again, and rows of planted faults.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[0] = str(ROOT)
sys.path.append(str(ROOT / "tests"))

import jax  # noqa: E402
import pytest  # noqa: E402

import conftest  # noqa: E402, F401

jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))

import jax.numpy as jnp  # noqa: E402

from analysis.explain.explanation import explain  # noqa: E402
from experiment import train  # noqa: E402
from helpers.small_runs import config, small_corpora  # noqa: E402
from models.common.layers import FeedForward  # noqa: E402

LAYOUTS = {
    "mesh": {"parallel.data": 2, "parallel.fsdp": 2},
    "pmap": {"parallel.mode": "pmap", "parallel.data": 4},
    "microbatches": {"parallel.data": 4, "grad_accum_steps": 2},
}
STEPS = 3
CHANGES = {
    "model.dropout": 0.1,
    "every.log": 1,
    "every.eval": 0,
    "every.checkpoint": 1,
    "keep.last": STEPS,
    "data.batch_size": 8,
    "eval.batch_size": 64,
    "eval.segment_length": 64,
    "optim.name": "sgd",
    "optim.clip_norm": 0.0,
}


def poisoned(monkeypatch):
    """Plants a nan in the second row that a device, or a microbatch, has."""
    feed_forward = FeedForward.__call__

    def plant(self, x, *args, **options):
        sign = jnp.where(jnp.arange(len(x)) == 1, -1.0, 1.0)[:, None, None]
        x = x * jnp.sqrt(sign * (1 + jnp.abs(x)))
        return feed_forward(self, x, *args, **options)

    monkeypatch.setattr(FeedForward, "__call__", plant)


def main(folder):
    found = {}
    for name, layout in LAYOUTS.items():
        workdir = str(folder / name)
        changes = {**CHANGES, **layout}
        if not (folder / name).exists():
            cfg = config(
                *("python_stdlib", "transformer_xl", folder / "data"),
                **{"steps": STEPS, **changes},
            )
            train.train(cfg, workdir)
        step = explain(workdir, STEPS, with_rows=False)
        rows = map(json.loads, (folder / name / "metrics.jsonl").open())
        logged = {row["step"]: row["loss"] for row in rows if row["split"] == "train"}
        with pytest.MonkeyPatch.context() as monkeypatch:
            poisoned(monkeypatch)
            bad = explain(workdir, STEPS, with_rows=False)
            place = bad.place(bad.cause)
        found[name] = {
            "logged": logged[STEPS],
            "explained": step.examination.loss,
            "reference": [logged[STEPS - 1], step.reference.examination.loss],
            "primitive": bad.cause.operation.primitive,
            "rows": place.rows,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patches:
        small_corpora(patches)
        main(Path(sys.argv[2]))
