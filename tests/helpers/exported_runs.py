"""Runs with random parameters of every task, and their exported files."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping

from analysis import export
from analysis.export.examples import add_outputs
from configs import base
from data.tokenizers.symbols import WordTokenizer
from data.understanding.labels import Labels
from data.understanding.markers import MARKERS
from experiment.build import build_experiment
from experiment.restore import TrainedRun
from helpers.architectures import random_parameters
from helpers.labeled_runs import SIZES
from training.run_dir import RunDirectory

WORDS = [f"w{i}" for i in range(40)]
TEXTS = ["w1 w2 w3", "", "w4", "w5 w6 w7 w8 w9 w1 w2 w3 w4", "unheard w2"]
LINES = {  # of input, by task
    "relation_extraction": [
        "w1 <e1> w2 </e1> w3 <e2> w4 w5 </e2>",
        "<e2> w6 </e2> <e1> w7 </e1> w8",
    ],
    "masked_language_modeling": ["w1 <mask> w3", "[MASK] w2 w4 <mask> w5 w6 w7 w8 w9"],
}
NO_FACTS = {"license": "", "intended_use": "", "data": ""}


def lines_of(task: str) -> list[str]:
    """Returns lines of input, of which one may be blank."""
    return LINES.get(task, TEXTS)


@functools.cache
def tokenizers_of(task: str) -> dict:
    """Returns the vocabularies of a task by side."""
    words = WordTokenizer.from_tokens(WORDS)
    if task in ("translation", "text_to_text"):
        return {"source": words, "target": words}
    if task == "language_modeling":
        return {"text": words}
    labels = Labels(("bad", "good", "neither"), (1, 1, 1))
    tags = Labels(("B-X", "I-X", "O"), (1, 1, 1))
    text = words.with_tags(MARKERS)
    return {
        "masked_language_modeling": {"text": text},
        "tagging": {"text": text, "tag": tags, "label": labels},
    }.get(task, {"text": text, "label": labels})


def random_run(folder, task: str, model: str, **changes) -> TrainedRun:
    """Returns a run of a few thousand random parameters."""
    cfg = base.get_config(model)
    cfg.task = task
    cfg.model.update({"dropout": 0.0, **SIZES[model]})
    cfg.data.update(max_length=16, segment_length=8, tokenizer="word")
    if task in ("tagging", "classification", "relation_extraction"):
        cfg.data.update(text_column="text", label_column="label", tag_column="tags")
    cfg.decode.update(max_length=20, beam_size=3)
    cfg.update_from_flattened_dict(changes)
    languages = ("en", "de") if task == "translation" else ()
    experiment = build_experiment(cfg, tokenizers_of(task), languages)
    shapes = experiment.task.example_batch(cfg)
    batch = {key: jnp.zeros(x.shape, x.dtype) for key, x in shapes.items()}
    init = functools.partial(experiment.task.init, experiment.model)
    variables = random_parameters(init, jax.random.key(0), batch)
    directory = RunDirectory(folder)
    return TrainedRun(directory, experiment, {"params": variables["params"]}, (7,))


def exported(run: TrainedRun, lines: list[str]) -> bytes:
    """Returns the exported file of a run.

    Symbolic dimensions are no `int`, as the annotations of models say.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        return add_outputs(export.export_run(run, lines, NO_FACTS))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def predicted(run: TrainedRun, lines: list[str]) -> list[str]:
    """Returns the outputs of predict.py for a run."""
    return list(run.experiment.task.predict(*run.inputs(lines)))
