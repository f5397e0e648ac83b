"""Facts about a run that the runner of its exported file reads."""

import ast
import dataclasses
import json

import jax

from analysis.export.archive import RUNNER
from data.tokenizers.base import Tokenizer
from data.tokenizers.build import dump_tokenizer
from decoding.config import max_source_length
from experiment.restore import TrainedRun
from utils.languages import primary_language

FORMAT = 1  # of the exported file
TASK_KINDS = {  # from a task to its module of the runner, and the runner's command
    "translation": ("translate", "translate"),
    "text_to_text": ("translate", "translate"),
    "language_modeling": ("continuation", "continue"),
    "classification": ("classes", "label"),
    "relation_extraction": ("relations", "label"),
    "tagging": ("tags", "label"),
    "masked_language_modeling": ("fill", "label"),
}
TOKENIZER_MODULES = {  # of the runner, by kind
    "byte": "byte_tokenizer",
    **dict.fromkeys(("char", "word"), "symbol_tokenizer"),
    "wordpiece": "wordpiece_tokenizer",
    **dict.fromkeys(("sentencepiece", "unigram"), "sentencepiece_tokenizer"),
}
FOR_MASKS = {"sentencepiece_tokenizer": "masked_sentencepiece"}


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
    has_masks = run.experiment.cfg.task == "masked_language_modeling"
    return {
        side: describe_tokenizer(tokenizer, has_masks=has_masks)
        for side, tokenizer in run.experiment.tokenizers.items()
        if tokenizer.kind != "labels"
    }


def describe_tokenizer(tokenizer: Tokenizer, *, has_masks: bool) -> dict:
    """Returns a tokenizer as JSON, with the module of the runner that reads it."""
    module = TOKENIZER_MODULES[tokenizer.kind]
    options = dataclasses.asdict(tokenizer.normalizer)
    language = primary_language(options.pop("language")) or "en"
    return {
        **json.loads(dump_tokenizer(tokenizer)),
        "module": FOR_MASKS.get(module, module) if has_masks else module,
        "normal": {**options, "moses_language": language}
        if any(options.values())
        else {},
        "tags": dict(tokenizer.tags),
    }


def runner_modules(about: dict, tokenizers: dict[str, dict]) -> list[str]:
    """Returns the modules of the runner that a model needs, those they import too."""
    pending = ["run", about["kind"], *(one["module"] for one in tokenizers.values())]
    if any(one["normal"] for one in tokenizers.values()):
        pending.append("normalizer")
    found = []
    while pending:
        name = pending.pop()
        path = RUNNER / f"{name}.py"
        if name in found or not path.exists():
            continue
        found.append(name)
        tree = ast.parse(path.read_text(encoding="utf8"))
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                pending.append(node.module)
            elif isinstance(node, ast.Import):
                pending += [alias.name for alias in node.names]
    return sorted(found)
