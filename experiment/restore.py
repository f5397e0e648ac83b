"""A run directory, opened to be used: scored, or asked for texts."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from configs import base
from data.dataset import SIDES, Dataset, open_dataset
from data.tokenizers.base import Tokenizer
from data.tokenizers.build import dump_tokenizer, parse_tokenizer
from decoding.ensemble import Ensemble, ensemble_variables
from experiment.build import Experiment, build_experiment
from experiment.validate import check_lengths
from tasks.base import check_windows
from tasks.baselines import MAX_TRAINING_PAIRS
from training.checkpoint import Checkpoints
from training.optim.param_groups import names_of
from training.profiling.environment import commit
from training.run_dir import RunDirectory, describe_differences
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run directory, opened to be used.

    Attributes:
      steps: of the checkpoint, or of those whose mean the parameters are.
    """

    directory: RunDirectory
    experiment: Experiment
    variables: PyTree
    steps: tuple[int, ...]

    @property
    def step(self) -> int:
        """The newest."""
        return self.steps[-1]

    def name(self, split: str) -> str:
        """Of the files that say how it does on a split."""
        if len(self.steps) == 1:
            return f"{split}-{self.step}"
        return f"{split}-{self.step}-average-{len(self.steps)}"


def open_run(
    workdir: str, checkpoint: str = "best", changes: dict | None = None
) -> TrainedRun:
    """Model, tokenizers and parameters of a run; its corpus is not needed.

    Args:
      checkpoint: "best", "last", a step, or "average:N" of the newest N.
      changes: keys to change by section, such as `{"decode": {"max_length": 9}}`.

    Raises UserError where there is no run or no such checkpoint.
    """
    directory = RunDirectory(workdir)
    cfg = read_config(directory)
    for section, values in (changes or {}).items():
        cfg[section].update_from_flattened_dict(values)
    check_lengths(cfg)
    about = directory.read_json("about.json") if directory.is_complete else {}
    if "languages" not in about:
        raise UserError(
            f"{directory.path}/about.json is missing or says no languages: the run "
            "was killed before it began, so train it again"
        )
    languages = tuple(about["languages"])
    experiment = build_experiment(cfg, read_tokenizers(directory), languages)
    checkpoints = Checkpoints(directory.checkpoints, is_reader=True)
    steps = checkpoints.resolve(checkpoint)
    params = checkpoints.restore_params(*steps)
    checkpoints.close()
    _check_parameters(directory, experiment, params)
    return TrainedRun(directory, experiment, {"params": params}, steps)


def _check_parameters(directory: RunDirectory, built: Experiment, params) -> None:
    """Raises UserError where a model's parameters are not those of a checkpoint."""

    def shapes(params):
        leaves = jax.tree.leaves(params)
        return {
            name: leaf.shape
            for name, leaf in zip(names_of(params), leaves, strict=True)
        }

    there, here = shapes(params), shapes(nn.meta.unbox(built.parameters()))
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise UserError(
                f"{directory.path}: its checkpoint is not of the model that its "
                "config.json describes, which was changed, or it is of another version "
                f"of this code: {name} is {there.get(name, 'missing')} there and "
                f"{here.get(name, 'missing')} here"
            )


@dataclasses.dataclass(frozen=True)
class EnsembleExperiment(Experiment):
    """Several experiments whose models are one, as `cfg.eval` changes each."""

    @property
    def evaluation_model(self) -> Ensemble:
        """The ensemble; its members were changed before."""
        return self.model


def open_runs(
    workdirs: list[str], checkpoint: str = "best", changes: dict | None = None
) -> TrainedRun:
    """One run, or an ensemble of several, its directory and config the first one's.

    Raises UserError for runs of unlike tasks or vocabularies, or as `open_run`.
    """
    if not workdirs:
        raise UserError("--workdir is empty: name a run directory")
    runs = [open_run(workdir, checkpoint, changes) for workdir in workdirs]
    first = runs[0]
    if len(runs) == 1:
        return first
    for other in runs[1:]:
        _check_together(first, other)
    models = tuple(run.experiment.evaluation_model for run in runs)
    own = {field.name for field in dataclasses.fields(Experiment)} - {"model"}
    parts = {name: getattr(first.experiment, name) for name in own}
    return dataclasses.replace(
        first,
        experiment=EnsembleExperiment(**parts, model=Ensemble(models)),
        variables=ensemble_variables([run.variables for run in runs]),
    )


def _check_together(one: TrainedRun, other: TrainedRun) -> None:
    """Raises UserError for what keeps two runs from being one ensemble."""
    both = f"an ensemble of {one.directory.path} and {other.directory.path}"
    settings = {
        "task": lambda run: run.experiment.cfg.task,
        "data.document_order": lambda run: run.experiment.cfg.data.document_order,
        "model.dtype": lambda run: run.experiment.cfg.model.dtype,
    }
    for key, value in settings.items():
        if value(one) != value(other):
            raise UserError(
                f"{both}: {key} is {value(one)!r} in one and {value(other)!r} in the "
                "other, and must be the same"
            )
    documents = [
        {side: dump_tokenizer(it) for side, it in run.experiment.tokenizers.items()}
        for run in (one, other)
    ]
    for side in documents[0]:
        if documents[0][side] != documents[1][side]:
            sizes = [r.experiment.tokenizers[side].vocab_size for r in (one, other)]
            raise UserError(
                f"{both}: their {side} vocabularies differ ({sizes[0]} and {sizes[1]} "
                "tokens): train both with one, data.vocabulary=FILE or init_from"
            )


