"""Construction of an experiment: task, model and tokenizers of a config."""

import dataclasses
import difflib
import pkgutil
import typing
from typing import Any

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from data.dataset import Dataset
from data.tokenizers.base import Tokenizer
from data.tokenizers.build import parse_tokenizer
from decoding.config import check_decode
from models.registry import get_model_class
from tasks.base import MEMORY_KEYS, TASKS, Task
from training.run_dir import RunDirectory
from utils.errors import UserError

SIDES = (  # of an example, each with a vocabulary
    *({"text"}, {"source", "target"}),
    *({"text", "label"}, {"text", "tag"}, {"text", "tag", "label"}),
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Task and model of a config, with the tokenizers by side."""

    cfg: ConfigDict
    task: Task
    model: Any
    tokenizers: dict[str, Tokenizer]

    @property
    def evaluation_model(self):
        """The model with the changes of `cfg.eval`; it has the same parameters."""
        config = evaluation_config(self.model.config, self.cfg.eval)
        return self.model.clone(config=config)

    def parameters(self) -> PyTree:
        """Returns shapes of all parameters, with the names of their axes."""
        variables = jax.eval_shape(
            lambda batch: self.task.init(self.model, jax.random.key(0), batch),
            self.task.example_batch(self.cfg),
        )
        return variables["params"]


def build_experiment(
    cfg: ConfigDict,
    tokenizers: dict[str, Tokenizer],
    languages: tuple[str, ...] = (),
) -> Experiment:
    """Builds task and model of a config.

    Args:
      tokenizers: by side: "source" and "target", or "text".
      languages: of a parallel corpus, in its order.

    Raises:
      UserError: a name is unknown, a key does not fit, or the vocabulary is too
        small for the search.
    """
    task = get_task_class(cfg.task).from_config(cfg, tokenizers, languages)
    schema = get_model_class(cfg.model.name, "Config")
    model = task.make_model(model_config(schema, cfg.model))
    if task.generates_text:
        check_decode(cfg.decode, getattr(task, task.output_tokenizer).vocab_size)
    return Experiment(cfg, task, model, tokenizers)


def get_task_class(name: str) -> type[Task]:
    """Returns the class `Task` of a task in `tasks.base.TASKS`."""
    if name not in TASKS:
        raise UserError(f"Unknown task {name!r}; choose one of {', '.join(TASKS)}")
    return pkgutil.resolve_name(f"{TASKS[name]}:Task")


def open_dataset(cfg: ConfigDict, tokenizers: dict[str, Tokenizer] | None = None):
    """Opens the dataset of a config's task; see `tasks.base.Task.open_dataset`."""
    return get_task_class(cfg.task).open_dataset(cfg, tokenizers)


def read_tokenizers(directory: RunDirectory) -> dict[str, Tokenizer]:
    """Returns the tokenizers by side; a joint vocabulary is one object."""
    documents = directory.read_tokenizers()
    if set(documents) not in SIDES:
        raise UserError(
            f"{directory.path}/tokenizer is damaged: it has the vocabularies "
            f"{', '.join(documents) or '(none)'}, and not all that a run needs"
        )
    try:
        known = {text: parse_tokenizer(text) for text in documents.values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory.path}/tokenizer is damaged: {error}") from error
    return {side: known[text] for side, text in documents.items()}


def check_data(directory: RunDirectory, dataset: Dataset) -> None:
    """Raises UserError where a dataset is not the one a run was trained on."""
    before = directory.read_json("about.json")
    if before["hashes"] != dataset.hashes:
        raise UserError(
            f"{directory.path} was trained on other data: {before['corpus']} with "
            f"hashes {before['hashes']}, and here is version "
            f"{dataset.corpus.version} with hashes {dataset.hashes}"
        )


def is_language_modeling(cfg: ConfigDict) -> bool:
    """Whether batches are segments of running text rather than sentence pairs."""
    return get_task_class(cfg.task).model_class == "LanguageModel"


def model_config(schema: type, cfg: ConfigDict):
    """Converts `cfg.model` to the dataclass `Config` of an architecture.

    Raises:
      UserError: a key is unknown, missing or of another type, or the dataclass
        refuses its values.
    """
    hints = typing.get_type_hints(schema)
    types = {field.name: hints[field.name] for field in dataclasses.fields(schema)}
    values = cfg.to_dict()
    for key, value in values.items():
        if key not in types:
            close = difflib.get_close_matches(key, types, 1) or list(types)
            raise UserError(f"Unknown key model.{key}; did you mean {close[0]!r}?")
        wanted = types[key]
        if wanted in (float, float | None) and isinstance(value, int):
            values[key] = float(value)
        elif wanted is tuple and isinstance(value, list):
            values[key] = tuple(value)
        elif not isinstance(value, wanted) or isinstance(value, bool) != (
            wanted is bool
        ):
            kind = wanted.__name__ if isinstance(wanted, type) else wanted
            raise UserError(f"model.{key}={value!r} is not of type {kind}")
    missing = types.keys() - values.keys()
    if missing:
        raise UserError(f"model.{min(missing)} is not set")
    try:
        return schema(**values)
    except ValueError as error:
        raise UserError(str(error)) from error


def evaluation_config(config, options: ConfigDict):
    """Returns a model's Config with the keys of `cfg.eval` that are set.

    Raises:
      UserError: the model has no such key, or refuses its value.
    """
    keys = ("attention_window", *MEMORY_KEYS)
    changes = {key: options[key] for key in keys if options[key] is not None}
    for key, value in changes.items():
        if not hasattr(config, key):
            raise UserError(f"eval.{key}={value}: a {config.name} has no such key")
    try:
        return dataclasses.replace(config, **changes)
    except ValueError as error:
        raise UserError(str(error).replace("model.", "eval.", 1)) from error
