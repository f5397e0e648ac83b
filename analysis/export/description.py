"""Facts about a run that the runner of its exported file reads."""

import dataclasses
import json

import jax

from data.tokenizers.build import dump_tokenizer
from decoding.config import max_source_length
from experiment.restore import TrainedRun
from utils.languages import primary_language

FORMAT = 1  # of the exported file
TASK_KINDS = {  # from a task to the kind of its lines, and the runner's command
    "translation": ("translate", "translate"),
    "text_to_text": ("translate", "translate"),
    "language_modeling": ("continue", "continue"),
    "classification": ("classes", "label"),
    "relation_extraction": ("relations", "label"),
    "tagging": ("tags", "label"),
    "masked_language_modeling": ("fill", "label"),
}


def describe_run(run: TrainedRun) -> dict:
    """Returns the content of about.json, whose programs are not known yet."""
    experiment = run.experiment
    cfg, task = experiment.cfg, experiment.task
    kind, command = TASK_KINDS[cfg.task]
    about = {
        "format": FORMAT,
        "task": cfg.task,
        "kind": kind,
        "command": command,
        "programs": {},
        "architecture": cfg.model.name,
        "corpus": cfg.data.name,
        "checkpoints": list(run.steps),
        "jax": jax.__version__,
    }
    if task.generates_text:
        decode = cfg.decode
        method = "sample" if decode.method == "mbr" else decode.method
        about |= {"search": method, "seed": decode.seed}
        about["max_length"] = decode.max_length
    if task.model_class == "Seq2Seq":
        about["max_source_length"] = max_source_length(cfg)
        about["max_length_ratio"] = cfg.decode.max_length_ratio
    if task.generates_text:
        return about
    known = experiment.tokenizers
    labels = {
        side: list(known[side].names) if side in known else []
        for side in ("label", "tag")
    }
    return about | {
        "max_length": cfg.data.max_length,
        "tokenizer": task.tokenizer.kind,
        "pairs": bool(cfg.data.pair_column),
        "regression": cfg.head.regression,
        "fillings": max(1, cfg.decode.n_best),
        "labels": labels["label"],
        "tags": labels["tag"],
        "intents": labels["label"] if cfg.task == "tagging" else [],
    }


def describe_tokenizers(run: TrainedRun) -> dict[str, dict]:
    """Returns the vocabulary, the normalisation and the tags of each side of text."""
    documents = {}
    for side, tokenizer in run.experiment.tokenizers.items():
        if tokenizer.kind == "labels":
            continue
        document = json.loads(dump_tokenizer(tokenizer))
        document["normal"] = dataclasses.asdict(tokenizer.normalizer)
        language = primary_language(tokenizer.normalizer.language) or "en"
        document["normal"]["moses_language"] = language
        document["tags"] = dict(tokenizer.tags)
        documents[side] = document
    return documents