def read_tokenizers(directory: RunDirectory) -> dict[str, Tokenizer]:
    """A run's tokenizers by side; a joint vocabulary is one and the same object."""
    documents = directory.read_tokenizers()
    if set(documents) not in map(set, SIDES.values()):
        there = ", ".join(documents) or "nothing"
        raise UserError(
            f"{directory.path}/tokenizer holds {there}, and not all vocabularies of a "
            "run: it is damaged"
        )
    try:
        known = {text: parse_tokenizer(text) for text in documents.values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory.path}/tokenizer is damaged: {error}") from error
    return {side: known[text] for side, text in documents.items()}


def read_config(directory: RunDirectory) -> ConfigDict:
    """A run's config, on top of today's defaults."""
    stored = directory.read_config()
    try:
        cfg = base.get_config(stored["model"]["name"])
        cfg.update(stored)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{directory.path}/config.json is of another version of this code: {error}"
        ) from error
    return cfg


def check_data(directory: RunDirectory, dataset: Dataset) -> None:
    """Raises UserError where the corpus is not the one a run was trained on."""
    before = directory.read_json("about.json")
    if before["hashes"] != dataset.hashes:
        raise UserError(
            f"{directory.path} was trained on other data: {before['corpus']} with "
            f"hashes {before['hashes']}, and here is version "
            f"{dataset.corpus.version} with hashes {dataset.hashes}"
        )


def evaluation_input(experiment: Experiment, dataset: Dataset, split: str):
    """A split's batches, and what else its task needs to score it.

    Raises UserError for windows where a model carries something.
    """
    cfg = experiment.cfg.eval
    batches = dataset.evaluation_batches(
        split,
        batch_size=cfg.batch_size,
        length=cfg.segment_length,
        window=cfg.window,
        stride=cfg.stride,
    )
    if not dataset.is_parallel:
        check_windows(experiment.evaluation_model, batches)
    return batches, {"texts": dataset.texts(split)} if dataset.is_parallel else {}


def evaluate(run: TrainedRun, split: str) -> tuple[dict, Path]:
    """Scores a run on a split; returns the card and where it was written.

    Beside the card lies what others need to score or to compare it: the sums of its
    losses, and of translations all hypotheses and references, as JSON and as lines.
    """
    experiment = run.experiment
    dataset = open_dataset(experiment.cfg.data, experiment.tokenizers)
    check_data(run.directory, dataset)
    batches, extra = evaluation_input(experiment, dataset, split)
    model, cfg = experiment.evaluation_model, experiment.cfg
    card = experiment.task.evaluate(
        model, run.variables, batches, cfg, **extra, intervals=True
    )
    write_eval_artifacts(run.directory, run.name(split), card)
    card["protocol"] |= {
        "checkpoint": list(run.steps) if len(run.steps) > 1 else run.step,
        **dataset.hashes,
        "commit": commit(),
        "config": f"{cfg.task}, {cfg.model.name} on {cfg.data.name}",
    }
    found = {"unigram": {"loss": dataset.unigram_loss(split)}}
    if dataset.is_parallel:
        few = dataset.corpus.splits["train"] <= MAX_TRAINING_PAIRS
        train_texts = dataset.texts("train") if few else []
        found |= experiment.task.trivial_baselines(train_texts, extra["texts"])
    card = {"split": split, "step": run.step, **card, "baselines": found}
    warn_if_overwriting(run, split, card)
    return card, run.directory.write_json(f"eval/{run.name(split)}.json", card)


def warn_if_overwriting(run: TrainedRun, split: str, card: dict) -> None:
    """Warns where the card before it was made by another protocol."""
    name = f"eval/{run.name(split)}.json"
    if not (run.directory.path / name).exists():
        return
    before = run.directory.read_json(name).get("protocol", {})
    unlike = describe_differences(
        before | {"commit": card["protocol"]["commit"]}, card["protocol"]
    )
    if unlike:
        print(
            f"replacing {name}, of another protocol: {'; '.join(unlike)} (python -m "
            "analysis.publish_results --keep keeps a card)",
            file=sys.stderr,
        )


def write_eval_artifacts(directory: RunDirectory, name: str, card: dict) -> None:
    """Moves what is too long for a card to files beside it."""
    samples, references = card.pop("samples", []), card.pop("references", [])
    directory.write_lines(f"samples/{name}.jsonl", samples)
    if samples:
        hypotheses = [sample["hypothesis"] for sample in samples]
        for side, lines in {"hypotheses": hypotheses, "references": references}.items():
            path = directory.path / "samples" / f"{name}.{side}.txt"
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf8")
    blocks = card.pop("blocks")
    path = directory.path / "eval" / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    totals, weights = blocks.total.astype(np.float32), blocks.weight.astype(np.uint32)
    with path.open("wb") as file:
        np.savez_compressed(file, total=totals, weight=weights)


def predict(run: TrainedRun, lines: Iterable[str], **keywords) -> Iterator[str]:
    """A translation or a continuation of each line, in order.

    Args:
      keywords: `prefix`, `document_order` and `chunk_size`; see tasks/base.py.
    """
    task, model = run.experiment.task, run.experiment.evaluation_model
    return task.predict(model, run.variables, lines, run.experiment.cfg, **keywords)


def predict_n_best(
    run: TrainedRun, lines: Iterable[str], **keywords
) -> Iterator[list[tuple[str, float]]]:
    """The same, but `decode.n_best` a line with their scores; none of a blank one."""
    task, model = run.experiment.task, run.experiment.evaluation_model
    return task.predict_n_best(
        model, run.variables, lines, run.experiment.cfg, **keywords
    )


def score_targets(
    run: TrainedRun, lines: Iterable[str], **keywords
) -> Iterator[tuple[float, int] | None]:
    """Log probability in nats and tokens of given targets or texts, None if blank."""
    task, model = run.experiment.task, run.experiment.evaluation_model
    return task.score_targets(
        model, run.variables, lines, run.experiment.cfg, **keywords
    )
